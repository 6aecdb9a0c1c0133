import json
import time

import numpy as np
import pytest
from PIL import Image

from didgen.captions.attributes import Attributes
from didgen.captions.llm import CAPTIONERS, ImageFile, ModelError, load_attribute, load_captioner
from didgen.captions.llm_captions import (
    InvalidResponse,
    attributes_request,
    parse_attributes,
    parse_sentence,
    response_schema,
    retry_request,
    sentence_request,
    shorter_request,
)

IMAGE = ImageFile(None, "0" * 64, 512)
NOTHING = {
    name: [] if node.get("type") == "array" else None
    for name, node in response_schema()["properties"].items()
} | {"hair": "none"}


def claims(**changes):
    """An answer that knows nothing, but for the changes."""
    return json.dumps(NOTHING | changes)


def test_every_attribute_but_the_diagnosis_is_asked_for():
    schema = response_schema()
    assert set(schema["properties"]) == set(Attributes.model_fields) - {"diagnosis"}
    assert schema["required"] == list(schema["properties"])
    text = attributes_request(IMAGE).text
    for name, node in schema["properties"].items():
        assert f'"{name}"' in text
        for option in node.get("anyOf", [node]):
            for word in option.get("enum", option.get("items", {}).get("enum", [])):
                assert f'"{word}"' in text


def test_the_question_says_nothing_of_the_label():
    request = attributes_request(IMAGE)
    told = (request.system + request.text + json.dumps(request.schema)).lower()
    for phrase in ("melanoma", "nevus", "carcinoma", "keratosis", "angioma"):
        assert phrase not in told


def test_claims_are_read_with_the_label_as_diagnosis():
    found = parse_attributes(claims(size="small", colors=["tan", "red"]), "MEL")
    assert found == Attributes(diagnosis="MEL", size="small", colors=("tan", "red"))
    assert parse_attributes(claims(), None) == Attributes()


def test_text_around_the_object_and_repeats_do_not_matter():
    text = f"Here it is:\n```json\n{claims(colors=['tan', 'tan', 'red', 'tan'])}\n```"
    assert parse_attributes(text, None).colors == ("tan", "red")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A small spot.", "no JSON object"),
        ("{'size': 1}", "no valid JSON"),
        (claims(extra=1), "unknown keys: \\['extra'\\]"),
        ('{"size": null}', "missing keys: \\['artifacts', 'blotches'"),
        (claims(size="huge"), "size: Input should be 'small', 'medium' or 'large'"),
        (claims(colors=["tan", "red", "pink", "black"]), "colors: .*at most 3"),
        (claims(hair=None), "hair"),
    ],
)
def test_what_departs_from_the_schema_is_named(text, fault):
    with pytest.raises(InvalidResponse, match=fault):
        parse_attributes(text, None)


def test_a_retry_is_another_request_about_the_same_image():
    first = attributes_request(IMAGE)
    again = retry_request(first, "it is no valid JSON")
    assert "it is no valid JSON" in again.text
    assert again.image == first.image
    assert again.digest() != first.digest()


def test_responses_of_earlier_versions_are_found_again():
    """Keys of requests as the journals of 0.1 have them."""
    small = Attributes(size="small")
    assert attributes_request(IMAGE).digest() == (
        "a1b618d3dffb67afb4f925cdf4a508febab9946394ef19beb5fe4b5a90ee8d83"
    )
    assert sentence_request(small).digest() == (
        "fe9ca75be7aa3251ae0b15192533dfbac110f9d66ef28c99f4185c5b65c838c3"
    )
    assert retry_request(sentence_request(small), "x").digest() == (
        "920e277d8eeb4a6080487d6a5f08b31d7a2efd0d64db2d751093b108ee8ff0d7"
    )
    assert shorter_request(sentence_request(small), "a", "b").digest() == (
        "2355555a696b9e91ee11adae5e12b58676d40f193cb24ead668ecff33f527568"
    )


def test_the_digest_knows_contents_not_names(tmp_path):
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    first, same = (
        attributes_request(ImageFile.of(tmp_path / name, 512)) for name in ("a.png", "b.png")
    )
    smaller = attributes_request(ImageFile.of(tmp_path / "a.png", 256))
    Image.fromarray(255 - pixels).save(tmp_path / "a.png")
    other = attributes_request(ImageFile.of(tmp_path / "a.png", 512))
    assert first.digest() == same.digest()
    assert len({one.digest() for one in (first, smaller, other)}) == 3


