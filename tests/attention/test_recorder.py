import functools
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from didgen.attention.layers import AttentionRecordingError
from didgen.attention.recorder import AttentionRecorder

BOTH = {"cross": {"resolution": 16, "positions": [4, 6]}, "self_": {"resolution": 32}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_is_bitwise_the_same(new_unet, inputs, dtype):
    unet = new_unet().to(dtype)
    latents, timestep, embeddings = inputs(2, dtype)
    with torch.no_grad():
        plain = unet(latents, timestep, embeddings).sample
        with AttentionRecorder(unet, **BOTH) as recorder:
            recorded = unet(latents, timestep, embeddings).sample
            again = recorder.run(latents, timestep, embeddings)
        assert torch.equal(plain, recorded)
        assert torch.equal(plain, again)
        assert recorder.cross_maps().dtype == torch.float32


def test_shapes_and_layer_counts(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    with torch.no_grad(), AttentionRecorder(unet, **BOTH) as recorder:
        unet(sample=latents, timestep=timestep, encoder_hidden_states=embeddings)
    assert recorder.cross_maps().shape == (2, 2, 16, 16)
    assert recorder.cross_maps([1]).shape == (2, 1, 16, 16)
    assert recorder.apply_self_attention(torch.ones(2, 1024)).shape == (2, 1024)
    assert len(recorder.captures("cross")) == len(recorder.captures("self")) == 3
    torch.testing.assert_close(recorder.cross_maps(range(12)).sum(1), torch.ones(2, 16, 16))


def test_oblong_latents_give_oblong_maps(unet, inputs):
    latents, timestep, embeddings = inputs(1, height=32, width=48)
    with torch.no_grad(), AttentionRecorder(unet, **BOTH) as recorder:
        unet(latents, timestep, embeddings)
    assert recorder.cross_maps().shape == (1, 2, 16, 24)
    assert recorder.self_grid == (32, 48)


def test_maps_and_their_gradient_equal_the_layers_own_attention(new_unet, inputs):
    """The same maps, written out from each layer's input by a replaced forward."""
    unet = new_unet().double()
    latents, timestep, embeddings = inputs(1, torch.float64)
    latents.requires_grad_()
    inputs_seen = {}

    def see(module, args, kwargs, name):
        inputs_seen[name] = (args[0], kwargs.get("encoder_hidden_states"))

    with AttentionRecorder(unet, **BOTH) as recorder:
        handles = [
            unet.get_submodule(c).register_forward_pre_hook(
                functools.partial(see, name=c), with_kwargs=True
            )
            for c in recorder.layers_for((32, 32))
        ]
        unet(latents, timestep, embeddings)
        maps = recorder.cross_maps()
        v = torch.linspace(0, 1, 1024, dtype=torch.float64)[None]
        applied = recorder.apply_self_attention(v)
    for handle in handles:
        handle.remove()

    def explicit(name):
        attention = unet.get_submodule(name)
        hidden, text = inputs_seen[name]
        scores = [
            torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
            for q, k in zip(
                attention.to_q(hidden).chunk(attention.heads, -1),
                attention.to_k(hidden if text is None else text).chunk(attention.heads, -1),
                strict=True,
            )
        ]
        return torch.stack(scores).mean(0)

    cross = torch.stack([explicit(c.layer.name) for c in recorder.captures("cross")]).mean(0)
    own = torch.stack([explicit(c.layer.name) for c in recorder.captures("self")]).mean(0)
    expected_maps = cross[..., [4, 6]].mT.unflatten(-1, (16, 16))
    torch.testing.assert_close(maps, expected_maps)
    torch.testing.assert_close(applied, (own @ v.unsqueeze(-1)).squeeze(-1))
    weights = torch.linspace(-1, 1, 256, dtype=torch.float64).view(16, 16)
    for ours, theirs in ((maps * weights, expected_maps * weights), (applied**2, (own @ v.T) ** 2)):
        (a,) = torch.autograd.grad(ours.sum(), latents, retain_graph=True)
        (b,) = torch.autograd.grad(theirs.sum(), latents, retain_graph=True)
        assert float(a.abs().max()) > 0
        torch.testing.assert_close(a, b)


def test_early_exit_gives_the_same_maps_and_runs_less(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    ran = []
    handle = unet.conv_out.register_forward_hook(lambda *_: ran.append(1))
    request = {"cross": {"resolution": 16, "positions": [4, 6]}}
    with torch.no_grad(), AttentionRecorder(unet, **request) as recorder:
        output = recorder.run(latents, timestep, embeddings)
        full = recorder.cross_maps()
        assert len(ran) == 1 and output.shape == latents.shape
        assert recorder.run(latents, timestep, embeddings, early_exit=True) is None
        assert len(ran) == 1
        assert torch.equal(recorder.cross_maps(), full)
        unet(latents, timestep, embeddings)
        assert len(ran) == 2
    handle.remove()


def test_hooks_are_gone_on_every_exit_path(unet, inputs, count_hooks):
    latents, timestep, embeddings = inputs(1)
    before = count_hooks(unet)
    with torch.no_grad(), AttentionRecorder(unet, **BOTH) as recorder:
        assert count_hooks(unet) > before
        recorder.run(latents, timestep, embeddings, early_exit=True)
    assert count_hooks(unet) == before
    with pytest.raises(KeyboardInterrupt), AttentionRecorder(unet, **BOTH):
        raise KeyboardInterrupt
    assert count_hooks(unet) == before
    with pytest.raises(RuntimeError), AttentionRecorder(unet, **BOTH) as recorder:
        unet(latents, timestep, embeddings[..., :5])
    assert count_hooks(unet) == before
    with pytest.raises(AttentionRecordingError, match="nothing is recorded"):
        recorder.cross_maps()


def test_recorder_can_be_used_again_after_an_error_inside_the_pass(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    with torch.no_grad(), AttentionRecorder(unet, **BOTH) as recorder:
        with pytest.raises(RuntimeError):
            unet(latents, timestep, embeddings[..., :5])
        unet(latents, timestep, embeddings)
        assert recorder.cross_maps().shape == (1, 2, 16, 16)


def test_no_layer_at_the_resolution_is_an_error(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    with (
        pytest.raises(AttentionRecordingError, match="32x32, 16x16, 8x8"),
        AttentionRecorder(unet, cross={"resolution": 64}),
    ):
        unet(latents, timestep, embeddings)


@pytest.mark.parametrize("asked", [16, {}, {"resolution": None}, {"resolution": "16"}])
@pytest.mark.parametrize("kind", ["cross", "self_"])
def test_requests_that_are_none_are_refused_at_once(unet, kind, asked):
    with pytest.raises(AttentionRecordingError, match=f"{kind}: found .*expected a dict"):
        AttentionRecorder(unet, **{kind: asked})
    with pytest.raises(AttentionRecordingError, match="unet: found a str"):
        AttentionRecorder("unet", **{kind: {"resolution": 16}})


def test_asking_for_nothing_or_for_what_was_not_asked(unet, inputs):
    with pytest.raises(AttentionRecordingError, match="got neither"):
        AttentionRecorder(unet)
    with torch.no_grad(), AttentionRecorder(unet, cross={"resolution": 16}) as recorder:
        with pytest.raises(AttentionRecordingError, match="run the UNet first"):
            recorder.cross_maps([1])
        unet(*inputs(1))
        with pytest.raises(AttentionRecordingError, match="which token positions"):
            recorder.cross_maps()
        with pytest.raises(AttentionRecordingError, match="self-attention was not asked"):
            recorder.apply_self_attention(torch.ones(1, 1024))
        with pytest.raises(AttentionRecordingError, match="already in use"), recorder:
            pass
    with pytest.raises(AttentionRecordingError, match="needs the context"):
        recorder.run(*inputs(1))


def test_attention_masks_are_refused(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    with (
        pytest.raises(AttentionRecordingError, match="encoder_attention_mask"),
        AttentionRecorder(unet, **BOTH),
    ):
        unet(latents, timestep, embeddings, encoder_attention_mask=torch.ones(1, 12))


def map_gradient(unet, inputs, early_exit=False):
    """Gradient of a function of the recorded maps to a weight and to the latents."""
    latents, timestep, embeddings = inputs(1)
    latents.requires_grad_()
    weight = unet.conv_in.weight.requires_grad_()
    weight.grad = None
    with AttentionRecorder(unet, **BOTH) as recorder:
        recorder.run(latents, timestep, embeddings, early_exit=early_exit)
        v = torch.linspace(0, 1, 1024)[None]
        loss = recorder.cross_maps().square().sum() + recorder.apply_self_attention(v)[0, 3]
        loss.backward()
        kept = recorder.cross_maps()
    return weight.grad.clone(), latents.grad, kept


def test_non_reentrant_checkpointing_keeps_the_gradient(new_unet, inputs):
    unet = new_unet()
    expected = map_gradient(unet, inputs)
    unet.train()
    unet.enable_gradient_checkpointing()
    for early_exit in (False, True):
        for found, wanted in zip(map_gradient(unet, inputs, early_exit), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_reentrant_checkpointing_is_refused(new_unet, inputs):
    unet = new_unet().train()
    unet.enable_gradient_checkpointing(functools.partial(checkpoint, use_reentrant=True))
    with pytest.raises(AttentionRecordingError, match="reentrant"):
        map_gradient(unet, inputs)


def test_passes_of_another_thread_are_not_recorded(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    with torch.no_grad(), AttentionRecorder(unet, **BOTH) as recorder:
        unet(latents, timestep, embeddings)
        before = recorder.cross_maps()

        def elsewhere():
            with torch.no_grad():
                unet(latents + 1, timestep, embeddings)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert torch.equal(recorder.cross_maps(), before)


def test_the_graph_can_stop_at_the_last_layer(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    found = {}
    for stop in (False, True):
        z = latents.clone().requires_grad_()
        with AttentionRecorder(unet, **BOTH, path="down") as recorder:
            output = recorder.run(z, timestep, embeddings, stop_graph=stop)
            assert torch.is_grad_enabled()
            assert output.requires_grad is not stop
            loss = recorder.cross_maps()[:, 0].square().sum()
            (gradient,) = torch.autograd.grad(loss, z)
        found[stop] = output.detach(), gradient
    assert torch.equal(found[True][0], found[False][0])
    torch.testing.assert_close(found[True][1], found[False][1])


def test_a_path_reads_fewer_layers(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    counts = {}
    for path in ("all", "to-coarse", "down"):
        seen = []
        handle = unet.up_blocks[1].register_forward_hook(lambda *_, seen=seen: seen.append(1))
        with torch.no_grad(), AttentionRecorder(unet, **BOTH, path=path) as recorder:
            assert recorder.run(latents, timestep, embeddings, early_exit=True) is None
            counts[path] = len(recorder.captures("cross")), len(recorder.captures("self")), seen
        handle.remove()
    assert counts == {"all": (3, 3, [1]), "to-coarse": (3, 1, []), "down": (1, 1, [])}
