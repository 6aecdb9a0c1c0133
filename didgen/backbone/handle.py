"""One handle over a Stable Diffusion folder: encode, decode, embed, predict, find tokens.

Shapes: B batch, C channels, H and W pixels, h and w latent cells, T token positions, D text width.
Images are float in [-1, 1]; latents are scaled as the UNet wants them. Every size and factor is
read from the components' own configs.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from didgen.backbone.folder import BackboneError
from didgen.runtime.files import read_object, write_json

PREDICTION_TYPES = ("epsilon", "v_prediction")


class PromptTooLong(ValueError):
    """A prompt has more tokens than the text encoder reads."""


class TokenNotFound(ValueError):
    """A token whose attention is wanted does not occur in the prompt."""


@dataclass(frozen=True, repr=False)
class Backbone:
    """A text-to-image latent diffusion model of the Stable Diffusion 1.x or 2.x kind."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    scheduler: Any

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise BackboneError(
                f"the scheduler's prediction_type is {self.prediction_type!r}; expected one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        channels = self.unet.config.in_channels
        if channels != self.latent_channels:
            raise BackboneError(
                f"the UNet takes {channels} channels, the autoencoder gives "
                f"{self.latent_channels}: expected a text-to-image model (not one for inpainting)"
            )
        size, scale = self.unet.config.sample_size, self.vae.config.scaling_factor
        if not (isinstance(size, int) and size > 0):
            raise BackboneError(
                f"the UNet's sample_size is {size!r}, expected the side of the latents in cells; "
                "correct unet/config.json"
            )
        if not (isinstance(scale, int | float) and scale > 0):
            raise BackboneError(
                f"the autoencoder's scaling_factor is {scale!r}, expected a positive number; "
                "correct vae/config.json"
            )
        wanted, given = self.unet.config.cross_attention_dim, self._text_config.hidden_size
        if wanted != given:
            raise BackboneError(
                f"the UNet attends to text of width {wanted}, the text encoder gives {given}: "
                "expected the parts of one Stable Diffusion 1.x or 2.x model"
            )

    def __repr__(self) -> str:
        return (
            f"Backbone({self.image_size} px, latents {self.latent_shape}, {self.prediction_type})"
        )

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Open a diffusers folder, a hub id ("owner/name"), a single .safetensors file or "tiny".

        "tiny" is the packaged backbone. Only safetensors weights are read. Modules come in
        evaluation mode without gradients. `local_files_only` never asks the hub.

        Raises: BackboneError when the source is no such model, lacks a part or is damaged.
        """
        from didgen.backbone.loading import open_parts

        parts = open_parts(source, dtype, revision, local_files_only)
        for module in (parts["vae"], parts["text_encoder"], parts["unet"]):
            module.to(device)
        return cls(**parts)

    def save(self, path: str | Path) -> None:
        """Write a folder of safetensors that `StableDiffusionPipeline.from_pretrained` opens.

        Files are written in place: for a folder that appears whole, give one from
        `didgen.runtime.outputs.output_folder`.
        """
        from diffusers import StableDiffusionPipeline

        path = Path(path)
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(path, safe_serialization=True)
        # tokenizer.json alone is unknown to older readers of Stable Diffusion folders.
        self.tokenizer.backend_tokenizer.model.save(str(path / "tokenizer"))
        for part in ("unet", "vae"):
            # Where it was opened from is of no use elsewhere, and may say who did.
            config = read_object(path / part / "config.json")
            config.pop("_name_or_path", None)
            write_json(path / part / "config.json", config)
        for file in path.rglob("*"):
            # Weights are written readable by their owner alone; a model is meant for others too.
            file.chmod(0o755 if file.is_dir() else 0o644)

    @property
    def device(self) -> torch.device:
        """Where the UNet lives."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The UNet's number type."""
        return next(self.unet.parameters()).dtype

    @property
    def downsampling(self) -> int:
        """Image pixels a latent cell, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latents, cells."""
        return int(self.unet.config.sample_size)

    @property
    def image_size(self) -> int:
        """Side of the images, px."""
        return self.latent_size * self.downsampling

    def set_image_size(self, side: int) -> None:
        """Work on images of another side, px, from now on and in the saved folder; in place.

        Raises: BackboneError for a side that is no whole number of latent cells.
        """
        cells, rest = divmod(side, self.downsampling)
        if rest or cells < 1:
            raise BackboneError(
                f"the image size is {side} px, expected a multiple of {self.downsampling}, the "
                f"pixels of a latent cell, such as {max(1, cells) * self.downsampling}"
            )
        self.unet.register_to_config(sample_size=cells)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one image's latents."""
        return (self.latent_channels, self.latent_size, self.latent_size)

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: "epsilon" or "v_prediction"."""
        return self.scheduler.config.prediction_type

    @property
    def prompt_limit(self) -> int:
        """Most tokens a prompt may have, start and end tokens included."""
        return min(self.tokenizer.model_max_length, self._text_config.max_position_embeddings)

    @property
    def _text_config(self) -> Any:
        config = self.text_encoder.config
        return getattr(config, "text_config", None) or config

    def checksum(self) -> str:
        """SHA-256 over the weights of all three networks: names, shapes, types and bytes."""
        digest = hashlib.sha256()
        for module in self.modules():
            for name, tensor in sorted(module.state_dict().items()):
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode_moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of images: BCHW in [-1, 1] -> BChw twice."""
        posterior = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist
        scale = self.vae.config.scaling_factor
        return (posterior.mean - self._shift) * scale, posterior.std * scale

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of images, BCHW in [-1, 1] -> BChw: the mean, or a draw with the generator."""
        mean, std = self.encode_moments(images)
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator, device=generator.device)
        return mean + std * noise.to(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Images BCHW, clipped to [-1, 1], of latents BChw."""
        unscaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        return self.vae.decode(unscaled).sample.clamp(-1, 1)

    @property
    def _shift(self) -> float:
        return getattr(self.vae.config, "shift_factor", None) or 0.0

    def embed(self, prompts: list[str]) -> Tensor:
        """Text embeddings BTD of prompts, T the prompt limit.

        Raises: PromptTooLong; nothing is ever cut off silently.
        """
        for prompt in prompts:
            self._token_ids(prompt)
        ids = self.tokenizer(
            prompts, padding="max_length", max_length=self.prompt_limit, return_tensors="pt"
        ).input_ids
        embeddings = self.text_encoder(ids.to(self.text_encoder.device))[0]
        return embeddings.to(self.dtype)

    def predict(self, latents: Tensor, t: Tensor | int, embeddings: Tensor) -> Tensor:
        """The UNet's output BChw for noisy latents BChw at timesteps t, one or B of them."""
        return self.unet(latents, t, encoder_hidden_states=embeddings).sample

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """Latents x_t = a x0 + s noise, with a and s of the timesteps t (one or B)."""
        a, s = self._signal_and_noise(t, x0)
        return a * x0 + s * noise

    def training_target(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """What the UNet should predict: the noise, or v = a noise - s x0."""
        if self.prediction_type == "epsilon":
            return noise
        a, s = self._signal_and_noise(t, x0)
        return a * noise - s * x0

    def to_x0(self, output: Tensor, latents: Tensor, t: Tensor | int) -> Tensor:
        """The clean latents that an output of the UNet stands for."""
        a, s = self._signal_and_noise(t, latents)
        if self.prediction_type == "epsilon":
            return (latents - s * output) / a
        return a * latents - s * output

    def _signal_and_noise(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        cumulative = self.scheduler.alphas_cumprod
        index = torch.as_tensor(t, device=cumulative.device).long().reshape(-1, 1, 1, 1)
        alpha = cumulative[index].to(like.device)
        return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)

    def token_positions(self, prompt: str, token: str) -> list[int]:
        """Positions of a token or word in the prompt; position 0 is the start token.

        A word of several pieces gives the positions of all its pieces.

        Raises: TokenNotFound when it does not occur, PromptTooLong when the prompt is cut.
        """
        ids = self._token_ids(prompt)
        pieces = self.tokenizer(token, add_special_tokens=False).input_ids
        texts = self.tokenizer.convert_ids_to_tokens(ids)
        whole = set(self.tokenizer.get_added_vocab()) | set(self.tokenizer.all_special_tokens)
        positions = []
        for start in range(1, len(ids) - len(pieces)):
            begins_word = texts[start - 1].endswith("</w>") or texts[start - 1] in whole
            if begins_word and ids[start : start + len(pieces)] == pieces:
                positions.extend(range(start, start + len(pieces)))
        if not pieces or not positions:
            raise TokenNotFound(
                f"{token!r} does not occur in the prompt {prompt!r}: write it there as a word of "
                "its own"
            )
        return positions

    def _token_ids(self, prompt: str) -> list[int]:
        ids = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > self.prompt_limit:
            raise PromptTooLong(
                f"the prompt has {len(ids)} tokens (start and end included), the text encoder "
                f"reads {self.prompt_limit}: shorten it: {prompt!r}"
            )
        return ids

    def modules(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The autoencoder, the text encoder and the UNet."""
        return self.vae, self.text_encoder, self.unet
