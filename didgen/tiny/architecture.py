"""The tiny backbone: shaped like Stable Diffusion 2.1, small enough for a CPU and a repository.

Like its model it has cross-attention at 16x16 and self-attention at 32x32, for images of 128 px.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from didgen.backbone.handle import Backbone
from didgen.backbone.tokenizer import MODEL_MAX_LENGTH, build_tokenizer


@dataclass(frozen=True)
class TinyShape:
    """Widths and sizes of the tiny backbone.

    image_size: px; latents have a quarter of the side and 4 channels. The UNet has three levels:
    two with attention, at the latents' size and half of it, and a plain one. One head at the
    first level: there attention over all cells is what costs most on a CPU.
    """

    image_size: int = 128
    autoencoder_channels: tuple[int, int, int] = (16, 32, 64)
    unet_channels: tuple[int, int, int] = (48, 96, 128)
    unet_heads: tuple[int, int, int] = (1, 4, 4)
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    autoencoder_groups: int = 8
    unet_groups: int = 16


MINIATURE = TinyShape(
    image_size=64,
    autoencoder_channels=(8, 8, 8),
    unet_channels=(8, 16, 16),
    unet_heads=(1, 2, 2),
    text_width=16,
    text_layers=1,
    text_heads=2,
    autoencoder_groups=4,
    unet_groups=4,
)
"""For tests: random weights, everything at its smallest; 64 px, latents 16x16."""


def build(
    shape: TinyShape | None = None,
    seed: int = 0,
    prediction_type: str = "epsilon",
    scaling_factor: float = 1.0,
) -> Backbone:
    """An untrained backbone of a shape, its weights drawn from the seed."""
    shape = shape or TinyShape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = build_tokenizer(Path(folder))
        return Backbone(
            vae=build_autoencoder(shape, scaling_factor).eval(),
            text_encoder=build_text_encoder(shape, tokenizer).eval(),
            tokenizer=tokenizer,
            unet=build_unet(shape).eval(),
            scheduler=build_scheduler(prediction_type),
        )


def build_autoencoder(shape: TinyShape, scaling_factor: float = 1.0) -> AutoencoderKL:
    """An untrained autoencoder: three levels, four times smaller latents of 4 channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=list(shape.autoencoder_channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=shape.autoencoder_groups,
        sample_size=shape.image_size,
        scaling_factor=scaling_factor,
    )


def build_unet(shape: TinyShape) -> UNet2DConditionModel:
    """An untrained UNet over latents of a quarter of the image's side."""
    return UNet2DConditionModel(
        sample_size=shape.image_size // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=list(shape.unet_channels),
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        # Despite its name diffusers reads this as the number of heads, as it does for SD 2.1.
        attention_head_dim=list(shape.unet_heads),
        cross_attention_dim=shape.text_width,
        use_linear_projection=True,
        norm_num_groups=shape.unet_groups,
    )


def build_text_encoder(shape: TinyShape, tokenizer: Any) -> CLIPTextModel:
    """An untrained CLIP text encoder for the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.text_width,
        intermediate_size=4 * shape.text_width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_heads,
        max_position_embeddings=MODEL_MAX_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """The noise schedule of Stable Diffusion; for v-prediction ending in pure noise.

    Stable Diffusion's own last step still shows tone and place of the image faintly, so that a
    model learns to read them there and not in the prompt. Rescaled to no signal at all (Lin et al.
    2024, Common Diffusion Noise Schedules and Sample Steps are Flawed) it has to read the prompt.
    Epsilon-prediction can't begin from pure noise and keeps Stable Diffusion's schedule.
    """
    from_noise = prediction_type == "v_prediction"
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=from_noise,
        timestep_spacing="trailing" if from_noise else "leading",
    )
