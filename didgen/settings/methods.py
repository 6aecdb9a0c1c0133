"""What each method of synthesis can do and what it needs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """A method as the workflow sees it.

    makes: which sets it can make; `images` of a class from text, `pairs` of an image and its mask.
    mask: where a pair's mask comes from: `read` from the image that was made, `condition`: the
    layout that was asked for, or `exact`: it is known how the image was put together.
    layout: whether a pair follows the layout of a condition mask.
    model: whose trained folder it uses: its own, or another method's.
    network: whether it computes with a network, on a GPU where there is one.
    """

    makes: frozenset[Literal["images", "pairs"]]
    mask: Literal["read", "condition", "exact"]
    layout: bool
    model: str
    network: bool

    @property
    def lacks(self) -> frozenset[str]:
        """Scores of pairs that mean nothing for this method."""
        absent = set() if self.layout else {"layout_iou"}
        return frozenset(absent if self.mask == "read" else absent | {"contrast"})


METHODS = {
    "didgen": Method(
        makes=frozenset({"images", "pairs"}),
        mask="read",
        layout=True,
        model="didgen",
        network=True,
    ),
    "warp": Method(
        makes=frozenset({"pairs"}),
        mask="exact",
        layout=False,
        model="warp",
        network=False,
    ),
}

# The section that makes what a task is taught with.
SECTIONS = {"classification": "images", "segmentation": "pairs"}


def models_used(tasks: Iterable[str], method_of: Callable[[str], str]) -> set[str]:
    """Whose trained folders a run needs; `method_of` gives the method that a section names."""
    return {METHODS[method_of(SECTIONS[task])].model for task in tasks}


def check_makes(name: str, wanted: Literal["images", "pairs"]) -> str:
    """The method's name. Raises: `ValueError` for one that does not exist or makes no such sets."""
    able = [method for method, facts in METHODS.items() if wanted in facts.makes]
    return _check(name, able, f"makes no {wanted}")


def check_trains(name: str) -> str:
    """The method's name. Raises: `ValueError` for one that `train` does not train."""
    able = [method for method, facts in METHODS.items() if facts.model == method != "didgen"]
    return _check(name, able, "is trained by `finetune`, or not at all")


def _check(name: str, able: Sequence[str], fault: str) -> str:
    if name not in able:
        # The name may be anything that stands in a configuration.
        fault = fault if name in list(METHODS) else "is no method"
        raise ValueError(
            f"found {str(name)[:100]!r}, which {fault}; expected one of {', '.join(able)}"
        )
    return name
