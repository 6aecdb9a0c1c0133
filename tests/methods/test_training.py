import math
import os
import signal

import pytest
import torch

from didgen.methods.didgen import training
from didgen.methods.didgen.training import shares
from didgen.runtime.memory import OutOfMemory
from didgen.runtime.reproducible import deterministic_kernels
from didgen.training.loop import TrainingStopped
from didgen.training.optimization import NonFiniteLoss
from didgen.training.processes import ALONE
from didgen.training.state import BrokenState
from tests.methods.made_up import made_up_settings


def numbers(curve):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


def weights(backbone):
    return {name: value.clone() for name, value in backbone.unet.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_resumed_training_is_the_undisturbed_one(train, tmp_path):
    options = {"ema": 0.9, "flips": True, "offset_noise": 0.1, "snr_gamma": 5.0}
    straight, expected = train(**options)
    train(tmp_path / "parts", steps=2, **options)
    resumed, found = train(tmp_path / "parts", **options)
    assert numbers(resumed) == numbers(straight)
    assert same(weights(found), weights(expected))


def test_sigterm_saves_after_the_step_and_the_next_run_goes_on(train, tmp_path):
    def end(done):
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped) as stopped:
        train(tmp_path / "s", measure=end, every=2, checkpoint_every=100)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    # The signal came after the second step's save: it is answered after the third.
    assert [p.name for p in (tmp_path / "s").glob("step-*")] == ["step-0000003"]
    resumed, _ = train(tmp_path / "s", checkpoint_every=100)
    assert numbers(resumed) == numbers(train()[0])


def test_accumulation_changes_memory_and_not_the_result(train):
    whole, one = train()
    parts, other = train(accumulation=2)
    for a, b in zip(numbers(whole), numbers(parts), strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-7)
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(other)[name], atol=2e-4)


@pytest.mark.parametrize("option", ["gradient_checkpointing", "channels_last"])
def test_ways_to_compute_change_nothing_beyond_rounding(train, option):
    plain, _ = train()
    other, backbone = train(**{option: True})
    for a, b in zip(numbers(plain), numbers(other), strict=True):
        assert b == pytest.approx(a, rel=2e-3, abs=1e-6)
    assert not backbone.unet.is_gradient_checkpointing
    assert backbone.unet.conv_in.weight.is_contiguous()


def test_averaged_weights_are_what_is_kept(train):
    _, last = train()
    _, averaged = train(ema=0.999)
    assert not same(weights(last), weights(averaged))
    # After step t the average has moved by 1 - min(0.999, (1 + t) / (10 + t)) of the way.
    assert all(torch.isfinite(value).all() for value in weights(averaged).values())


def test_lora_trains_the_attention_alone_and_leaves_a_plain_model(train, fresh, tmp_path):
    pytest.importorskip("peft")
    curve, backbone = train(lora_rank=2, learning_rate=1e-2)
    before, after = weights(fresh()), weights(backbone)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".attn" in name and "to_" in name for name in changed)
    assert curve[0]["grad_norm"] > 0
    backbone.save(tmp_path / "merged")
    from diffusers import StableDiffusionPipeline

    opened = StableDiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert same(opened.unet.state_dict(), after)


def test_lora_repeats_and_resumes_from_its_small_state(train, tmp_path):
    pytest.importorskip("peft")
    straight, expected = train(lora_rank=2)
    torch.rand(1)  # what an adapter starts from follows from the seed alone
    train(tmp_path / "s", lora_rank=2, steps=2)
    state = next((tmp_path / "s").glob("step-*"))
    assert (state / "unet.safetensors").stat().st_size < 100_000
    resumed, found = train(tmp_path / "s", lora_rank=2)
    assert numbers(resumed) == numbers(straight)
    assert same(weights(found), weights(expected))


def test_a_step_is_held_to_kernels_that_repeat(train, fresh):
    """On a processor too, where every operation of a step has one: a GPU has the same ones."""
    backbone, seen = fresh(), []

    def see(*_):
        seen.append(torch.is_deterministic_algorithms_warn_only_enabled())

    backbone.unet.conv_out.register_forward_hook(see)
    backbone.unet.conv_out.register_full_backward_hook(see)
    with deterministic_kernels("cuda"):
        curve, _ = train(backbone=backbone, steps=1)
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert seen == [False, False] and numbers(curve) == numbers(train(steps=1)[0])


def test_the_loss_falls(train):
    curve, _ = train(steps=30, alpha=1.0, prompt_dropout=0.0)
    early, late = curve[:5], curve[-5:]
    assert sum(row["loss_attn"] for row in late) < sum(row["loss_attn"] for row in early)


def test_a_gradient_that_is_not_finite_leaves_the_weights_and_the_state_alone(
    train, tmp_path, fresh
):
    train(tmp_path / "s", steps=2)
    backbone = fresh()
    backbone.unet.conv_out.weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(NonFiniteLoss, match=r"step 3: the gradient's norm is nan; .*learning_rate"):
        train(tmp_path / "s", backbone=backbone)
    assert [p.name for p in (tmp_path / "s").glob("step-*")] == ["step-0000002"]
    assert all(torch.isfinite(p).all() for p in backbone.unet.parameters())


def test_a_damaged_state_is_named(train, tmp_path):
    train(tmp_path / "s", steps=2)
    weights_file = next((tmp_path / "s").glob("step-*")) / "unet.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:1000])
    with pytest.raises(BrokenState, match="delete the folder"):
        train(tmp_path / "s")


def test_a_state_of_other_weights_is_refused(train, tmp_path):
    pytest.importorskip("peft")
    train(tmp_path / "s", steps=2)
    with pytest.raises(BrokenState, match="on one side only"):
        train(tmp_path / "s", lora_rank=2)


def test_batches_that_cannot_be_shared_are_refused(train):
    with pytest.raises(ValueError, match="multiple of processes times accumulation, 1 x 3 = 3"):
        train(accumulation=3)


def test_shares_cover_the_batch_in_order():
    class OneOfTwo:
        size, rank = 2, 1

    settings = made_up_settings(batch_size=8, accumulation=2)
    assert shares(settings, OneOfTwo()) == [slice(4, 6), slice(6, 8)]
    assert shares(settings, ALONE) == [slice(0, 4), slice(4, 8)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_eight_bit_state_wants_a_gpu(train):
    with pytest.raises(ValueError, match="CUDA"):
        train(optimizer="adamw8bit")


def test_memory_that_runs_out_before_the_first_step_is_explained(train, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "build_optimizer", full)
    with pytest.raises(OutOfMemory, match="finetune.accumulation"):
        train()
