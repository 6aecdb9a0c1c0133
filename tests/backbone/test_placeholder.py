import pytest
import torch

from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS, add_placeholder_tokens, word_pieces
from didgen.tiny.architecture import MINIATURE, build

PROMPT = "An image of <lesion> on <skin>. A small melanoma."


def rows(backbone):
    return backbone.text_encoder.get_input_embeddings().weight.detach().clone()


def test_each_placeholder_is_one_token_with_the_words_embedding():
    backbone = build(MINIATURE)
    before = rows(backbone)
    ids = add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
    after = rows(backbone)
    assert set(ids) == set(PLACEHOLDERS)
    assert torch.equal(after[: len(before)], before)
    assert len(after) == len(before) + 2 == len(backbone.tokenizer)
    for token, word in PLACEHOLDERS.items():
        (piece,) = word_pieces(backbone.tokenizer, word)
        assert torch.equal(after[ids[token]], before[piece])
    assert backbone.token_positions(PROMPT, "<lesion>") == [4]
    assert backbone.token_positions(PROMPT, "<skin>") == [6]


@pytest.mark.parametrize("init", ["mean", "first"])
def test_a_word_of_several_pieces_starts_as_their_mean_or_the_first(init):
    backbone = build(MINIATURE)
    pieces = word_pieces(backbone.tokenizer, "naevus")
    assert len(pieces) > 1
    before = rows(backbone)
    ids = add_placeholder_tokens(
        backbone.tokenizer, backbone.text_encoder, init, tokens={"<naevus>": "naevus"}
    )
    expected = before[pieces].mean(dim=0) if init == "mean" else before[pieces[0]]
    assert torch.allclose(rows(backbone)[ids["<naevus>"]], expected)


def test_adding_twice_changes_nothing():
    backbone = build(MINIATURE)
    first = add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
    with torch.no_grad():
        backbone.text_encoder.get_input_embeddings().weight[first["<skin>"]] = 7.0
    kept = rows(backbone)
    assert add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder) == first
    assert torch.equal(rows(backbone), kept)


def test_placeholders_survive_saving(tmp_path):
    from diffusers import StableDiffusionPipeline

    backbone = build(MINIATURE)
    ids = add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
    backbone.save(tmp_path / "tagged")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "tagged")
    for tokenizer in (pipeline.tokenizer, Backbone.load(tmp_path / "tagged").tokenizer):
        found = tokenizer(PROMPT).input_ids
        assert found == backbone.tokenizer(PROMPT).input_ids
        assert (found[4], found[6]) == (ids["<lesion>"], ids["<skin>"])


def test_an_unknown_start_is_refused():
    backbone = build(MINIATURE)
    with pytest.raises(ValueError, match="'mean' or 'first'"):
        add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder, init="last")
