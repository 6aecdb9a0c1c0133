import pytest
import torch
from diffusers import UNet2DConditionModel

from didgen.attention.layers import (
    AttentionRecordingError,
    attention_layers,
    check_readable,
    restrict_layers,
    select_layers,
)
from didgen.attention.recorder import AttentionRecorder

SD21 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


def test_layers_come_in_the_order_of_execution(unet):
    layers = list(attention_layers(unet, 32).values())
    assert [(layer.kind, layer.resolution) for layer in layers] == [
        (kind, side) for side in (32, 16, 8, 16, 16, 32, 32) for kind in ("self", "cross")
    ]
    assert layers[0].name == "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert all(unet.get_submodule(layer.name).heads == layer.heads == 4 for layer in layers)


def test_order_is_the_one_seen_at_run_time(unet, inputs):
    seen = []
    names = list(attention_layers(unet, 32))
    handles = [
        unet.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
        for name in names
    ]
    latents, timestep, embeddings = inputs(1)
    with torch.no_grad():
        unet(latents, timestep, embeddings)
    for handle in handles:
        handle.remove()
    assert seen == names


def test_odd_and_oblong_latents_round_up(unet):
    grids = [layer.grid for layer in attention_layers(unet, (33, 48)).values()]
    assert sorted(set(grids)) == [(9, 12), (17, 24), (33, 48)]
    assert select_layers(attention_layers(unet, (32, 48)), "self", 16)[0].grid == (16, 24)
    assert len(select_layers(attention_layers(unet, (32, 48)), "self", (16, 24))) == 3


def test_missing_resolution_names_those_that_exist(unet):
    with pytest.raises(AttentionRecordingError, match="64.*32x32, 16x16, 8x8"):
        select_layers(attention_layers(unet, 32), "cross", 64)


def test_wrapped_unet_is_refused(unet):
    with pytest.raises(AttentionRecordingError, match="bare UNet2DConditionModel"):
        attention_layers(torch.nn.Sequential(unet), 32)


def test_unreadable_layers_are_refused(new_unet):
    unet = new_unet()
    name = next(iter(attention_layers(unet, 32)))
    attention = unet.get_submodule(name)
    check_readable(name, attention)
    attention.norm_q = torch.nn.LayerNorm(8)
    with pytest.raises(AttentionRecordingError, match="normalizes its queries"):
        check_readable(name, attention)
    attention.norm_q = None
    attention.added_kv_proj_dim = 8
    with pytest.raises(AttentionRecordingError, match="added key/value"):
        check_readable(name, attention)
    attention.added_kv_proj_dim = None
    attention.processor = type("IPAdapterAttnProcessor", (), {})()
    with pytest.raises(AttentionRecordingError, match="IPAdapterAttnProcessor"):
        check_readable(name, attention)


def test_fused_projections_are_refused(new_unet, inputs):
    unet = new_unet()
    unet.fuse_qkv_projections()
    latents, timestep, embeddings = inputs(1)
    with (
        pytest.raises(AttentionRecordingError, match="fused"),
        AttentionRecorder(unet, cross={"resolution": 16}),
    ):
        unet(latents, timestep, embeddings)


@pytest.mark.slow
def test_stable_diffusion_2_1_layers_at_512_pixels():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD21)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    layers = attention_layers(unet, 64)
    cross = select_layers(layers, "cross", 16)
    itself = select_layers(layers, "self", 32)
    assert [layer.heads for layer in cross] == [20] * 5
    assert [layer.heads for layer in itself] == [10] * 5
    assert {layer.name.split(".attentions")[0] for layer in cross} == {
        "down_blocks.2",
        "up_blocks.1",
    }
    with (
        torch.device("meta"),
        torch.no_grad(),
        AttentionRecorder(unet, cross={"resolution": 16}, self_={"resolution": 32}) as recorder,
    ):
        # The forward pass checks every query's length against the static answer.
        unet(torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 1024))
        assert len(recorder.captures("cross")) == len(recorder.captures("self")) == 5


def test_paths_of_stable_diffusion_end_sooner():
    with torch.device("meta"):
        layers = attention_layers(UNet2DConditionModel(**SD21), 64)
    wanted = {layer.name for layer in select_layers(layers, "cross", 16)}
    wanted |= {layer.name for layer in select_layers(layers, "self", 32)}
    in_order = [layer for layer in layers.values() if layer.name in wanted]

    def blocks(path):
        kept = restrict_layers(in_order, path)
        return [(layer.kind, layer.name.split(".attentions")[0]) for layer in kept]

    down = [("self", "down_blocks.1")] * 2 + [("cross", "down_blocks.2")] * 2
    assert blocks("down") == down
    assert blocks("to-coarse") == down + [("cross", "up_blocks.1")] * 3
    assert blocks("all") == blocks("to-coarse") + [("self", "up_blocks.2")] * 3


def test_a_path_without_a_wanted_kind_is_refused(unet):
    layers = list(attention_layers(unet, 32).values())
    up_only = [la for la in layers if la.kind == "cross" and la.name.startswith("up_blocks.1")]
    with pytest.raises(AttentionRecordingError, match="no cross-attention layer.*read 'all'"):
        restrict_layers(
            [*select_layers({la.name: la for la in layers}, "self", 32), *up_only], "down"
        )
    with pytest.raises(AttentionRecordingError, match="unknown path 'up'"):
        restrict_layers(layers, "up")
