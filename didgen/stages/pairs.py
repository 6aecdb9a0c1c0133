"""Synthesize lesion-mask pairs: layout guidance (Eq. 5, 6), then annotation (Eq. 7)."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from didgen.data.settings import Section
from didgen.stages.prepare import Code

if TYPE_CHECKING:
    from didgen.synthesis.protocol import Request

LOGGER = logging.getLogger(__name__)


class Settings(Section):
    """How many pairs, and how they are guided and annotated."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
    count: int = Field(100, ge=1, description="pairs to make; the paper: 2500")
    steps: int = Field(50, ge=1, le=1000, description="sampling steps")
    guidance_scale: float = Field(7.5, ge=1, description="classifier-free guidance; 1: none")
    scheduler: Literal["ddim", "dpm++"] = Field("ddim", description="sampler")
    eta: float = Field(20.0, ge=0, description="step of Eq. 6; the paper: 20; 0: no guidance")
    guided_fraction: float = Field(
        0.5, ge=0, le=1, description="share of the steps, from the first, that are guided"
    )
    reading: Literal["minmax", "raw", "foreground-background"] = Field(
        "minmax",
        description="attention maps in L_CA: scaled to [0, 1], raw, or the released code's ratio",
    )
    self_normalization: Literal["mean", "sum"] = Field(
        "sum",
        description="the sum over the pixels of a region in L_SA (Eq. 5): `sum` as printed, `mean` "
        "as released, which all but switches the term off",
    )
    tau: int = Field(4, ge=0, description="power of the self-attention map in Eq. 7; paper: 4")
    batch_size: int = Field(8, ge=1, description="images sampled together; results do not change")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the UNet; auto: bfloat16 where it is built in"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the training images, whose masks condition")
    captions: Path = Field(description="captions.csv of the caption stage")
    backbone: Path = Field(description="fine-tuned diffusers folder")
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses that the backbone was trained on; null: all"
    )
    out: Path = Field(description="folder to write: images/, masks/, conditions/, metadata.csv")
    shard: str = Field("1/1", description="which of how many shards to make: k/n")
    seed: int = Field(0, ge=0, description="seed from which every pair's own seed is derived")


def run(config: Config) -> None:
    """Write images, annotated masks, condition masks, `metadata.csv` and `config.json`.

    Raises: `ValueError` when no training image has a mask or the backbone is unusable.
    """
    from didgen.stages.synthetic_set import synthesize_to_folder
    from didgen.synthesis.protocol import shard_of

    requests = _requests(config)
    chosen = shard_of(requests, config.shard)
    LOGGER.info("%d pairs, shard %s of %d", len(chosen), config.shard, len(requests))
    names = ("steps", "guidance_scale", "scheduler", "eta", "guided_fraction", "reading", "tau",
             "self_normalization",
             "precision")  # fmt: skip
    synthesize_to_folder(chosen, config, options={name: getattr(config, name) for name in names})


def _requests(config: Config) -> list["Request"]:
    import numpy as np

    from didgen.backbone.loading import load_tokenizer
    from didgen.captions.prompts import build_prompt
    from didgen.data.images import read_mask
    from didgen.data.manifest import read_manifest, resolve
    from didgen.stages.caption import read_captions
    from didgen.synthesis.protocol import Request, derive_seed

    tokenizer = load_tokenizer(config.backbone)
    train = read_manifest(config.train)
    train = train[train["mask"] != ""]
    if config.classes is not None:
        known = train["label"].isin([*config.classes, ""])
        LOGGER.info("%d masks left out: their diagnosis was not trained on", int((~known).sum()))
        train = train[known]
    if train.empty:
        raise ValueError(
            f"{config.train}: no training image has a mask, so no layout can condition a pair; "
            "add masks: they are also what the segmenters are judged on"
        )
    captions = read_captions(config.captions, train["id"])
    masks = resolve(config.train, train["mask"])
    requests = []
    for number in range(config.count):
        turn, place = divmod(number, len(train))
        row = int(np.random.default_rng([config.seed, turn]).permutation(len(train))[place])
        parent, label = train["id"].iloc[row], train["label"].iloc[row]
        name = f"PAIR_{number:05d}"
        requests.append(
            Request(
                id=name,
                label=label,
                caption=captions[parent],
                prompt=build_prompt(captions[parent], tokenizer),
                seed=derive_seed(config.seed, name),
                mask=read_mask(masks[row]),
                parent_ids=(parent,),
            )
        )
    return requests