def test_images_are_shrunk_never_enlarged_and_lose_their_metadata(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "patient Smith"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert b"Smith" in (tmp_path / "a.png").read_bytes()
    assert ImageFile.of(tmp_path / "a.png", 40).pixels().shape == (20, 40, 3)
    large = ImageFile.of(tmp_path / "a.png", 500)
    assert np.array_equal(large.pixels(), pixels)
    assert b"Smith" not in large.png()
    assert large.png().startswith(b"\x89PNG")


def test_sentences_are_asked_for_and_read():
    request = sentence_request(Attributes(diagnosis="NV", size="large", colors=("black",)))
    assert "A large melanocytic nevus; black" in request.text
    assert request.image is None
    assert "too long" in shorter_request(request, "A b.", "it is too long").text
    assert parse_sentence('{"sentence": "A large nevus."}') == "A large nevus."
    fenced = 'Here it is:\n```json\n{"sentence": "A large nevus."}\n```'
    assert parse_sentence(fenced) == "A large nevus."
    for text in ("A large nevus.", "{}", '{"sentence": 1}', "[]", "{'sentence': 'A b.'}"):
        with pytest.raises(InvalidResponse):
            parse_sentence(text)


@pytest.mark.parametrize("sentence", ["", " \n", "...", '"."', "<|eot_id|>", "\u0000\u200b", "; ."])
def test_a_sentence_without_a_word_is_refused(sentence):
    with pytest.raises(InvalidResponse, match="is empty"):
        parse_sentence(json.dumps({"sentence": sentence}))


DEEP = "[" * 100_000
HOSTILE = {
    "half a surrogate pair": ('{"sentence": "A \\ud800 b.", "size": "\\udfff"}', "surrogate"),
    "as a key": ('{"\\ud800": 1, "sentence": "\\ud800"}', "surrogate"),
    "nested deeply": (f'{{"sentence": {DEEP}, "size": {DEEP}}}', "nested|valid JSON"),
    "nested and closed": (f'{{"sentence": {DEEP}1{"]" * 100_000}}}', "nested"),
    "a long number": (f'{{"sentence": {"9" * 5_000}}}', "valid JSON"),
    "a long sentence": (json.dumps({"sentence": "a " * 6_000}), "12000 letters|missing keys"),
    "many keys": (
        json.dumps({"sentence": 1} | {f"\x1b{k}": k for k in range(20_000)}),
        'under "sentence"|unknown keys',
    ),
    "many words": (
        json.dumps(NOTHING | {"artifacts": [[k] for k in range(20_000)], "sentence": []}),
        'under "sentence"|unknown keys',
    ),
    "many wrong words": (
        json.dumps(NOTHING | {"artifacts": list(range(20_000))}), 'under "sentence"|and 19990 more'
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answers_are_refused_in_a_few_printable_words_and_at_once(kind):
    text, fault = HOSTILE[kind]
    started = time.process_time()
    for read in (parse_sentence, lambda text: parse_attributes(text, "NV")):
        with pytest.raises(InvalidResponse, match=fault) as caught:
            read(text)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 2_000
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "sentence",
    [
        "Write these findings as one sentence of at most 40 words: a large nevus.",
        "A large nevus. Say nothing else, and do not use the words.",
        "Findings: A large melanocytic nevus; black.",
        "You write captions of dermoscopic images, each of one short sentence.",
    ],
)
def test_a_sentence_that_repeats_the_question_is_refused(sentence):
    with pytest.raises(InvalidResponse, match="repeats the question"):
        parse_sentence(json.dumps({"sentence": sentence}))


@pytest.mark.parametrize("name", ["measure", "gpt"])
def test_unknown_captioners_are_refused(name):
    with pytest.raises(ModelError, match="known are llama_cpp, transformers, openai"):
        load_captioner(name)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_known_captioners_answer_identify_and_close(name):
    kind = load_attribute(CAPTIONERS[name])
    assert all(callable(getattr(kind, verb)) for verb in ("complete", "close", "identify"))
