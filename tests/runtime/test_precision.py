"""Weights kept in bfloat16 give what autocast gives with weights in float32."""

import copy

import pytest
import torch

from didgen.runtime import precision
from didgen.runtime.precision import autocast, keep_products_in_half, pick_precision
from didgen.tiny.architecture import TinyShape, build_unet


def test_output_and_gradient_are_the_same_to_the_bit() -> None:
    torch.manual_seed(0)
    unet = build_unet(TinyShape()).eval().requires_grad_(False)
    held = copy.deepcopy(unet)
    keep_products_in_half(held)
    latents = torch.randn(2, unet.config.in_channels, 16, 16)
    embeddings = torch.randn(2, 77, unet.config.cross_attention_dim)
    found = []
    for each in (unet, held):
        z = latents.clone().requires_grad_()
        with autocast("cpu", "bfloat16"):
            output = each(z, 500, encoder_hidden_states=embeddings).sample
        (gradient,) = torch.autograd.grad(output.float().square().sum(), z)
        found.append((output.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_half_the_memory_and_the_same_number_type_for_latents() -> None:
    unet = build_unet(TinyShape())
    before = sum(p.numel() * p.element_size() for p in unet.parameters())
    keep_products_in_half(unet)
    after = sum(p.numel() * p.element_size() for p in unet.parameters())
    assert after < 0.55 * before
    assert next(unet.parameters()).dtype == torch.float32
    norms = [m for m in unet.modules() if isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm)]
    assert norms and {m.weight.dtype for m in norms} == {torch.float32}


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
