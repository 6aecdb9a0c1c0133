"""Synthesize lesion-mask pairs with any method that makes them."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from didgen.captions.attributes import Attributes
from didgen.captions.outline import with_layout
from didgen.captions.sentence import write_sentence
from didgen.data.classes import diagnosis_caption
from didgen.data.images import read_mask
from didgen.data.manifest import read_manifest, resolve
from didgen.methods.conditions import sample_mask, warp_mask
from didgen.methods.protocol import Request, derive_seed
from didgen.methods.shapes import fit_shapes
from didgen.runtime.files import read_csv
from didgen.runtime.outputs import check_output, paths_read
from didgen.settings.methods import METHODS
from didgen.settings.pairs import AnyConfig, RivalConfig
from didgen.stages.caption import read_caption_rows
from didgen.stages.failures import all_failed
from didgen.stages.synthetic_set import synthesize_to_folder

LOGGER = logging.getLogger(__name__)


def run(config: AnyConfig) -> None:
    """Write images, annotated masks, condition masks, `metadata.csv` and `config.json`.

    Raises: `ValueError` when no training image has a mask or the backbone is unusable.
    """
    check_output(config.out, "pairs", paths_read(config))
    requests: Sequence[Request]
    if isinstance(config, RivalConfig) and config.conditions == "generated":
        requests = RepeatedRequests(config)
    else:
        requests = PairRequests(config)
    synthesize_to_folder("pairs", requests, config)


class RepeatedRequests(Sequence[Request]):
    """The requests of pairs that were made already: their diagnosis, caption, parents and seed, and
    the mask that they came out with for a layout.

    Each is made when it is asked for, so that no shard holds all masks.
    Raises: `ValueError` when there are no such pairs.
    """

    def __init__(self, config: RivalConfig) -> None:
        tables = [folder / "metadata.csv" for folder in config.generated]
        parts = [
            read_manifest(table).assign(table=table)
            for table in tables
            if len(read_csv(table, "pairs"))
        ]
        if not parts:
            raise ValueError(all_failed("pairs", config.generated))
        frame = pd.concat(parts, ignore_index=True).sort_values("id", ignore_index=True)
        if len(frame) < config.count:
            LOGGER.warning("%d pairs in place of %d: so many masks there are to follow",
                           len(frame), config.count)  # fmt: skip
        self._rows = frame.head(config.count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Request:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        row = self._rows.iloc[number]
        return Request(
            id=row["id"],
            label=row["label"],
            caption=row["caption"],
            seed=int(row["seed"]),
            mask=read_mask(row["table"].parent / row["mask"]),
            parent_ids=tuple(filter(None, row["parent_ids"].split(";"))),
        )


class PairRequests(Sequence[Request]):
    """All pairs' requests, whatever the shard: caption, seed and parents of each, and for methods
    that follow a layout its condition mask.

    Each is made when it is asked for, so that a shard neither draws nor holds the others' masks.
    Raises: `ValueError` as `run`.
    """

    def __init__(self, config: AnyConfig) -> None:
        self._config = config
        self._train = _masked(config)
        self._conditions = None
        if "mask" in METHODS[config.method].reads:
            self._conditions = _Conditions(config, self._train)

    def __len__(self) -> int:
        return self._config.count

    # No slices: what makes a set asks for each by its number.
    def __getitem__(self, number: int) -> Request:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        train, seed = self._train, self._config.seed
        turn, place = divmod(number, len(train))
        row = int(np.random.default_rng([seed, turn]).permutation(len(train))[place])
        name = f"PAIR_{number:05d}"
        label = train["label"].iloc[row]
        mask: np.ndarray | None = None
        parents: tuple[int, ...] = (row,)
        if self._conditions is None:
            # Size and place will be others than those that the parent's caption says.
            caption = diagnosis_caption(label)
        else:
            mask, caption, parents = self._conditions.make(row, name)
        return Request(
            id=name,
            label=label,
            caption=caption,
            seed=derive_seed(seed, name),
            mask=mask,
            parent_ids=tuple(train["id"].iloc[index] for index in parents),
        )


def _masked(config: AnyConfig) -> pd.DataFrame:
    """The training images whose masks can condition: a known diagnosis, lesion and skin."""
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

    def __init__(self, config: AnyConfig, train: pd.DataFrame) -> None:
        self.config = config
        self.paths = train["mask"].tolist()
        self.ids = train["id"].tolist()
        self.captions = read_caption_rows(config.captions, self.ids)
        self.model = None
        if config.conditions == "sampled":
            self.model = fit_shapes(map(read_mask, self.paths))

    def make(self, row: int, name: str) -> tuple[np.ndarray, str, tuple[int, ...]]:
        """The condition of the pair `name` from the training mask `row`.

        What is drawn depends on the pair's name and the seed alone, not on shard or order.
        """
        mask, caption = read_mask(self.paths[row]), self.captions["caption"][self.ids[row]]
        if self.config.conditions == "training":
            return mask, caption, (row,)
        rng = np.random.default_rng(derive_seed(self.config.seed, "condition", name))
        parents: tuple[int, ...] = (row,)
        if self.model is None:
            made = warp_mask(mask, rng)
        else:
            other = int(rng.integers(len(self.paths)))
            made = sample_mask(self.model, mask, read_mask(self.paths[other]), rng)
            if other != row:
                parents = (row, other)
        return made, self._caption(row, made), parents

    def _caption(self, row: int, mask: np.ndarray) -> str:
        """The sentence of the first training image, its size, place and shape those of the mask."""
        attributes = Attributes.from_row(self.captions.loc[self.ids[row]])
        return write_sentence(with_layout(attributes, mask))
