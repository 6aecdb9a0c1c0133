"""Backbones of a given architecture with random weights and no text encoder, for timing.

"sd21": the UNet of Stable Diffusion 2.1-base, 866 million weights. "sd21-half": the same with
half as many channels. "tiny": the packaged backbone's UNet. Shapes: B batch, T positions, D width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

import didgen.backbone
from didgen.backbone.handle import Backbone
from didgen.tiny.architecture import TinyShape, build_scheduler, build_unet

NAMES = ("tiny", "sd21", "sd21-half")
TEXT_LENGTH = 77
SD21 = Path(didgen.backbone.__file__).parent / "architectures/sd21-base/unet/config.json"


@dataclass(frozen=True, repr=False)
class RandomBackbone(Backbone):
    """A backbone whose text is noise: the same for the same prompt."""

    def embed(self, prompts: list[str]) -> Tensor:
        """Standard normal embeddings BTD, one draw a prompt."""
        width = self.unet.config.cross_attention_dim
        rows = []
        for prompt in prompts:
            generator = torch.Generator().manual_seed(sum(prompt.encode()))
            rows.append(torch.randn(TEXT_LENGTH, width, generator=generator))
        return torch.stack(rows).to(self.device, self.dtype)


def random_backbone(name: str, device: str | torch.device = "cpu") -> RandomBackbone:
    """A backbone of one of NAMES, frozen, in float32."""
    if name == "tiny":
        torch.manual_seed(0)
        unet, channels = build_unet(TinyShape()).to(device), [16, 32, 64]
    else:
        unet, channels = _sd21_unet(half=name == "sd21-half", device=device), [128, 256, 512, 512]
    with torch.device("meta"):  # the autoencoder is asked for its shape only
        vae = AutoencoderKL(
            block_out_channels=channels,
            down_block_types=["DownEncoderBlock2D"] * len(channels),
            up_block_types=["UpDecoderBlock2D"] * len(channels),
            norm_num_groups=8,
            latent_channels=4,
        )
    width = unet.config.cross_attention_dim
    text = SimpleNamespace(
        config=SimpleNamespace(hidden_size=width, max_position_embeddings=TEXT_LENGTH)
    )
    return RandomBackbone(
        vae=vae,
        text_encoder=text,
        tokenizer=None,
        unet=unet.eval().requires_grad_(False),
        scheduler=build_scheduler(),
    )


def _sd21_unet(half: bool, device: str | torch.device) -> UNet2DConditionModel:
    config = {k: v for k, v in json.loads(SD21.read_text()).items() if not k.startswith("_")}
    if half:
        config["block_out_channels"] = [width // 2 for width in config["block_out_channels"]]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    unet = unet.to_empty(device=device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
    return unet
