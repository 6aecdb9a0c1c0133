from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings

from didgen.backbone.prompts import (
    PREFIX,
    PrefixTooLong,
    ReservedWord,
    build_prompt,
    count_tokens,
    placeholder_positions,
)
from didgen.captions import attributes as vocabulary
from didgen.captions.attributes import Attributes
from didgen.captions.sentence import write_sentence
from tests.captions.made_up import Words, any_attributes

# Sentences of measured attributes alone; test_condense.py has those of all of them.
measured_attributes = any_attributes(measured_only=True)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(attributes=measured_attributes)
def test_every_sentence_fits_clip_untrimmed(clip_tokenizer, attributes):
    caption = write_sentence(attributes)
    prompt = build_prompt(caption, clip_tokenizer)
    assert prompt == f"{PREFIX} {caption}"
    ids = clip_tokenizer(prompt)["input_ids"]
    assert len(ids) == count_tokens(prompt, clip_tokenizer) <= 77
    tokens = clip_tokenizer.convert_ids_to_tokens(ids)
    assert tokens.index("<lesion>") == 4 and tokens.index("<skin>") == 6


def test_the_longest_sentence_leaves_room(clip_tokenizer):
    longest = Attributes(
        diagnosis="NV",
        size="medium",
        shape="irregular",
        symmetry="asymmetric",
        border="blurred",
        colors=("blue-gray", "light brown", "dark brown"),
        position="upper right",
        skin_tone="very light",
        hair="dense",
        artifacts=get_args(vocabulary.Artifact),
    )
    prompt = build_prompt(write_sentence(longest), clip_tokenizer)
    assert count_tokens(prompt, clip_tokenizer) <= 64


def test_trimming_stops_at_clauses():
    # The prefix has six words and start and end make eight tokens.
    caption = "A large nevus, dark brown, in the center."
    assert build_prompt(caption, Words(16)) == f"{PREFIX} {caption}"
    assert build_prompt(caption, Words(15)) == f"{PREFIX} A large nevus, dark brown."
    assert build_prompt(caption, Words(13)) == f"{PREFIX} A large nevus, dark brown."
    assert build_prompt(caption, Words(12)) == f"{PREFIX} A large nevus."
    assert build_prompt(caption, Words(10)) == f"{PREFIX} A large."
    assert build_prompt(caption, Words(8)) == PREFIX


def test_an_empty_caption_is_the_prefix_alone():
    assert build_prompt("", Words(77)) == PREFIX
    assert build_prompt("  ", Words(77)) == PREFIX


def test_a_limit_below_the_prefix_is_refused():
    with pytest.raises(PrefixTooLong, match="limit is 7"):
        build_prompt("A nevus.", Words(7))


@pytest.mark.parametrize("caption", ["A Lesion.", "Two lesions.", "On dark skin.", "SKINS"])
def test_reserved_words_are_refused(caption):
    with pytest.raises(ReservedWord, match="placeholder"):
        build_prompt(caption, Words(77))


def test_tags_are_allowed_in_a_caption_and_the_prefix_keeps_its_positions(clip_tokenizer):
    prompt = build_prompt("A dark <lesion> on light <skin>.", clip_tokenizer)
    found = placeholder_positions(prompt, clip_tokenizer)
    assert found == {"<lesion>": [4, 10], "<skin>": [6, 13]}
    with pytest.raises(ReservedWord, match="lesion"):
        build_prompt("A <lesion> is a lesion.", clip_tokenizer)
