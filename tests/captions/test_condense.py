"""Condensing: always within the limit, never silently."""

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from didgen.backbone.prompts import (
    PREFIX,
    PrefixTooLong,
    ReservedWord,
    build_prompt,
    count_tokens,
    placeholder_positions,
)
from didgen.captions.attributes import Attributes
from didgen.captions.condense import clean, condense, condense_statistics, reword
from didgen.captions.sentence import write_sentence
from tests.captions.made_up import Words, any_attributes

SLOW_START = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=SLOW_START)
# Free text with what may go wrong: reserved words, tags, a chat model's marks, any letters.
FRAGMENTS = ["lesion", "Lesions", "SKIN", "<lesion>", "<skin>", "<|endoftext|>", "<|eot_id|>", ". "]
FRAGMENTS += [", ", "perilesional skin", "dark brown nevus", "\n", "\u200b", '"', "<", ">", "  "]
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=12), max_size=40).map("".join)


@pytest.fixture(scope="module", params=["clip", "tiny"])
def tokenizer(request, clip_tokenizer, tmp_path_factory):
    """The real CLIP vocabulary and that of the tiny backbone, each with the placeholder tokens."""
    if request.param == "clip":
        return clip_tokenizer
    from transformers import AddedToken

    from didgen.backbone.tokenizer import build_tokenizer

    tiny = build_tokenizer(tmp_path_factory.mktemp("tiny"))
    tiny.add_tokens([AddedToken(tag, normalized=False) for tag in ("<lesion>", "<skin>")])
    return tiny


def check(found, tokenizer):
    """What must hold of every condensed caption; gives its prompt."""
    prompt = build_prompt(found.caption, tokenizer)
    assert prompt == f"{PREFIX} {found.caption}".strip()
    ids = tokenizer(prompt)["input_ids"]
    assert len(ids) == found.tokens == count_tokens(prompt, tokenizer)
    assert found.tokens <= tokenizer.model_max_length
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.bos_token_id not in ids[1:]
    assert tokenizer.eos_token_id not in ids[:-1]
    return prompt


@PROPERTY
@given(attributes=any_attributes())
def test_any_attributes_fit_with_the_prefix(tokenizer, attributes):
    found = condense(attributes, tokenizer)
    prompt = check(found, tokenizer)
    assert placeholder_positions(prompt, tokenizer) == {"<lesion>": [4], "<skin>": [6]}
    whole = write_sentence(attributes)
    if found.trimmed:
        assert whole.startswith(found.caption.removesuffix("."))
        assert count_tokens(f"{PREFIX} {whole}", tokenizer) > tokenizer.model_max_length
    else:
        assert found.caption == whole


@PROPERTY
@given(text=texts)
def test_any_text_fits_and_leaves_the_placeholders_where_they_are(tokenizer, text):
    prompt = check(condense(text, tokenizer), tokenizer)
    assert placeholder_positions(prompt, tokenizer) == {"<lesion>": [4], "<skin>": [6]}


@PROPERTY
@given(text=texts)
def test_tagged_texts_fit_and_all_their_tags_are_found(tokenizer, text):
    prompt = check(condense(text, tokenizer, reserved="tag"), tokenizer)
    found = placeholder_positions(prompt, tokenizer)
    assert found["<lesion>"][0] == 4 and found["<skin>"][0] == 6
    for tag, positions in found.items():
        assert len(positions) == prompt.count(tag)


def test_reserved_words_are_replaced_or_tagged_or_refused():
    text = "A dark skin lesion. Lesions on perilesional skin, light skin tone"
    assert reword(text) == ("A dark spot; Spots on surroundings, light tone.", True)
    tagged = "A dark <skin> <lesion>; <lesion>s on peri<lesion>al <skin>, light <skin> tone."
    assert reword(text, "tag") == (tagged, True)
    assert reword("A nevus.") == ("A nevus.", False)
    with pytest.raises(ReservedWord):
        reword(text, "refuse")
    assert condense("A nevus.", Words(20), reserved="refuse").caption == "A nevus."


