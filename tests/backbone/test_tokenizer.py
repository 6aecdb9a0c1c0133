import pytest

from didgen.backbone.tokenizer import (
    WORDS,
    alphabet,
    build_tokenizer,
    learn_merges,
    merge_pair,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)


def test_merging_a_pair_joins_every_occurrence_from_left_to_right():
    assert merge_pair(["a", "b", "a", "b", "c"], ("a", "b")) == ["ab", "ab", "c"]
    assert merge_pair(["a", "a", "a"], ("a", "a")) == ["aa", "a"]


def test_the_commonest_pair_is_merged_first_and_ties_go_by_spelling():
    # "n</w>" follows "a" twice; ("c", "an</w>") and ("p", "an</w>") then tie.
    assert learn_merges(["can", "pan"]) == [("a", "n</w>"), ("c", "an</w>"), ("p", "an</w>")]


def test_words_other_than_lower_case_letters_are_refused():
    with pytest.raises(ValueError, match="blue-gray"):
        learn_merges(["red", "blue-gray"])


def test_the_alphabet_has_a_printable_character_for_each_byte():
    characters = alphabet()
    assert len(set(characters)) == 256
    assert characters[0] == "!"
    assert all(len(c) == 1 and not c.isspace() for c in characters)


def test_every_listed_word_is_one_token(tokenizer):
    split = [word for word in set(WORDS.split()) if len(pieces(tokenizer, word)) != 1]
    assert split == []


def test_case_does_not_matter_and_words_end_with_a_mark(tokenizer):
    assert pieces(tokenizer, "An IMAGE") == ["an</w>", "image</w>"]


def test_start_and_end_tokens_surround_a_text_and_pad_it(tokenizer):
    ids = tokenizer("skin", padding="max_length", max_length=5).input_ids
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids[0] == start
    assert ids[2:] == [end, end, end]
    assert (start, end) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert tokenizer.model_max_length == 77


@pytest.mark.parametrize("text", ["zweifel", "naïve läsion", "数字 7", "🙂"])
def test_unknown_text_is_spelled_and_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_building_twice_gives_the_same_files(tokenizer, tmp_path):
    again = build_tokenizer(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    lines = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#version: 0.2"
    assert all(len(line.split(" ")) == 2 for line in lines[1:])
