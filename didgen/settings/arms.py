"""Arms: what a network is trained on, under a budget of steps that all of them share.

`original`, the controls that make more of the same real images or use those that lack a label too,
and one arm for each synthetic set, named after it. `duplicates` and the synthetic arms take a
ratio: `synthetic-0.5x` adds half as many images as there are real ones. `synthetic_only` has no
real ones. Of the standard library alone: the rules read arms too, also where pydantic is not
installed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "original",
    "classic",
    "duplicates",
    "oversampled",
    "weighted",
    "pseudo",
    "synthetic",
    "synthetic_only",
]
Task = Literal["classification", "segmentation"]
# Those of real images alone, by name. `pseudo` labels what each task of the run lacks, the names
# after it what one task lacks, since a source may have no such images for the other.
REAL_ONLY: dict[str, Kind] = {
    "original": "original",
    "classic": "classic",
    "oversampled": "oversampled",
    "weighted": "weighted",
    "pseudo": "pseudo",
    "pseudo_labels": "pseudo",
    "pseudo_masks": "pseudo",
}
# Masks have no class to balance.
ONE_TASK: dict[str, Task] = {
    "oversampled": "classification",
    "weighted": "classification",
    "pseudo_labels": "classification",
    "pseudo_masks": "segmentation",
}
# Of the run's own set without the real images: shown beside the others, compared with none.
SYNTHETIC_ONLY: Kind = "synthetic_only"
DEFAULT_ARMS = ("original", "classic", "duplicates", "oversampled", "weighted", "synthetic")
_PATTERN = re.compile(r"(?P<set>[a-z][a-z0-9_]*)(?:-(?P<ratio>\d+(?:\.\d+)?)x)?")


class ArmError(ValueError):
    """An arm that cannot be trained; the message says why and what to do."""


@dataclass(frozen=True)
class Arm:
    """A parsed name. `kind` is `synthetic` for every synthetic set that is added to real images.

    `set_name`: the synthetic set that the network learns from.
    """

    name: str
    kind: Kind
    set_name: str | None = None
    ratio: float | None = None

    @property
    def needs_synthetic(self) -> bool:
        """Whether a synthetic set must be there, if only to count its images."""
        return self.kind == "duplicates" or self.set_name is not None


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
    if ratio is not None and (first in (*REAL_ONLY, SYNTHETIC_ONLY) or float(ratio) == 0):
        raise ArmError(
            f"found arm {name!r}, expected a ratio above 0, of `duplicates` or of a synthetic set"
        )
    scale = None if ratio is None else float(ratio)
    if first in REAL_ONLY:
        return Arm(name, REAL_ONLY[first])
    if first == SYNTHETIC_ONLY:
        return Arm(name, SYNTHETIC_ONLY, "synthetic")
    if first == "duplicates":
        return Arm(name, "duplicates", None, scale)
    return Arm(name, "synthetic", first, scale)


def check_task(name: str, task: Task) -> str:
    """The name. Raises: `ArmError` as `parse_arm`, or where the arm is for the other task alone."""
    only = ONE_TASK.get(parse_arm(name).name, task)
    if only != task:
        raise ArmError(f"found arm {name!r}, which is for {only} alone, expected one for {task}")
    return name


def with_methods(arms: Sequence[str], methods: Iterable[str]) -> list[str]:
    """The arms, and one for each method that none of them names."""
    named = {parse_arm(arm).set_name for arm in arms}
    return [*arms, *(name for name in methods if name not in named)]


def of_task(
    arms: Sequence[str], task: Task, sets: Mapping[str, Sequence[Task]] | None = None
) -> list[str]:
    """The arms that a task has: some are for one alone, and a set may serve one task.

    `sets`: the tasks of each synthetic set that lacks labels or masks.
    """
    parsed = {name: parse_arm(name) for name in arms}
    return [
        name
        for name, arm in parsed.items()
        if ONE_TASK.get(name, task) == task
        and task in (sets or {}).get(arm.set_name or "", (task,))
    ]


def check_control(control: str, treatment: str, tasks: Sequence[Task]) -> None:
    """Raises: ValueError unless the control fits the treatment: no synthetic images, for every
    task, and of copies as many as the treatment has images."""
    own = parse_arm(control)
    if own.set_name is not None:
        raise ValueError(
            f"verdict.control: found {control!r}, expected an arm without synthetic images"
        )
    if own.kind == "duplicates" and own.ratio != parse_arm(treatment).ratio:
        ending = treatment.partition("-")[1:]
        raise ValueError(
            f"verdict.control: found {control!r} for the treatment {treatment!r}, expected as many "
            f"copies as synthetic images: {'duplicates' + ''.join(ending)}"
        )
    only = ONE_TASK.get(control)
    if only is not None and set(tasks) != {only}:
        raise ValueError(
            f"verdict.control: found {control!r}, which is for {only} alone, expected one for "
            "every task. Choose another control or one task in data.tasks"
        )
