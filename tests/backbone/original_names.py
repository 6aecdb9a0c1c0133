"""The names that Stable Diffusion's own code gives to the weights of a diffusers model.

Four levels of two layers, as in every Stable Diffusion 1.x and 2.x.
"""

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_WHOLE = {
    "time_embedding.linear_1.": "time_embed.0.", "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.", "conv_norm_out.": "out.0.", "conv_out.": "out.2.",
    "mid_block.attentions.0.": "middle_block.1.", "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.resnets.1.": "middle_block.2.",
}  # fmt: skip
_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.",
              "to_out.0.": "proj_out."}  # fmt: skip


def _unet_prefixes() -> dict[str, str]:
    found = dict(_WHOLE)
    for i in range(4):
        for j in range(2):
            found[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{3 * i + j + 1}.0."
            found[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{3 * i + j + 1}.1."
        for j in range(3):
            found[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{3 * i + j}.0."
            found[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{3 * i + j}.1."
        found[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{3 * (i + 1)}.0.op."
        found[f"up_blocks.{i}.upsamplers.0."] = f"output_blocks.{3 * i + 2}.{2 if i else 1}."
    return found


def _vae_prefixes() -> dict[str, str]:
    found = {}
    for side in ("encoder", "decoder"):
        found[f"{side}.mid_block.attentions.0."] = f"{side}.mid.attn_1."
        found[f"{side}.conv_norm_out."] = f"{side}.norm_out."
        for j in range(2):
            found[f"{side}.mid_block.resnets.{j}."] = f"{side}.mid.block_{j + 1}."
    for i in range(4):
        for j in range(2):
            found[f"encoder.down_blocks.{i}.resnets.{j}."] = f"encoder.down.{i}.block.{j}."
        for j in range(3):
            found[f"decoder.up_blocks.{i}.resnets.{j}."] = f"decoder.up.{3 - i}.block.{j}."
        found[f"encoder.down_blocks.{i}.downsamplers.0."] = f"encoder.down.{i}.downsample."
        found[f"decoder.up_blocks.{i}.upsamplers.0."] = f"decoder.up.{3 - i}.upsample."
    return found


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def original(unet: dict, vae: dict, text_encoder: dict) -> dict[str, Tensor]:
    """One checkpoint of three state dicts of diffusers."""
    found = {}
    for name, value in unet.items():
        new = _renamed(name, _unet_prefixes())
        if ".resnets." in name:
            for old, other in _RESNET.items():
                new = new.replace(f".{old}.", f".{other}.")
        found[f"model.diffusion_model.{new}"] = value.clone()
    for name, value in vae.items():
        new = _renamed(name, _vae_prefixes())
        if ".attentions." in name:
            for old, other in _ATTENTION.items():
                new = new.replace(f".{old}", f".{other}")
            if value.ndim == 2:  # attention as 1x1 convolutions
                value = value[:, :, None, None]
        new = new.replace("conv_shortcut", "nin_shortcut")
        found[f"first_stage_model.{new}"] = value.clone()
    for name, value in text_encoder.items():
        name = "text_model." + name.removeprefix("text_model.")
        found[f"cond_stage_model.transformer.{name}"] = value.clone()
    return found
