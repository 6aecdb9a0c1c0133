"""Synthesize lesion-mask pairs: layout guidance (Eq. 5, 6), then annotation (Eq. 7)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from didgen.settings.base import Section
from didgen.stages.prepare import Code

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from didgen.methods.protocol import Request

LOGGER = logging.getLogger(__name__)


# What the method itself is told.
OPTIONS = (
    "steps", "guidance_scale", "scheduler", "precision", "retries",
    "eta", "guided_fraction", "schedule", "reading", "cross_normalization", "self_normalization",
    "cross_weight", "self_weight", "guide_every", "guide_layers", "reuse_prediction",
    "tau", "last_steps", "upsampling", "closing_fraction", "fill_holes", "max_hole",
    "keep_largest", "min_piece",
)  # fmt: skip


class Settings(Section):
    """How many pairs, and how they are guided and annotated."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
    count: int = Field(100, ge=1, description="pairs to make; the paper: 2500")
    conditions: Literal["training", "augmented", "sampled"] = Field(
        "training",
        description="layouts to follow: `training`: masks of training images; `augmented`: these "
        "turned, mirrored, scaled, shifted and bent; `sampled`: new shapes between two of them, "
        "from a shape model. For the latter two, captions say the new size, place and shape",
    )
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
    cross_normalization: Literal["mean", "sum"] = Field(
        "mean", description="the sum over a map's pixels in L_CA: `sum` as Eq. 3 is printed"
    )
    cross_weight: float = Field(1.0, ge=0, description="factor of L_CA; 0 leaves it out")
    self_weight: float = Field(1.0, ge=0, description="factor of L_SA; 0 leaves it out")
    schedule: Literal["constant", "sqrt-linear"] = Field(
        "constant", description="eta over the steps: as printed, or falling as released"
    )
    guide_every: int = Field(
        2, ge=1, description="guide each n-th step of the guided range; the paper: 1"
    )
    guide_layers: Literal["all", "to-coarse", "down"] = Field(
        "all",
        description="attention layers that guidance reads: all, those up to the coarsest of the "
        "way up, or those of the way down alone; fewer are cheaper",
    )
    reuse_prediction: bool = Field(
        True,
        description="take the guided pass's output for the step's conditional prediction; the "
        "paper: false",
    )
    retries: int = Field(
        2, ge=0, description="times an image that diverges is sampled again, with another seed"
    )
    tau: int = Field(4, ge=0, description="power of the self-attention map in Eq. 7; paper: 4")
    last_steps: int = Field(
        1, ge=1, description="last sampling steps whose maps are averaged in Eq. 7; the paper: 1"
    )
    upsampling: Literal["bicubic", "guided-filter"] = Field(
        "bicubic",
        description="from the 32x32 map of Eq. 7 to the image: smooth, or with the image's edges",
    )
    closing_fraction: float = Field(
        1 / 64, ge=0, le=1, description="radius of the mask's closing, share of the image's side"
    )
    fill_holes: bool = Field(True, description="fill the holes of a mask")
    max_hole: float = Field(
        1.0, ge=0, le=1, description="only holes up to this share of the image are filled"
    )
    keep_largest: bool = Field(True, description="keep the largest piece of a mask alone")
    min_piece: float = Field(
        0.0, ge=0, le=1, description="drop pieces smaller than this share of the image"
    )
    batch_size: int = Field(
        8,
        ge=1,
        description="images sampled together; another number may change an image's last bits",
    )
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
    workers: int = Field(
        1, ge=1, le=1024, description="on a processor: most processes to sample in, one core each"
    )
    memory_mb: int | None = Field(
        None, ge=1, description="memory that they may take together; null: what is free"
    )


def run(config: Config) -> None:
    """Write images, annotated masks, condition masks, `metadata.csv` and `config.json`.

    Raises: `ValueError` when no training image has a mask or the backbone is unusable.
    """
    from didgen.stages.synthetic_set import synthesize_to_folder

    options = {name: getattr(config, name) for name in OPTIONS}
    synthesize_to_folder(PairRequests(config), config, options)


