"""The arithmetic of a run: who chooses it, where it is kept."""

import pytest

from didgen.runtime import precision
from didgen.runtime.precision import pick_precision


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user's, and no file of a run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(precision.RUN_FILE, raising=False)
    precision.measured_choice.cache_clear()
    yield tmp_path / "didgen" / "precision"
    precision.measured_choice.cache_clear()


def _timing(monkeypatch, choice: str) -> list[str]:
    """Count how often a processor is timed; each time the choice is the one given."""
    calls = []

    def measure():
        calls.append(choice)
        return {"precision": choice, "reason": "a test"}

    monkeypatch.setattr(precision, "measure", measure)
    precision.measured_choice.cache_clear()
    return calls


def test_the_processor_is_timed_once_and_the_choice_is_kept(cache, monkeypatch) -> None:
    calls = _timing(monkeypatch, "bfloat16")
    assert pick_precision("auto", "cpu") == "bfloat16"
    assert len(list(cache.glob("*.json"))) == 1
    assert _timing(monkeypatch, "float32") == []
    assert pick_precision("auto", "cpu") == "bfloat16"
    assert calls == ["bfloat16"]


def test_what_is_asked_for_is_not_timed(cache) -> None:
    assert pick_precision("float32", "cpu") == "float32"
    assert pick_precision("bfloat16", "cpu") == "bfloat16"
    assert not cache.exists()


def test_a_run_keeps_its_choice_on_another_machine(cache, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(precision.RUN_FILE, str(tmp_path / "run" / "precision.json"))
    _timing(monkeypatch, "bfloat16")
    assert pick_precision("auto", "cpu") == "bfloat16"
    for path in cache.glob("*.json"):
        path.unlink()
    _timing(monkeypatch, "float32")
    assert pick_precision("auto", "cpu") == "bfloat16"


@pytest.mark.parametrize("text", ["{", "{}", "[]", "null", '{"precision": "float7"}', "\xff"])
def test_a_broken_cache_is_no_obstacle(cache, monkeypatch, caplog, text) -> None:
    _timing(monkeypatch, "float32")
    pick_precision("auto", "cpu")
    (path,) = cache.glob("*.json")
    path.write_text(text, encoding="latin-1")
    calls = _timing(monkeypatch, "bfloat16")
    assert pick_precision("auto", "cpu") == "bfloat16"
    assert calls and str(path) in caplog.text


def test_the_quicker_arithmetic_is_chosen() -> None:
    choice = precision.measure()
    times = choice.get("seconds", {"float32": 1.0, "bfloat16": 2.0})
    quicker = times["bfloat16"] < (1 - precision.WORTH) * times["float32"]
    assert choice["precision"] == ("bfloat16" if quicker else "float32")
