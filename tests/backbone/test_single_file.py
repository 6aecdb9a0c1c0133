"""Single .safetensors checkpoints under the names of Stable Diffusion's own code."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

from didgen.backbone.folder import BackboneError
from didgen.backbone.handle import Backbone
from didgen.backbone.loading import load_tokenizer
from didgen.backbone.single_file import ARCHITECTURES, architecture
from didgen.backbone.tokenizer import build_tokenizer
from didgen.tiny.architecture import MINIATURE, build, build_text_encoder
from tests.backbone.original_names import original


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random model of Stable Diffusion's four levels, at its smallest."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tmp_path_factory.mktemp("words"))
    cross = ["CrossAttnDownBlock2D"] * 3
    return Backbone(
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=[4, 4, 4, 4], layers_per_block=2,
            down_block_types=[*cross, "DownBlock2D"], norm_num_groups=2, attention_head_dim=2,
            up_block_types=["UpBlock2D", *(c.replace("Down", "Up") for c in cross)],
            cross_attention_dim=MINIATURE.text_width, use_linear_projection=True,
        ),
        vae=AutoencoderKL(
            block_out_channels=[4, 4, 4, 4], layers_per_block=2, norm_num_groups=2,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            latent_channels=4, sample_size=64,
        ),
        text_encoder=build_text_encoder(MINIATURE, tokenizer),
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(prediction_type="v_prediction", skip_prk_steps=True),
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    """Its checkpoint, with the folder of its configuration beside it."""
    folder = tmp_path_factory.mktemp("single")
    small.save(folder / "model")
    for weights in (folder / "model").rglob("*.safetensors"):
        weights.unlink()
    states = (part.state_dict() for part in (small.unet, small.vae, small.text_encoder))
    save_file(original(*states), folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_checkpoint_opens_with_the_same_weights(checkpoint, small):
    opened = Backbone.load(checkpoint)
    assert opened.checksum() == small.checksum()
    assert opened.prediction_type == "v_prediction"
    for name in ("vae", "text_encoder"):
        expected, found = getattr(small, name).state_dict(), getattr(opened, name).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not any(p.requires_grad for part in opened.modules() for p in part.parameters())
    assert load_tokenizer(checkpoint)("skin").input_ids == small.tokenizer("skin").input_ids


def test_a_checkpoint_without_some_weights_is_refused(checkpoint, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(checkpoint)
    tensors = {k: v for k, v in tensors.items() if "first_stage_model.decoder.mid" not in k}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "model").symlink_to(checkpoint.with_suffix(""))
    with pytest.raises(BackboneError):
        Backbone.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("width", "channels", "expected"),
    [(768, 4, "sd15"), (1024, 4, "sd21-base"), (2048, 4, None), (1024, 9, None)],
)
def test_the_architecture_is_told_by_shapes(tmp_path, width, channels, expected):
    root = "model.diffusion_model.input_blocks"
    tensors = {
        f"{root}.0.0.weight": torch.zeros(2, channels, 3, 3),
        f"{root}.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(2, width),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    if expected:
        assert architecture(tmp_path / "m.safetensors") == expected
    else:
        with pytest.raises(BackboneError, match=f"{channels} channels and text of width {width}"):
            architecture(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("name", "pad"), [("sd15", 49407), ("sd21-base", 0)])
def test_clips_own_tokenizer_is_built_without_a_network(tmp_path, name, pad):
    pytest.importorskip("open_clip")
    from transformers import CLIPTokenizer

    from didgen.backbone.single_file import write_clip_tokenizer

    write_clip_tokenizer(tmp_path, ARCHITECTURES / name / "tokenizer" / "tokenizer_config.json")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 49408 and tokenizer.pad_token_id == pad
    # "lesion" is two pieces to CLIP, "skin" is one.
    assert tokenizer("lesion skin").input_ids == [49406, 534, 1015, 3575, 49407]


@pytest.mark.parametrize(
    ("name", "unet", "text"),
    [("sd15", 859_520_964, 123_060_480), ("sd21-base", 865_910_724, 340_387_840)],
)
def test_packaged_configurations_are_the_published_ones(name, unet, text):
    """By their numbers of parameters."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = ARCHITECTURES / name
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(str(folder), subfolder="unet")
        config = CLIPTextConfig.from_pretrained(str(folder), subfolder="text_encoder")
        encoder = CLIPTextModel(config)
        vae = AutoencoderKL.from_config(str(folder), subfolder="vae")
    assert sum(p.numel() for p in model.parameters()) == unet
    assert sum(p.numel() for p in encoder.parameters()) == text
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    index = json.loads((folder / "model_index.json").read_text())
    assert set(build(MINIATURE).__dict__) <= set(index)
