"""Do words steer? Matched samples whose prompts differ in one attribute, measured in the images.

    python -m benchmarks.conditioning results/demo [--pairs 24] [--without FOLDER] [--out DIR]

For each contrast, say "large" against "small", every pair takes the attributes of one training
image (of a class that knows both, where there is one), sets the contrasted attribute to either
word, and samples both prompts from the same noise. The images are segmented and measured as
captions are, without knowledge of the prompts. Printed: means, Cohen's d and p of a paired Wilcoxon
test (one-sided, in the direction that the words say).
`--without`: a control, such as a tiny backbone that learned shuffled captions, gets the same
prompts and seeds; printed too: the mean differences of both, and p of a Mann-Whitney test
(one-sided) that the words move more in the first. Samples of a pair share all but those words, so
that Wilcoxon's p alone may be small where next to nothing moves.
`--unlabelled`: the prompts speak of a "spot", so that the diagnosis cannot decide what is seen.
"""

import argparse
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.captions.attributes import Attributes
from didgen.captions.condense import condense
from didgen.captions.measure import Measurement, measure
from didgen.data.manifest import read_manifest
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request, derive_seed
from didgen.runtime.precision import default_device
from didgen.settings.sampling import Sampling

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Contrast:
    """Two values of an attribute, and a quantity that the first should make larger.

    `read` takes the measured numbers. `needs_region`: whether a region must have been found; an
    image without one counts as `without_region`, or its pair is left out where that is None.
    """

    name: str
    attribute: str
    first: object
    second: object
    quantity: str
    read: Callable[[Numbers], float]
    needs_region: bool = True
    without_region: float | None = None


# A region too small or faint to be found has an area of 0; so would one that fills the image, which
# speaks against "large".
CONTRASTS = (
    Contrast(
        "large / small", "size", "large", "small", "area share", lambda n: n["area_share"],
        without_region=0.0,
    ),
    Contrast(
        "pink / dark brown", "colors", ("pink",), ("dark brown",), "lightness of the region",
        lambda n: n["region_lightness"],
    ),
    Contrast(
        "light brown / dark brown", "colors", ("light brown",), ("dark brown",),
        "lightness of the region", lambda n: n["region_lightness"],
    ),
    Contrast(
        "tan / black", "colors", ("tan",), ("black",), "lightness of the region",
        lambda n: n["region_lightness"],
    ),
    Contrast(
        "lower right / upper left", "position", "lower right", "upper left", "row + column",
        lambda n: n["row"] + n["column"],
    ),
    Contrast(
        "right / left", "position", "right", "left", "column of the centroid",
        lambda n: n["column"],
    ),
    Contrast(
        "very light / dark tone", "skin_tone", "very light", "dark", "lightness around",
        lambda n: n["lightness"], needs_region=False,
    ),
    Contrast(
        "dense / no hair", "hair", "dense", "none", "share of hair", lambda n: n["hair_share"],
        needs_region=False,
    ),
)  # fmt: skip


def fitting(contrast: Contrast, parents: Mapping[str, Attributes]) -> dict[str, Attributes]:
    """The parents of classes that have images with either value, where there are such classes.

    Elsewhere the diagnosis alone may decide what is seen, and the word never had anything to say.
    """
    seen: dict[str | None, set[object]] = {}
    for one in parents.values():
        value = getattr(one, contrast.attribute)
        value = value[:1] if isinstance(value, tuple) else value
        seen.setdefault(one.diagnosis, set()).add(value)
    classes = {code for code, values in seen.items() if {contrast.first, contrast.second} <= values}
    kept = {name: one for name, one in parents.items() if one.diagnosis in classes}
    if not kept:
        logging.info("%s: no class has images of both; all classes are taken", contrast.name)
    return kept or dict(parents)


def paired_prompts(
    contrast: Contrast, parents: Mapping[str, Attributes], pairs: int, tokenizer: object, seed: int
) -> list[tuple[Request, Request]]:
    """Requests that differ in one attribute alone: same parent, same seed.

    Parents are taken evenly over the classes, in an order that the seed decides.
    """
    rng = np.random.default_rng([seed, *contrast.name.encode()])
    by_class: dict[str, list[str]] = {}
    for name in rng.permutation(sorted(parents)):
        by_class.setdefault(parents[name].diagnosis or "", []).append(str(name))
    columns = [by_class[code] for code in sorted(by_class)]
    ranked = [name for turn in itertools.zip_longest(*columns) for name in turn if name]
    prompts = []
    for number in range(pairs):
        parent = ranked[number % len(ranked)]
        shared = derive_seed(seed, contrast.name, number)
        both = []
        for value in (contrast.first, contrast.second):
            given = parents[parent].model_copy(update={contrast.attribute: value})
            caption = condense(given, tokenizer).caption
            label = given.diagnosis or ""
            both.append(Request(f"{number:03d}", label, caption, shared))
        prompts.append((both[0], both[1]))
    return prompts


def sample_pairs(
    synthesizer: DidgenSynthesizer, pairs: Sequence[tuple[Request, Request]], batch: int
) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """The two images of each pair, None for a sample that failed."""
    requests = [request for pair in pairs for request in pair]
    images: list[np.ndarray | None] = []
    for start in range(0, len(requests), batch):
        made = synthesizer.synthesize(requests[start : start + batch])
        images += [None if sample.failure else sample.image for sample in made]
    return list(zip(images[::2], images[1::2], strict=True))


