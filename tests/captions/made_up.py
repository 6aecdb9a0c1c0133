"""Made-up attributes, and a tokenizer that counts words."""

from typing import get_args

from hypothesis import strategies as st

from didgen.captions import attributes as vocabulary
from didgen.captions.attributes import MAX_COLORS, MAX_STRUCTURES, MAX_VESSELS, Attributes
from didgen.data.classes import CLASSES


class Words:
    """A tokenizer with one token a word, plus start and end."""

    def __init__(self, limit: int):
        self.model_max_length = limit

    def count(self, text):
        """The tokens of a text, without start and end."""
        return len(text.split())

    def __call__(self, text, **options):
        return {"input_ids": [0, *range(self.count(text)), 0]}


def word(kind):
    """One word of a vocabulary, or None."""
    return st.none() | st.sampled_from(get_args(kind))


def words(kind, most=None):
    """Some words of a vocabulary, none twice."""
    return st.lists(st.sampled_from(get_args(kind)), max_size=most, unique=True)


def any_attributes(measured_only=False):
    """Any attributes that the schema allows; `measured_only`: without dermoscopic features."""
    features = {
        "network": word(vocabulary.Network),
        "veil": word(vocabulary.Veil),
        "vessels": words(vocabulary.Vessel, MAX_VESSELS),
        "dots_globules": word(vocabulary.Regularity),
        "streaks": word(vocabulary.Regularity),
        "blotches": word(vocabulary.Regularity),
        "regression": word(vocabulary.Regression),
        "structures": words(vocabulary.Structure, MAX_STRUCTURES),
    }
    return st.builds(
        Attributes,
        diagnosis=st.none() | st.sampled_from(sorted(CLASSES)),
        size=word(vocabulary.Size),
        shape=word(vocabulary.Shape),
        symmetry=word(vocabulary.Symmetry),
        border=word(vocabulary.Border),
        colors=words(vocabulary.Color, MAX_COLORS),
        position=word(vocabulary.Position),
        skin_tone=word(vocabulary.SkinTone),
        hair=st.sampled_from(get_args(vocabulary.Hair)),
        artifacts=words(vocabulary.Artifact),
        **({} if measured_only else features),
    )
