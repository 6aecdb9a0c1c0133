"""The tiny backbone: shaped like Stable Diffusion 2.1, small enough for a CPU and a repository.

Like its model it has cross-attention at 16x16 and self-attention at 32x32, for images of 128 px.
"""

from dataclasses import dataclass

from diffusers import AutoencoderKL


@dataclass(frozen=True)
class TinyShape:
    """Widths and sizes of the tiny backbone.

    image_size: px. latent_downsampling is 4, so latents have a quarter of the side. The UNet has
    three levels: two with attention, at latent size and half of it, and a plain one.
    """

    image_size: int = 128
    autoencoder_channels: tuple[int, int, int] = (16, 32, 64)
    unet_channels: tuple[int, int, int] = (48, 96, 128)
    unet_heads: tuple[int, int, int] = (2, 4, 4)
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    groups: int = 8


def build_autoencoder(shape: TinyShape) -> AutoencoderKL:
    """An untrained autoencoder: three levels, four times smaller latents of 4 channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=list(shape.autoencoder_channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=shape.groups,
        sample_size=shape.image_size,
    )
