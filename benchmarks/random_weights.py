"""Stable Diffusion's published architectures with random weights, for measurements and tests."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from didgen.backbone.handle import Backbone
from didgen.backbone.single_file import ARCHITECTURES
from didgen.backbone.tokenizer import build_tokenizer

NAMES = tuple(sorted(path.name for path in ARCHITECTURES.iterdir()))


def random_backbone(name: str = "sd21-base", half: bool = False, seed: int = 0) -> Backbone:
    """A random backbone of a published configuration: "sd15" or "sd21-base".

    `half` halves the UNet's channels and heads (a quarter of the weights; the same layers at the
    same resolutions). The tokenizer is the tiny backbone's, whose ids are among CLIP's.

    Raises: ValueError for another name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown architecture {name!r}: expected one of {', '.join(NAMES)}")
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = str(ARCHITECTURES / name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changes = _halved(folder) if half else {}
        unet = diffusers.UNet2DConditionModel.from_config(folder, subfolder="unet", **changes)
        vae = diffusers.AutoencoderKL.from_config(folder, subfolder="vae")
        config = CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder")
        with TemporaryDirectory() as words:
            tokenizer = build_tokenizer(Path(words))
        parts = {"vae": vae, "unet": unet, "text_encoder": CLIPTextModel(config)}
    for part in parts.values():
        part.eval().requires_grad_(False)
    scheduler = diffusers.PNDMScheduler.from_pretrained(folder, subfolder="scheduler")
    return Backbone(**parts, tokenizer=tokenizer, scheduler=scheduler)


def _halved(folder: str) -> dict[str, Any]:
    import diffusers

    config = diffusers.UNet2DConditionModel.load_config(folder, subfolder="unet")
    heads = config["attention_head_dim"]
    return {
        "block_out_channels": [channels // 2 for channels in config["block_out_channels"]],
        # Diffusers reads these as numbers of heads: 5 becomes 2, the others halve.
        "attention_head_dim": [max(1, h // 2) for h in heads] if isinstance(heads, list) else heads,
    }
