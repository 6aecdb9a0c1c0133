"""Arms: what a network is trained on, under a budget of steps that all of them share.

`original`, the controls that make more of the same real images, and one arm for each synthetic
set, named after it. `duplicates` and the synthetic arms take a ratio: `synthetic-0.5x` adds half as
many images as there are real ones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Kind = Literal["original", "classic", "duplicates", "oversampled", "weighted", "synthetic"]
Task = Literal["classification", "segmentation"]
REAL_ONLY: tuple[Kind, ...] = ("original", "classic", "oversampled", "weighted")
# Masks have no class to balance.
CLASSIFICATION_ONLY: tuple[Kind, ...] = ("oversampled", "weighted")
DEFAULT_ARMS = ("original", "classic", "duplicates", "oversampled", "weighted", "synthetic")
_PATTERN = re.compile(r"(?P<set>[a-z][a-z0-9_]*)(?:-(?P<ratio>\d+(?:\.\d+)?)x)?")
# Which images are drawn is the same for every seed, so that arms differ in nothing else.
_DRAW = 20_250


class ArmError(ValueError):
    """An arm that cannot be trained; the message says why and what to do."""


@dataclass(frozen=True)
class Arm:
    """A parsed name. `kind` is `synthetic` for every synthetic set, whose name is `set_name`."""

    name: str
    kind: Kind
    set_name: str | None = None
    ratio: float | None = None

    @property
    def needs_synthetic(self) -> bool:
        """Whether a synthetic set must be there, if only to count its images."""
        return self.kind not in REAL_ONLY


def parse_arm(name: str) -> Arm:
    """The arm of a name such as `original`, `duplicates`, `synthetic` or `synthetic-0.5x`.

    Raises: `ArmError` for another pattern, a ratio of 0 or one where there is nothing to scale.
    """
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise ArmError(
            f"found arm {name!r}, expected lower-case letters, digits and _, and for a ratio an "
            "ending such as -0.5x"
        )
    first, ratio = match["set"], match["ratio"]
    if ratio is not None and (first in REAL_ONLY or float(ratio) == 0):
        raise ArmError(
            f"found arm {name!r}, expected a ratio above 0, of `duplicates` or of a synthetic set"
        )
    scale = None if ratio is None else float(ratio)
    if first in REAL_ONLY:
        return Arm(name, first)
    if first == "duplicates":
        return Arm(name, "duplicates", None, scale)
    return Arm(name, "synthetic", first, scale)


def of_task(
    arms: Sequence[str], task: Task, sets: Mapping[str, Sequence[Task]] | None = None
) -> list[str]:
    """The arms that a task has: masks know no classes to balance, and a set may serve one task.

    `sets`: the tasks of each synthetic set that lacks labels or masks.
    """
    kinds = CLASSIFICATION_ONLY if task == "segmentation" else ()
    found = {name: parse_arm(name) for name in arms}
    return [
        name
        for name, arm in found.items()
        if arm.kind not in kinds and task in (sets or {}).get(arm.set_name, (task,))
    ]


def compose(
    arm: Arm, real: "pd.DataFrame", synthetic: "pd.DataFrame | None", by_class: bool
) -> "pd.DataFrame":
    """What the arm adds to the real images: rows of `synthetic` or of `real`, maybe none.

    A ratio counts real images. Smaller ratios are parts of larger ones and keep the shares of the
    classes. Duplicates follow the synthetic set in number and, `by_class`, in every class.
    Raises: `ArmError` where a set is missing or too small, or a class has no real image to repeat.
    """
    if not arm.needs_synthetic:
        return real.iloc[:0]
    if synthetic is None:
        raise ArmError(
            f"found arm {arm.name!r} without synthetic images, expected --synthetic metadata.csv"
            + (", whose number the duplicates match" if arm.kind == "duplicates" else "")
        )
    wanted = len(synthetic) if arm.ratio is None else round(arm.ratio * len(real))
    if arm.kind == "duplicates":
        return _duplicates(real, _shares(synthetic, wanted, by_class), by_class)
    if wanted > len(synthetic):
        raise ArmError(
            f"arm {arm.name!r}: found {len(synthetic)} synthetic images for {len(real)} real ones, "
            f"expected at least {wanted}; make more or take a ratio of at most "
            f"{len(synthetic) / len(real):.2f}x"
        )
    return proportionate(synthetic, wanted, by_class)


def proportionate(frame: "pd.DataFrame", wanted: int, by_class: bool) -> "pd.DataFrame":
    """`wanted` rows, drawn; `by_class` with the shares of the classes kept. Larger draws hold the
    smaller ones."""
    return frame.iloc[_nested(frame, by_class)[:wanted]]


def _nested(frame: "pd.DataFrame", by_class: bool) -> "np.ndarray":
    """An order of the rows whose every beginning has the classes in nearly the same shares."""
    import numpy as np

    rng = np.random.default_rng(_DRAW)
    order = rng.permutation(len(frame))
    labels = frame["label"].to_numpy()[order] if by_class else np.zeros(len(frame))
    place = np.empty(len(frame))
    for label in np.unique(labels):
        own = labels == label
        place[own] = (np.arange(own.sum()) + 0.5) / own.sum()
    return order[np.argsort(place, kind="stable")]


def _shares(synthetic: "pd.DataFrame", wanted: int, by_class: bool) -> dict[str, int]:
    """How many images of each class a set of `wanted` has ("" for all where there is none)."""
    if not by_class:
        return {"": wanted}
    counts = synthetic["label"].value_counts().sort_index()
    exact = counts * (wanted / len(synthetic))
    shares = exact.astype(int)
    # Largest remainders, so that the sum is what was wanted.
    for label in (exact - shares).sort_values(ascending=False).index[: wanted - shares.sum()]:
        shares[label] += 1
    return shares.to_dict()


def _duplicates(real: "pd.DataFrame", shares: dict[str, int], by_class: bool) -> "pd.DataFrame":
    """Real rows, repeated: each of a class as often as any other of it, give or take one."""
    import numpy as np

    rng = np.random.default_rng(_DRAW)
    rows = []
    for label, count in shares.items():
        own = np.flatnonzero(real["label"] == label) if by_class else np.arange(len(real))
        if count and not len(own):
            raise ArmError(
                f"duplicates: the synthetic set has {count} images of {label}, of which there is "
                "no real training image to repeat; remove that class from the set"
            )
        while count > 0:
            rows.append(rng.permutation(own)[:count])
            count -= len(own)
    return real.iloc[np.concatenate(rows) if rows else []]