class PairRequests(Sequence["Request"]):
    """All pairs' requests, whatever the shard: condition mask, caption, seed and parents of each.

    Each is made when it is asked for, so that a shard neither draws nor holds the others' masks.
    Raises: `ValueError` as `run`.
    """

    def __init__(self, config: Config) -> None:
        from didgen.backbone.loading import load_tokenizer

        self._config = config
        self._tokenizer = load_tokenizer(config.backbone)
        self._train = _masked(config)
        self._conditions = _Conditions(config, self._train)

    def __len__(self) -> int:
        return self._config.count

    def __getitem__(self, number: int) -> "Request":
        import numpy as np

        from didgen.captions.prompts import build_prompt
        from didgen.methods.protocol import Request, derive_seed

        if not 0 <= number < len(self):
            raise IndexError(number)
        train, seed = self._train, self._config.seed
        turn, place = divmod(number, len(train))
        row = int(np.random.default_rng([seed, turn]).permutation(len(train))[place])
        name = f"PAIR_{number:05d}"
        mask, caption, parents = self._conditions.make(row, name)
        return Request(
            id=name,
            label=train["label"].iloc[row],
            caption=caption,
            prompt=build_prompt(caption, self._tokenizer),
            seed=derive_seed(seed, name),
            mask=mask,
            parent_ids=tuple(train["id"].iloc[index] for index in parents),
        )


def _masked(config: Config) -> "pd.DataFrame":
    """The training images whose masks can condition: a known diagnosis, lesion and skin."""
    from didgen.data.images import read_mask
    from didgen.data.manifest import read_manifest, resolve

    train = read_manifest(config.train)
    train = train[train["mask"] != ""]
    if config.classes is not None:
        known = train["label"].isin([*config.classes, ""])
        LOGGER.info("%d masks left out: their diagnosis was not trained on", int((~known).sum()))
        train = train[known]
    train = train.assign(mask=resolve(config.train, train["mask"]))
    full = [bool(read_mask(path).all()) for path in train["mask"]]
    if any(full):
        LOGGER.warning("%d masks left out: they cover their whole image", sum(full))
        train = train[[not each for each in full]]
    if train.empty:
        raise ValueError(
            f"{config.train}: no training image has a mask, so no layout can condition a pair; "
            "add masks: they are also what the segmenters are judged on"
        )
    return train


class _Conditions:
    """A pair's condition mask, its caption, and the rows of the training images it is made from."""

    def __init__(self, config: Config, train: "pd.DataFrame") -> None:
        from didgen.data.images import read_mask
        from didgen.methods.shapes import fit_shapes
        from didgen.stages.caption import read_captions

        self.config = config
        self.paths = train["mask"].tolist()
        self.ids = train["id"].tolist()
        self.captions = read_captions(config.captions, self.ids)
        self.model, self.attributes = None, {}
        if config.conditions != "training":
            self.attributes = _attribute_rows(config.captions)
        if config.conditions == "sampled":
            self.model = fit_shapes(map(read_mask, self.paths))

    def make(self, row: int, name: str) -> "tuple[np.ndarray, str, tuple[int, ...]]":
        """The condition of the pair `name` from the training mask `row`.

        What is drawn depends on the pair's name and the seed alone, not on shard or order.
        """
        import numpy as np

        from didgen.data.images import read_mask
        from didgen.methods.conditions import sample_mask, warp_mask
        from didgen.methods.protocol import derive_seed

        mask, caption = read_mask(self.paths[row]), self.captions[self.ids[row]]
        if self.config.conditions == "training":
            return mask, caption, (row,)
        rng = np.random.default_rng(derive_seed(self.config.seed, "condition", name))
        if self.model is None:
            made, parents = warp_mask(mask, rng), (row,)
        else:
            other = int(rng.integers(len(self.paths)))
            made = sample_mask(self.model, mask, read_mask(self.paths[other]), rng)
            parents = (row,) if other == row else (row, other)
        return made, self._caption(row, made), parents

    def _caption(self, row: int, mask: "np.ndarray") -> str:
        """The sentence of the first training image, its size, place and shape those of the mask."""
        from didgen.captions.layout import attributes_of, with_layout
        from didgen.captions.sentence import write_sentence

        attributes = attributes_of(self.attributes[self.ids[row]])
        return write_sentence(with_layout(attributes, mask))


def _attribute_rows(path: Path) -> dict[str, dict[str, str]]:
    import pandas as pd

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {row["id"]: row for row in table.to_dict("records")}
