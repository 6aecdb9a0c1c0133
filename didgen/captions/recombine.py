"""New prompts from the captions of a class: a parent's attributes, one block taken from another.

Attributes that go together (colors with dermoscopic structures, size with place) are exchanged as a
block, and a block is taken only where each linked pair of values that it makes occurs in an image
of the class. So prompts keep to the class's own joint distribution instead of drawing each
attribute on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from didgen.captions.attributes import DERMOSCOPIC, Attributes
from didgen.captions.condense import condense
from didgen.captions.diversity import SeenCaptions
from didgen.settings.prompts import MAX_OVERLAP

Origin = Literal["recombined", "language model", "training"]

# What is exchanged together.
BLOCKS: dict[str, tuple[str, ...]] = {
    "place": ("size", "position"),
    "outline": ("shape", "symmetry", "border"),
    "pigment": ("colors", *DERMOSCOPIC),
    "surroundings": ("skin_tone", "hair"),
    "marks": ("artifacts",),
}
# Pairs across blocks whose values must occur together in an image of the class.
LINKS: tuple[tuple[str, str], ...] = (
    ("size", "shape"),
    ("size", "symmetry"),
    ("size", "border"),
    ("main_color", "border"),
    ("main_color", "skin_tone"),
    ("main_color", "size"),
)
# Proposals for one prompt; the first half exchanges one block, the rest two.
PROPOSALS = 40


@dataclass(frozen=True)
class NewPrompt:
    """A caption for sampling: its attributes, the training images it comes from, and how."""

    caption: str
    attributes: Attributes
    parent_ids: tuple[str, ...]
    origin: Origin


@dataclass
class PromptCounts:
    """What became of the proposals.

    `made`: prompts that are new; `repeated`: captions of training images that stand in where the
    class has no further new prompt; `unlinked`: proposals with a linked pair that the class does
    not have; `unchanged`: equal to a parent; `near_duplicates`: too close to a training caption or
    to an earlier prompt; `invalid`: answers of a language model outside the schema; `unanswered`:
    questions without an answer; `fallbacks`: recombined prompts in place of a language model's;
    `trimmed`: prompts that lost clauses to the tokenizer's limit.
    """

    made: int = 0
    repeated: int = 0
    unlinked: int = 0
    unchanged: int = 0
    near_duplicates: int = 0
    invalid: int = 0
    unanswered: int = 0
    fallbacks: int = 0
    trimmed: int = 0

    def add(self, other: "PromptCounts") -> None:
        """Add another class's counts, or another way's."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class ClassCaptions:
    """The training captions of one class: ids with attributes, and the linked pairs they have."""

    label: str
    ids: tuple[str, ...]
    attributes: tuple[Attributes, ...]
    linked: Mapping[tuple[str, str], frozenset]

    @classmethod
    def of(cls, label: str, parents: Mapping[str, Attributes]) -> "ClassCaptions":
        """Of the class's training images, id -> attributes. Raises: ValueError without any."""
        if not parents:
            raise ValueError(f"found no captioned training image of {label}, expected at least one")
        given = tuple(one.model_copy(update={"diagnosis": label}) for one in parents.values())
        linked = {link: frozenset(_values(one, link) for one in given) for link in LINKS}
        return cls(label, tuple(parents), given, linked)

    def seen(self, tokenizer: Any) -> SeenCaptions:
        """The captions of these images, as the tokenizer lets them be."""
        return SeenCaptions(condense(one, tokenizer).caption for one in self.attributes)

    def allows(self, attributes: Attributes) -> bool:
        """Whether each linked pair of values occurs in an image of the class."""
        return all(_values(attributes, link) in seen for link, seen in self.linked.items())


def _values(attributes: Attributes, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        (attributes.colors[:1] or (None,))[0] if name == "main_color" else getattr(attributes, name)
        for name in names
    )


def recombine(
    captions: ClassCaptions,
    count: int,
    tokenizer: Any,
    seed: int,
    max_overlap: float = MAX_OVERLAP,
    seen: SeenCaptions | None = None,
) -> tuple[list[NewPrompt], PromptCounts]:
    """`count` prompts of a class, the same for the same arguments; parents are used in turn.

    `seen`: captions to stay away from, to which the new ones are added; by default the class's own.
    `max_overlap`: a caption with a larger `word_overlap` is a near-duplicate and not taken.
    Where a parent gives no new prompt in `PROPOSALS` proposals, its own caption stands in, counted
    as repeated.
    """
    rng = np.random.default_rng([seed, *captions.label.encode()])
    counts = PromptCounts()
    if seen is None:
        seen = captions.seen(tokenizer)
    prompts: list[NewPrompt] = []
    while len(prompts) < count:
        for parent in rng.permutation(len(captions.ids))[: count - len(prompts)]:
            prompts.append(_new(captions, int(parent), tokenizer, rng, max_overlap, seen, counts))
    return prompts, counts


def _new(
    captions: ClassCaptions,
    parent: int,
    tokenizer: Any,
    rng: np.random.Generator,
    max_overlap: float,
    seen: SeenCaptions,
    counts: PromptCounts,
) -> NewPrompt:
    """A new prompt from a parent, or its own caption where there is none."""
    for attempt in range(PROPOSALS):
        blocks = rng.choice(list(BLOCKS), 1 if attempt < PROPOSALS // 2 else 2, replace=False)
        donor = int(rng.integers(len(captions.ids)))
        child = exchange(captions.attributes[parent], captions.attributes[donor], list(blocks))
        if child == captions.attributes[parent] or donor == parent:
            counts.unchanged += 1
            continue
        if not captions.allows(child):
            counts.unlinked += 1
            continue
        ids = (captions.ids[parent], captions.ids[donor])
        prompt = accept(child, ids, "recombined", tokenizer, max_overlap, seen, counts)
        if prompt is not None:
            return prompt
    counts.repeated += 1
    own = captions.attributes[parent]
    condensed = condense(own, tokenizer)
    counts.trimmed += condensed.trimmed
    return NewPrompt(condensed.caption, own, (captions.ids[parent],), "training")


def exchange(parent: Attributes, donor: Attributes, blocks: Sequence[str]) -> Attributes:
    """The parent's attributes with the named blocks of the donor."""
    changes = {name: getattr(donor, name) for block in blocks for name in BLOCKS[block]}
    return parent.model_copy(update=changes)


def accept(
    attributes: Attributes,
    parent_ids: tuple[str, ...],
    origin: Origin,
    tokenizer: Any,
    max_overlap: float,
    seen: SeenCaptions,
    counts: PromptCounts,
) -> NewPrompt | None:
    """The prompt of these attributes, remembered and counted; None for a near-duplicate.

    Its sentence is written of the schema's words and condensed for the tokenizer.
    """
    # Copies skip the checks that only hold when a model is built.
    attributes = Attributes.model_validate(attributes.model_dump())
    condensed = condense(attributes, tokenizer)
    if seen.closest(condensed.caption) > max_overlap:
        counts.near_duplicates += 1
        return None
    seen.add(condensed.caption)
    counts.made += 1
    counts.trimmed += condensed.trimmed
    return NewPrompt(condensed.caption, attributes, parent_ids, origin)