def test_a_models_marks_are_removed():
    assert clean('"A nevus,\n dark."<|eot_id|>') == "A nevus, dark."
    assert clean("a < b and c > d") == "a < b and c > d"


def test_a_long_text_is_asked_for_again_and_then_trimmed():
    faults = []

    def rewrite(text, fault):
        faults.append((text, fault))
        return "A large dark nevus, brown, blurred."

    # Prefix 6, start and end 2: ten words of a caption fit into 18.
    long = "A very large nevus, which is dark brown and black, with a blurred border."
    found = condense(long, Words(18), rewrite, retries=2)
    assert faults == [(long, "it is too long: 4 tokens over; use at most 10 tokens")]
    assert (found.caption, found.asked_again, found.trimmed) == (
        "A large dark nevus, brown, blurred.", 1, False,
    )  # fmt: skip
    found = condense(long, Words(13), rewrite, retries=2)
    assert (found.asked_again, found.trimmed) == (2, True)
    assert found.caption == "A large dark nevus, brown."
    found = condense(long, Words(18), lambda text, fault: None, retries=2)
    assert (found.asked_again, found.trimmed) == (1, True)
    assert found.caption == "A very large nevus, which is dark brown and black."


def test_several_sentences_and_an_empty_text_are_faults():
    faults = []

    def rewrite(text, fault):
        faults.append(fault)
        return "A nevus. It is dark." if text == "" else "A nevus."

    assert condense("", Words(30), rewrite, retries=2).caption == "A nevus."
    assert faults == ["it is empty", "it has 2 sentences; write one"]
    joined = condense("A nevus. It is dark.", Words(30))
    assert joined.caption == "A nevus; It is dark." and not joined.trimmed
    assert condense("", Words(30)).caption == ""


@pytest.mark.parametrize(
    "text",
    ["word " * 3_000, "a, " * 3_000, "x. " * 3_000, "." * 50_000 + "a", "a" * 10_000,
     "<" * 10_000, "skin" + "-" * 10_000],
)  # fmt: skip
def test_a_long_text_is_trimmed_in_no_time(tokenizer, text):
    started = time.process_time()
    assert condense(text, tokenizer).tokens <= tokenizer.model_max_length
    assert time.process_time() - started < 2


@PROPERTY
@given(text=texts, limit=st.integers(8, 30))
def test_no_clause_is_dropped_that_would_fit(text, limit):
    """The first that fits of: the caption, it without its last clause, ..., its first word."""
    caption = " ".join(reword(clean(text))[0].split())
    candidates = [caption]
    ends = [match.start() for match in re.finditer(r"[,;.](?=\s)", caption)]
    candidates += [caption[:end] + "." for end in reversed(ends)]
    words = caption[: ends[0]].split() if ends else caption.rstrip(".").split()
    candidates += [" ".join(words[:kept]) + "." for kept in range(len(words) - 1, 0, -1)]
    prompts = [f"{PREFIX} {one}" for one in candidates if one]
    fitting = [one for one in prompts if count_tokens(one, Words(limit)) <= limit]
    assert build_prompt(caption, Words(limit)) == [*fitting, PREFIX][0]


def test_statistics_count_all_that_was_done():
    results = [
        condense("A nevus.", Words(12)),
        condense("A lesion, dark, on light, pale skin.", Words(12), lambda t, f: t, retries=3),
    ]
    found = condense_statistics(results, Words(12))
    assert (found.count, found.limit, found.max_tokens) == (2, 12, 11)
    assert (found.asked_again, found.questions, found.trimmed, found.reworded) == (1, 3, 1, 1)
    assert found.truncation_rate == 0.5
    assert found.as_json()["truncation_rate"] == 0.5
    assert condense_statistics([], Words(12)).truncation_rate == 0


def test_a_limit_below_the_prefix_is_refused():
    with pytest.raises(PrefixTooLong):
        condense(Attributes(), Words(7))