def values_of(
    contrast: Contrast, images: Sequence[tuple[np.ndarray | None, np.ndarray | None]]
) -> tuple[np.ndarray, int]:
    """The quantity in both images of each pair, (N, 2), and the pairs left out.

    Left out: a sample failed, or no region was found in one of the images.
    """
    rows = [[None if one is None else _value(contrast, measure(one)) for one in p] for p in images]
    whole = [row for row in rows if None not in row]
    return np.array(whole, dtype=float).reshape(-1, 2), len(rows) - len(whole)


def _value(contrast: Contrast, measured: Measurement) -> float | None:
    if contrast.needs_region and measured.mask_source == "whole image":
        return contrast.without_region
    return contrast.read(measured.numbers)


def cohens_d(first: np.ndarray, second: np.ndarray) -> float:
    """Difference of the means over the pooled standard deviation; NaN where nothing varies."""
    pooled = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    return float((first.mean() - second.mean()) / pooled) if pooled > 0 else float("nan")


def paired_p(first: np.ndarray, second: np.ndarray) -> float:
    """One-sided p of Wilcoxon's signed-rank test that the first of a pair is larger."""
    differences = first - second
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, alternative="greater").pvalue)


def effect(contrast: Contrast, values: np.ndarray, left_out: int) -> dict[str, object]:
    """One row of the table. Shape: values (N, 2), N >= 3."""
    first, second = values[:, 0], values[:, 1]
    return {
        "words": contrast.name,
        "measured": contrast.quantity,
        "n": len(values),
        "left out": left_out,
        "first": first.mean(),
        "second": second.mean(),
        "d": cohens_d(first, second),
        "p": paired_p(first, second),
    }


def beyond(
    learned: Mapping[str, np.ndarray], control: Mapping[str, np.ndarray]
) -> list[dict[str, object]]:
    """Of each contrast in both: mean differences, and p that those of `learned` are larger.

    Values: the difference in each pair, first word's image minus second's, (N,).
    """
    return [
        {
            "words": name,
            "with": learned[name].mean(),
            "without": control[name].mean(),
            "p": float(
                stats.mannwhitneyu(learned[name], control[name], alternative="greater").pvalue
            ),
        }
        for name in learned
        if name in control
    ]


def load(folder: Path) -> Backbone:
    """A backbone; the placeholder tokens are added where it was never fine-tuned by DiDGen."""
    backbone = Backbone.load(folder, device=default_device())
    add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
    return backbone


def steer(
    backbone: Backbone, parents: Mapping[str, Attributes], given: argparse.Namespace, tag: str
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """All contrasts of one backbone: the table, and the differences of the pairs (N,) by contrast.

    With `--out` a sheet of each contrast is written too.
    """
    options = {"steps": given.steps, "guidance_scale": given.guidance_scale, "scheduler": "dpm++"}
    synthesizer = DidgenSynthesizer(backbone, Sampling(**options))
    rows, differences = [], {}
    chosen = [c for c in CONTRASTS if not given.words or c.name in given.words]
    for contrast in chosen:
        own = fitting(contrast, parents)
        if given.unlabelled:
            own = {name: one.model_copy(update={"diagnosis": None}) for name, one in own.items()}
        pairs = paired_prompts(contrast, own, given.pairs, backbone.tokenizer, given.seed)
        images = sample_pairs(synthesizer, pairs, given.batch)
        values, left_out = values_of(contrast, images)
        if len(values) < 3:
            logging.warning("%s: %d of %d pairs left out", contrast.name, left_out, given.pairs)
            continue
        rows.append(effect(contrast, values, left_out))
        differences[contrast.name] = values[:, 0] - values[:, 1]
        logging.info("%s: d %.2f, p %.2g", contrast.name, rows[-1]["d"], rows[-1]["p"])
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            name = f"{tag}-{contrast.name.replace(' / ', '-').replace(' ', '_')}.png"
            Image.fromarray(sheet(images[:12])).save(given.out / name)
    return pd.DataFrame(rows), differences


def sheet(images: Sequence[tuple[np.ndarray | None, np.ndarray | None]]) -> np.ndarray:
    """Pairs side by side: the first word's images above, the second's below."""
    whole = [pair for pair in images if pair[0] is not None and pair[1] is not None]
    return np.concatenate([np.concatenate(row, axis=1) for row in zip(*whole, strict=True)], axis=0)


def main() -> None:
    """Print the table of the run's backbone; with a control, its own and how both compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run: data, captions, backbone")
    parser.add_argument("--without", type=Path, help="control, say of shuffled captions")
    parser.add_argument("--pairs", type=int, default=24, help="pairs of samples a contrast")
    parser.add_argument("--words", nargs="+", choices=[c.name for c in CONTRASTS],
                        help="contrasts to sample; all by default")  # fmt: skip
    parser.add_argument("--unlabelled", action="store_true",
                        help='prompts of a "spot", not of the diagnosis')  # fmt: skip
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (DPM-Solver++)")
    parser.add_argument("--guidance-scale", type=float, default=3.5)
    parser.add_argument("--batch", type=int, default=16, help="images sampled together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for sheets of the samples")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train = read_manifest(given.run / "data/train.csv")
    table = pd.read_csv(given.run / "caption/captions.csv", dtype=str, keep_default_na=False)
    rows = table[table["id"].isin(train["id"]) & (table["diagnosis"] != "")]
    parents = {row["id"]: Attributes.from_row(row) for row in rows.to_dict("records")}
    folders = {"with": given.run / "finetune", "without": given.without}
    moved = []
    for tag, folder in folders.items():
        if folder is not None:
            print(f"\n{tag} what the captions say: {folder}")
            table, differences = steer(load(folder), parents, given, tag)
            print(table.to_string(index=False, float_format="{:.3g}".format))
            moved.append(differences)
    if len(moved) == 2:
        print("\nmean differences, with and without")
        print(pd.DataFrame(beyond(*moved)).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
