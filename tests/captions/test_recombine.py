from collections import Counter

import numpy as np
import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.diversity import word_overlap
from didgen.captions.recombine import BLOCKS, LINKS, ClassCaptions, exchange, recombine
from tests.captions.made_up import Words

LONG = Words(200)


def attributes_like_a_class(count, seed=0):
    """Images where tan goes with light tone and black with dark tone, and all else is free."""
    rng = np.random.default_rng(seed)
    found = {}
    for k in range(count):
        light = rng.random() < 0.7
        found[f"i{k}"] = Attributes(
            diagnosis="MEL",
            size=str(rng.choice(["small", "medium", "large"], p=[0.6, 0.3, 0.1])),
            shape=str(rng.choice(["round", "oval", "irregular"])),
            symmetry=str(rng.choice(["symmetric", "asymmetric"])),
            border=str(rng.choice(["sharp", "blurred"])),
            colors=("tan", "red") if light else ("black",),
            position=str(rng.choice(["top", "center", "left", "right"])),
            skin_tone="light" if light else "dark",
            hair=str(rng.choice(["none", "some"])),
            artifacts=("ink",) if rng.random() < 0.2 else (),
        )
    return found


@pytest.fixture(scope="module")
def captions():
    return ClassCaptions.of("MEL", attributes_like_a_class(60))


def test_blocks_share_out_all_attributes_but_the_diagnosis():
    names = [name for block in BLOCKS.values() for name in block]
    assert sorted([*names, "diagnosis"]) == sorted(Attributes.model_fields)


def test_exchange_takes_whole_blocks():
    parent = Attributes(size="small", colors=("red",), network="typical", hair="dense")
    donor = Attributes(size="large", colors=("tan",), skin_tone="dark", artifacts=("ink",))
    assert exchange(parent, donor, ["pigment"]) == Attributes(
        size="small", colors=("tan",), hair="dense"
    )
    assert exchange(parent, donor, list(BLOCKS)) == donor


def test_prompts_are_new_and_keep_linked_values_together(captions):
    prompts, counts = recombine(captions, 100, LONG, seed=3)
    assert len(prompts) == 100 == counts.made + counts.repeated
    new = [prompt for prompt in prompts if prompt.origin == "recombined"]
    assert counts.made == len(new) > 95
    own = dict(zip(captions.ids, captions.attributes, strict=True))
    pairs = {(a.colors[0], a.skin_tone) for a in own.values()}
    for prompt in new:
        assert prompt.attributes not in own.values()
        assert len(set(prompt.parent_ids)) == 2 <= len(own.keys() & set(prompt.parent_ids))
        assert (prompt.attributes.colors[0], prompt.attributes.skin_tone) in pairs
        assert captions.allows(prompt.attributes)
        assert prompt.attributes.diagnosis == "MEL" and "melanoma" in prompt.caption
    texts = [prompt.caption for prompt in new]
    assert max(word_overlap(a, b) for k, a in enumerate(texts) for b in texts[:k]) <= 0.9


def test_each_attribute_is_as_frequent_as_in_the_class(captions):
    prompts, _ = recombine(captions, 120, LONG, seed=1)
    for name in ("size", "shape", "border", "colors", "position", "skin_tone", "hair"):
        was = Counter(getattr(one, name) for one in captions.attributes)
        now = Counter(getattr(one.attributes, name) for one in prompts)
        distance = sum(abs(was[v] / was.total() - now[v] / now.total()) for v in was | now) / 2
        assert distance < 0.12, name


def test_every_image_has_its_turn_as_a_parent(captions):
    prompts, _ = recombine(captions, 60, LONG, seed=0)
    assert {prompt.parent_ids[0] for prompt in prompts} == set(captions.ids)


def test_a_seed_decides_all(captions):
    first, _ = recombine(captions, 20, LONG, seed=5)
    assert recombine(captions, 20, LONG, seed=5)[0] == first
    assert recombine(captions, 20, LONG, seed=6)[0] != first


def test_a_class_that_allows_nothing_new_repeats_its_captions_and_says_so():
    alone = ClassCaptions.of("NV", {"a": Attributes(size="small", colors=("tan",))})
    prompts, counts = recombine(alone, 3, LONG, seed=0)
    assert counts.repeated == 3 and counts.made == 0
    assert {prompt.origin for prompt in prompts} == {"training"}
    assert prompts[0].caption == "A small melanocytic nevus, tan."
    # Sizes and shapes that never meet: only unlinked mixtures would be new.
    two = {
        "a": Attributes(size="small", shape="oval"),
        "b": Attributes(size="large", shape="round"),
    }
    prompts, counts = recombine(ClassCaptions.of("NV", two), 4, LONG, seed=0)
    assert counts.repeated == 4 and counts.unlinked > 0


def test_prompts_that_lose_clauses_are_counted(captions):
    prompts, counts = recombine(captions, 10, Words(24), seed=0)
    assert counts.trimmed > 0
    assert all(len(prompt.caption.split()) <= 16 for prompt in prompts)


def test_no_parent_is_an_error():
    with pytest.raises(ValueError, match="no captioned training image of MEL"):
        ClassCaptions.of("MEL", {})


def test_links_join_different_blocks():
    block = {name: key for key, names in BLOCKS.items() for name in names} | {
        "main_color": "pigment"
    }
    assert all(block[a] != block[b] for a, b in LINKS)
