"""Further synthetic sets, such as another run's or a baseline's: each is an arm of its own name."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from didgen.settings.arms import SYNTHETIC_ONLY, ArmError, Task, of_task, parse_arm
from didgen.settings.base import Place, SettingsSection

OWN = "synthetic"


class SyntheticSet(SettingsSection):
    """Where a set lies and what it can teach."""

    metadata: Place = Field(
        description="metadata.csv of the set, with the columns that this run's augmented set has"
    )
    tasks: tuple[Task, ...] = Field(
        ("classification", "segmentation"),
        min_length=1,
        description="classification if its images have labels, segmentation if they have masks",
    )


def check_sets(
    arms: Sequence[str],
    sets: Mapping[str, Sequence[Task]],
    methods: Mapping[str, Sequence[Task]],
    treatment: str,
    tasks: Sequence[Task],
) -> None:
    """Check which arms there are. sets, methods: the tasks that each of them can teach.

    Raises: ValueError unless arms and sets name each other, all tasks have the treatment, and each
    method teaches one of the tasks.
    """
    if both := sorted(set(sets) & set(methods)):
        raise ValueError(f"sets: found {both}, the names of methods; choose other names")
    for name, taught in methods.items():
        if not set(taught) & set(tasks):
            raise ValueError(
                f"methods.{name}: its sets serve {' and '.join(taught)}, and data.tasks has only "
                f"{', '.join(tasks)}; leave the method out, or add the task"
            )
    for name in sets:
        if name == OWN or not _is_a_set(name):
            raise ValueError(
                f"sets: found the name {name!r}, expected lower-case letters, digits and _, not a "
                f"control's name and neither `{OWN}` nor `{SYNTHETIC_ONLY}`, which are arms of "
                "this run's own set"
            )
    named = {own for arm in arms if (own := parse_arm(arm).set_name)}
    every = {**sets, **methods}
    unknown, idle = sorted(named - set(every) - {OWN}), sorted(set(sets) - named)
    if unknown:
        raise ValueError(
            f"arms: found the synthetic sets {unknown}, which `sets` does not name, nor `methods`; "
            f"expected {sorted({OWN, *every})}; add them to `sets` with their metadata.csv"
        )
    if idle:
        raise ValueError(f"sets: found {idle}, which no arm names; add them to `arms`")
    if parse_arm(treatment).kind != "synthetic":
        raise ValueError(
            f"verdict.treatment: found {treatment!r}, expected an arm that adds synthetic images "
            "to the real ones"
        )
    for task in tasks:
        if treatment not in of_task(arms, task, every):
            raise ValueError(
                f"verdict.treatment: found {treatment!r}, whose set has nothing for {task}, "
                "expected an arm with something for every task; change it, `sets` or `data.tasks`"
            )


def _is_a_set(name: str) -> bool:
    try:
        return parse_arm(name).set_name == name
    except ArmError:
        return False
