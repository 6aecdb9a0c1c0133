import pytest
from pydantic import ValidationError

from didgen.settings.base import SettingsSection, Words


class Inner(SettingsSection):
    rate: float | None = None


class Example(SettingsSection):
    steps: int = 1
    seeds: tuple[int, ...] = (0,)
    flag: bool = False
    either: bool | int = 3
    word: str | None = None
    inner: Inner = Inner()
    words: Words = {}


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"steps": True}, ("steps",), "found true, expected a whole number"),
        ({"seeds": (1, False)}, ("seeds",), "found false, expected a whole number"),
        ({"inner": {"rate": True}}, ("inner", "rate"), "found true, expected a number"),
    ],
)
def test_true_and_false_are_no_numbers(values, key, said):
    with pytest.raises(ValidationError) as told:
        Example.model_validate(values)
    (fault,) = told.value.errors()
    assert fault["loc"] == key and said in fault["msg"]


def test_true_and_false_stay_where_they_are_allowed():
    made = Example.model_validate({"flag": True, "either": True, "steps": 2, "inner": {"rate": 1}})
    assert made.flag is True and made.either is True
    assert (made.steps, made.inner.rate, made.word) == (2, 1.0, None)


def test_words_that_yaml_reads_as_numbers_are_text_again():
    made = Example.model_validate({"words": {0: "NV", 1: None, "mel": "MEL"}})
    assert made.words == {"0": "NV", "1": None, "mel": "MEL"}
    with pytest.raises(ValidationError, match='found true or false as a word.*as in "yes": MEL'):
        Example.model_validate({"words": {True: "MEL", False: "NV"}})
    with pytest.raises(ValidationError, match="valid string"):
        Example.model_validate({"words": {0.5: "NV"}})
