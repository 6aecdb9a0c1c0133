"""Do class words steer the tiny backbone, before any fine-tuning?

    python -m benchmarks.tiny_backbone --work results/tiny-backbone [--per-class 40]

Trains the classifier of the workflow on phantoms, samples every class from captions of phantoms,
and prints how often the classifier sees the class that was asked for, beside its recall on real
(held-out) phantoms and on those phantoms after one trip through the autoencoder.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality import recognised
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.data.images import read_image
from didgen.data.manifest import read_manifest, resolve, write_manifest
from didgen.runtime.files import write_png
from didgen.runtime.outputs import output_folder
from didgen.stages import augment, caption, images
from didgen.stages import data as data_stage

BATCH = 32


def prepare_run(work: Path, phantoms: int, backbone: str) -> None:
    """Phantoms, their captions, and the backbone with the tokens `<lesion>` and `<skin>`."""
    data = work / "data"
    if not (data / "config.json").exists():
        data_stage.run(data_stage.Config(phantoms=phantoms, out=data))
    splits = {split: data / f"{split}.csv" for split in ("train", "val", "test")}
    if not (work / "caption/captions.csv").exists():
        caption.run(caption.Config(**splits, backbone=backbone, out=work / "caption"))
    handle = Backbone.load(backbone)
    add_placeholder_tokens(handle.tokenizer, handle.text_encoder)
    with output_folder(work / "finetune", "tiny_backbone") as folder:
        handle.save(folder)


def sample_classes(
    work: Path, per_class: int, steps: int, guidance_scale: float, seed: int
) -> None:
    """`per_class` images of each class from captions of test phantoms, as an augmented set."""
    images.run(
        images.Config(
            train=work / "data/test.csv",
            captions=work / "caption/captions.csv",
            model=work / "finetune",
            out=work / "images",
            per_class=per_class,
            steps=steps,
            guidance_scale=guidance_scale,
            scheduler="dpm++",
            batch_size=16,
            seed=seed,
        )
    )
    augment.run(augment.Config(images=(work / "images",), out=work / "augment"))


def reconstruct(work: Path) -> None:
    """The test phantoms after encoding and decoding, as a manifest of their own."""
    backbone = Backbone.load(work / "finetune")
    frame = read_manifest(work / "data/test.csv")
    pixels = np.stack(
        [read_image(path) for path in resolve(work / "data/test.csv", frame["image"])]
    )
    for start in range(0, len(frame), BATCH):
        part = torch.from_numpy(pixels[start : start + BATCH]).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            decoded = backbone.decode(backbone.encode(part / 127.5 - 1))
        decoded = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        for name, image in zip(frame["image"].iloc[start : start + BATCH], decoded, strict=True):
            write_png(work / "reconstructed" / name, image)
    write_manifest(frame.assign(mask=""), work / "reconstructed/test.csv")


def main() -> None:
    """Print recall by class and its mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--phantoms", type=int, default=1120)
    parser.add_argument("--per-class", type=int, default=40)
    parser.add_argument("--sampling-steps", type=int, default=20)
    parser.add_argument("--guidance-scale", type=float, default=3.5)
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples")
    parser.add_argument("--steps", type=int, default=300, help="steps of the classifier")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_run(given.work, given.phantoms, given.backbone)
    sampling = (given.per_class, given.sampling_steps, given.guidance_scale, given.seed)
    sample_classes(given.work, *sampling)
    reconstruct(given.work)
    table = recognised(
        given.work, given.steps, {"reconstructed": given.work / "reconstructed/test.csv"}
    )
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
