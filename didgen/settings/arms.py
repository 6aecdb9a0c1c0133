"""Arms: what a network is trained on, under a budget of steps that all of them share.

`original`, the controls that make more of the same real images, and one arm for each synthetic
set, named after it. `duplicates` and the synthetic arms take a ratio: `synthetic-0.5x` adds half as
many images as there are real ones. Of the standard library alone: the rules read arms too, also
where pydantic is not installed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["original", "classic", "duplicates", "oversampled", "weighted", "synthetic"]
Task = Literal["classification", "segmentation"]
REAL_ONLY: tuple[Kind, ...] = ("original", "classic", "oversampled", "weighted")
# Masks have no class to balance.
CLASSIFICATION_ONLY: tuple[Kind, ...] = ("oversampled", "weighted")
DEFAULT_ARMS = ("original", "classic", "duplicates", "oversampled", "weighted", "synthetic")
_PATTERN = re.compile(r"(?P<set>[a-z][a-z0-9_]*)(?:-(?P<ratio>\d+(?:\.\d+)?)x)?")


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


def with_methods(arms: Sequence[str], methods: Iterable[str]) -> list[str]:
    """The arms, and one for each method that none of them names."""
    named = {parse_arm(arm).set_name for arm in arms}
    return [*arms, *(name for name in methods if name not in named)]


def of_task(
    arms: Sequence[str], task: Task, sets: Mapping[str, Sequence[Task]] | None = None
) -> list[str]:
    """The arms that a task has: masks know no classes to balance, and a set may serve one task.

    `sets`: the tasks of each synthetic set that lacks labels or masks.
    """
    kinds = CLASSIFICATION_ONLY if task == "segmentation" else ()
    parsed = {name: parse_arm(name) for name in arms}
    return [
        name
        for name, arm in parsed.items()
        if arm.kind not in kinds and task in (sets or {}).get(arm.set_name or "", (task,))
    ]


def check_control(control: str, treatment: str, tasks: Sequence[Task]) -> None:
    """Raises: ValueError unless the control fits the treatment: no synthetic images, for every
    task, and of copies as many as the treatment has images."""
    own = parse_arm(control)
    if own.kind == "synthetic":
        raise ValueError(
            f"verdict.control: found {control!r}, expected an arm without synthetic images"
        )
    if own.kind == "duplicates" and own.ratio != parse_arm(treatment).ratio:
        ending = treatment.partition("-")[1:]
        raise ValueError(
            f"verdict.control: found {control!r} for the treatment {treatment!r}, expected as many "
            f"copies as synthetic images: {'duplicates' + ''.join(ending)}"
        )
    if own.kind in CLASSIFICATION_ONLY and "segmentation" in tasks:
        raise ValueError(
            f"verdict.control: found {control!r}, which balances classes; masks have none. "
            "Choose another control or one task in data.tasks"
        )
