"""What each method of synthesis can do and what it needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from didgen.settings.arms import Task

Kind = Literal["images", "pairs"]


@dataclass(frozen=True)
class Method:
    """A method as the workflow sees it.

    makes: which sets it can make; `images` of a class, `pairs` of an image and its mask.
    reads: what tells it what to show, beside the diagnosis: a caption (`text`), a layout (`mask`).
    mask: where a pair's mask comes from: `read` from the image that was made, `condition`: the
    layout that was asked for, or `exact`: it is known how the image was put together.
    trained: whether it has a training of its own, beside the fine-tuning that the run has anyway.
    backbone: the Stable Diffusion that it starts from: `original`, as `finetune.backbone` names it,
    or the run's `fine-tuned` one.
    models: how many are trained, `one` for all classes or one for `each class`.
    network: whether it computes with a network, on a GPU where there is one.
    real_pixels: whether its images hold parts of real photographs, whose licences then hold.
    """

    makes: frozenset[Kind]
    reads: frozenset[Literal["text", "mask"]]
    mask: Literal["read", "condition", "exact"] | None
    trained: bool
    backbone: Literal["original", "fine-tuned"] | None
    models: Literal["one", "each class"] | None
    network: bool
    real_pixels: bool = False

    @property
    def lacks(self) -> frozenset[str]:
        """Scores of pairs that mean nothing for this method."""
        return frozenset() if self.mask == "read" else frozenset({"layout_iou", "contrast"})


DIDGEN = "didgen"
# What a method's training took, in its folder.
BUDGET = "budget.json"
# Fine-tunes the run's original backbone on the same budget.
_FINE_TUNING = Method(
    makes=frozenset({"images"}),
    reads=frozenset({"text"}),
    mask=None,
    trained=True,
    backbone="original",
    models="one",
    network=True,
)
# Draws images of a diagnosis from noise alone.
_CLASS_GAN = Method(
    makes=frozenset({"images"}),
    reads=frozenset(),
    mask=None,
    trained=True,
    backbone=None,
    models="each class",
    network=True,
)
# Moves what the run's fine-tuned backbone samples into a mask.
_GUIDANCE = Method(
    makes=frozenset({"pairs"}),
    reads=frozenset({"text", "mask"}),
    mask="condition",
    trained=False,
    backbone="fine-tuned",
    models=None,
    network=True,
)
METHODS = {
    DIDGEN: replace(
        _FINE_TUNING,
        makes=frozenset({"images", "pairs"}),
        reads=frozenset({"text", "mask"}),
        mask="read",
    ),
    "prefix": replace(_FINE_TUNING, trained=False, backbone="fine-tuned", models=None),
    "plain": _FINE_TUNING,
    "dreambooth": _FINE_TUNING,
    "warp": Method(
        makes=frozenset({"pairs"}),
        reads=frozenset(),
        mask="exact",
        trained=True,
        backbone=None,
        models=None,
        network=False,
        real_pixels=True,
    ),
    "attention_refocusing": _GUIDANCE,
    "controlnet": replace(_GUIDANCE, trained=True, models="one"),
    "zestguide": _GUIDANCE,
    "sl_stylegan": _CLASS_GAN,
    "pgan": _CLASS_GAN,
    "pix2pixhd": Method(
        makes=frozenset({"pairs"}),
        reads=frozenset({"mask"}),
        mask="condition",
        trained=True,
        backbone=None,
        models="one",
        network=True,
    ),
}

# What each task is taught with.
TAUGHT_BY: dict[Task, Kind] = {"classification": "images", "segmentation": "pairs"}


def tasks_taught(method: str) -> tuple[Task, ...]:
    """The tasks that a method's sets can teach."""
    return tuple(task for task, kind in TAUGHT_BY.items() if kind in METHODS[method].makes)


def sets_made(
    arms: Iterable[str | None], treatment: str | None, rivals: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The methods that a run makes sets with, its own first if anything needs its sets.

    arms and treatment: the sets that the arms, and the one that the verdict is about, are named
    after. rivals: the other methods and their settings.
    """
    followed = any(
        "mask" in METHODS[name].reads and own.get("conditions") != "training"
        for name, own in rivals.items()
    )
    own_sets = "synthetic" in arms or treatment not in rivals or followed
    return [*([DIDGEN] if own_sets else []), *rivals]


def needs_fine_tuning(methods: Iterable[str]) -> bool:
    """Whether one of the methods is the run's own, or builds on the run's fine-tuned backbone."""
    return any(name == DIDGEN or METHODS[name].backbone == "fine-tuned" for name in methods)


def check_makes(name: str, wanted: Kind) -> str:
    """The method's name. Raises: `ValueError` for one that does not exist or makes no such sets."""
    able = [method for method, facts in METHODS.items() if wanted in facts.makes]
    return _check(name, able, f"makes no {wanted}")


def check_trains(name: str) -> str:
    """The method's name. Raises: `ValueError` for one that `train` does not train."""
    able = [method for method, facts in METHODS.items() if facts.trained and method != DIDGEN]
    return _check(name, able, "is trained by `finetune`, or not at all")


def _check(name: str, able: Sequence[str], fault: str) -> str:
    if name not in able:
        # The name may be anything that stands in a configuration.
        fault = fault if name in list(METHODS) else "is no method"
        raise ValueError(
            f"found {str(name)[:100]!r}, which {fault}; expected one of {', '.join(able)}"
        )
    return name
