"""Measuring captioner: images per CPU second, and agreement with phantoms' truth.

    python -m benchmarks.captions [--count 300] [--size 128] [--seed 0] [--no-mask]
    python -m benchmarks.captions --sheet sheet.png --manifest RUN/data/train.csv

The second form draws 24 images of a manifest, by a hash of their names, with their captions, for a
person to judge. Threads: one (set before numpy is imported). Rendering is not timed.
"""

import argparse
import os
import textwrap
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from didgen.captions.attributes import Attributes, position_word, size_word, skin_tone_word
from didgen.captions.measure import measure
from didgen.captions.sentence import write_sentence
from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest, resolve
from didgen.data.phantoms import cohort, render
from didgen.report.sections.samples import drawn
from didgen.report.sheet import Tile, contact_sheet

ARTIFACTS = ("ruler", "ink", "gel bubbles", "dark corners")
SHEET_IMAGES, SHEET_COLUMNS, SHEET_SIDE, SHEET_LETTERS = 24, 6, 230, 40


def main() -> None:
    """Draw the sheet, or measure phantoms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="phantoms")
    parser.add_argument("--size", type=int, default=128, help="side in px")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cohort")
    parser.add_argument("--no-mask", action="store_true", help="let the captioner segment")
    parser.add_argument("--sheet", type=Path, help="PNG to write: 24 images with their captions")
    parser.add_argument("--manifest", type=Path, help="manifest of the images of the sheet")
    options = parser.parse_args()
    if options.sheet:
        if options.manifest is None:
            parser.error("--sheet needs --manifest")
        draw_sheet(options.manifest, options.no_mask).save(options.sheet)
        return
    measure_phantoms(options)


def measure_phantoms(options: argparse.Namespace) -> None:
    """Print one line an attribute: accuracy and the most frequent confusions."""
    confusion: dict[str, Counter] = {}
    sources, seconds, agreement, overlap = Counter(), 0.0, [], []
    for spec in cohort(options.count, seed=options.seed):
        drawn = render(spec, options.size)
        started = time.process_time()
        measured = measure(drawn.image, None if options.no_mask else drawn.mask, drawn.label)
        seconds += time.process_time() - started
        sources[measured.mask_source] += 1
        for name, pair in compare(measured.attributes, drawn.truth).items():
            confusion.setdefault(name, Counter())[pair] += 1
        true, said = set(drawn.truth.colors[:3]), set(measured.attributes.colors)
        agreement.append(len(true & said) / len(true | said))
        overlap.append(bool(said) and measured.attributes.colors[0] in drawn.truth.colors[:2])
    print(
        f"{options.count} phantoms of {options.size} px: "
        f"{options.count / seconds:.0f} images per CPU second"
    )
    print("masks:", dict(sources))
    for name, counts in confusion.items():
        right = sum(n for (truth, said), n in counts.items() if truth == said)
        wrong = [f"{t} as {s}: {n}" for (t, s), n in counts.most_common() if t != s and n > 0]
        print(f"{name:16s} {right / options.count:.3f}  {'; '.join(wrong[:4])}")
    print(f"{'main in true top 2':16s} {np.mean(overlap):.3f}")
    print(f"{'colors (Jaccard)':16s} {np.mean(agreement):.3f}")


def compare(words: Attributes, truth) -> dict[str, tuple]:
    """(truth, measured) of every attribute that phantoms know."""
    pairs = {
        "size": (size_word(truth.area_share), words.size),
        "position": (position_word(truth.center[1], truth.center[0]), words.position),
        "shape": (truth.shape, words.shape),
        "symmetry": ("asymmetric" if truth.asymmetric else "symmetric", words.symmetry),
        "main color": (truth.colors[0], words.colors[0] if words.colors else None),
        "skin tone": (skin_tone_word(truth.ita), words.skin_tone),
        "hair": (truth.hair, words.hair),
    }
    return pairs | {name: (name in truth.artifacts, name in words.artifacts) for name in ARTIFACTS}


def draw_sheet(manifest: Path, no_mask: bool) -> Image.Image:
    """24 images with the caption of each below it, and where its mask came from."""
    frame = read_manifest(manifest).set_index("id")
    images, masks = (resolve(manifest, frame[name]) for name in ("image", "mask"))
    files = dict(zip(frame.index, zip(images, masks, frame["label"], strict=True), strict=True))
    tiles = []
    for name in drawn(list(files), SHEET_IMAGES):
        image_file, mask_file, label = files[name]
        image = read_image(image_file)
        mask = read_mask(mask_file, image.shape[:2]) if mask_file and not no_mask else None
        measured = measure(image, mask, label or None)
        text = f"{name} (mask {measured.mask_source}): {write_sentence(measured.attributes)}"
        shown = Image.fromarray(image).resize((SHEET_SIDE, SHEET_SIDE))
        tiles.append(Tile(np.asarray(shown), tuple(textwrap.wrap(text, SHEET_LETTERS))))
    return Image.fromarray(contact_sheet(tiles, SHEET_COLUMNS))


if __name__ == "__main__":
    main()
