"""Captions whose layout words follow another mask."""

import numpy as np
import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.layout import attributes_of, with_layout
from didgen.captions.sentence import write_sentence

ROW = {
    "id": "a", "caption": "?", "mask_source": "given", "diagnosis": "MEL", "size": "large",
    "shape": "irregular", "symmetry": "asymmetric", "border": "sharp",
    "colors": "dark brown; black", "position": "center", "skin_tone": "light", "hair": "some",
    "artifacts": "ruler",
}  # fmt: skip


def disc(row, column, radius, side=96):
    y, x = np.mgrid[:side, :side] + 0.5
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def test_the_words_of_the_mask_change_and_the_others_stay():
    found = with_layout(attributes_of(ROW), disc(20, 76, 12))
    assert (found.size, found.position) == ("small", "upper right")
    assert (found.shape, found.symmetry) == ("round", "symmetric")
    assert (found.colors, found.border, found.hair) == (("dark brown", "black"), "sharp", "some")
    assert write_sentence(found) == (
        "A small symmetric round melanoma, dark brown and black, sharp border, in the upper right, "
        "on light tone, with some hair and a ruler."
    )


def test_rows_are_read_as_they_are_written():
    assert attributes_of(ROW).artifacts == ("ruler",)
    bare = ROW | {"diagnosis": "", "colors": "", "skin_tone": "", "artifacts": "", "size": ""}
    assert attributes_of(bare) == Attributes(
        shape="irregular", symmetry="asymmetric", border="sharp", position="center", hair="some"
    )


def test_captions_without_attributes_are_refused():
    with pytest.raises(ValueError, match="lacks the columns diagnosis, size"):
        attributes_of({"id": "a", "caption": "A spot."})


def test_features_of_checklists_are_read_and_may_be_missing_as_columns():
    more = {"network": "atypical", "vessels": "dotted; comma", "structures": "", "veil": ""}
    found = attributes_of(ROW | more)
    assert (found.network, found.vessels, found.structures) == ("atypical", ("dotted", "comma"), ())
    assert found.veil is None and found.streaks is None
    assert attributes_of(ROW).network is None
