"""The section `methods`: systems that the run's own is compared with, each with its settings.

A key that the section `images` or `pairs` has too holds for the method's sets in its place.
"""

from typing import Any, Literal

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from didgen.settings.attention_refocusing import Settings as RefocusingSettings
from didgen.settings.base import SettingsSection
from didgen.settings.controlnet import Settings as ControlnetSettings
from didgen.settings.methods import DIDGEN, METHODS
from didgen.settings.pgan import Settings as Pgan
from didgen.settings.pix2pixhd import Settings as Pix2pixhd
from didgen.settings.sl_stylegan import Settings as SlStylegan
from didgen.settings.zestguide import Settings as ZestguideSettings


class Warp(SettingsSection):
    """Pairs of real lesions on other people's skin; nothing can be set."""


class Prefix(SettingsSection):
    """Images of the run's own model by their diagnosis alone, without a DermPrompt."""

    prompts: Literal["prefix"] = Field("prefix", description="always the diagnosis alone")


class Plain(SettingsSection):
    """Standard fine-tuning: the run's own backbone and budget, without L_attn."""

    prompts: Literal["prefix", "dermprompt"] = Field(
        "prefix",
        description="in training and sampling: the prefix and the diagnosis (the paper: the prefix "
        "alone), or DermPrompts, which leaves L_attn as the only difference to the own method",
    )


class DreamBooth(SettingsSection):
    """DreamBooth with prior preservation: the run's own backbone and budget, without L_attn."""

    prompts: Literal["prefix"] = Field(
        "prefix", description="in training and sampling: the prefix and the diagnosis"
    )
    class_prompt: str = Field(
        "An image of skin.",
        min_length=1,
        description="prompt of the images for prior preservation; the paper names none",
    )
    class_images: int = Field(
        32,
        ge=1,
        le=100_000,
        description="images for prior preservation, which the untouched backbone makes; diffusers "
        "recommends 200 to 300",
    )
    class_steps: int = Field(50, ge=1, le=1000, description="sampling steps of these images")
    prior_weight: float = Field(
        1.0, ge=0, le=100, description="weight of their loss beside that of the training images"
    )


class Methods(SettingsSection):
    """Each method that the run makes sets of, beside its own; null: not made."""

    warp: Warp | None = Field(None, description="real lesions on other people's skin")
    plain: Plain | None = Field(None, description="standard fine-tuning of the same backbone")
    dreambooth: DreamBooth | None = Field(
        None, description="fine-tuning that is to keep what the backbone knew"
    )
    prefix: Prefix | None = Field(None, description="the run's own model without DermPrompts")
    attention_refocusing: RefocusingSettings | None = Field(
        None, description="guidance by losses on cross- and self-attention; no training"
    )
    controlnet: ControlnetSettings | None = Field(
        None, description="a trained copy of the backbone's encoder reads the mask"
    )
    zestguide: ZestguideSettings | None = Field(
        None, description="guidance by a cross-entropy on cross-attention; no training"
    )
    sl_stylegan: SlStylegan | None = Field(
        None, description="SL-StyleGAN (Qin et al. 2020): a GAN of each diagnosis"
    )
    pgan: Pgan | None = Field(
        None, description="progressive GAN (Karras et al. 2018): one of each diagnosis"
    )
    pix2pixhd: Pix2pixhd | None = Field(
        None, description="pix2pixHD (Wang et al. 2018): an image for a mask, by a GAN"
    )

    @model_serializer(mode="wrap")
    def _without_others(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: own for name, own in write(self).items() if own is not None}

    @property
    def chosen(self) -> dict[str, SettingsSection]:
        """The methods that are made, and their settings."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: own for name, own in named.items() if own is not None}


def unfit(method: str, own: SettingsSection, size: int, batch_size: int) -> str:
    """Why a method cannot work with a side of images, px, or the fine-tuning's batch, or ""."""
    if method == "dreambooth" and batch_size % 2:
        return (
            f"found finetune.batch_size {batch_size}, expected an even number: half of each batch "
            "are images for prior preservation"
        )
    if METHODS[method].models == "each class" and (size & (size - 1) or size < 8):
        return (
            f"found data.size {size}, expected a power of two from 8 on: each level of its "
            "networks doubles the side"
        )
    if isinstance(own, Pix2pixhd) and size % 2**own.downsamplings:
        return (
            f"found data.size {size}, expected a multiple of {2**own.downsamplings}: the generator "
            f"halves the side {own.downsamplings} times"
        )
    return ""


def method_settings(method: str, values: Any) -> SettingsSection:
    """A method's settings, from what the section `methods` has under its name.

    Raises: `ValueError` for a method that is none of the section's.
    """
    known = Methods.model_fields
    if method not in known:
        raise ValueError(f"found {method[:100]!r}, expected one of {', '.join(known)}")
    return Methods.model_validate({method: {} if values is None else values}).chosen[method]


class ByMethod(SettingsSection):
    """A stage that works with any method, and what the section `methods` has for the one named."""

    method: str = Field(DIDGEN, description="method of synthesis")
    own: SerializeAsAny[SettingsSection] | None = Field(
        None, description="its own settings, as the section `methods` has them"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, values: Any) -> Any:
        """Read `own` as the method's; its keys that the stage has too hold in their place."""
        if not isinstance(values, dict) or values.get("method", DIDGEN) == DIDGEN:
            return values
        own = method_settings(str(values["method"]), values.get("own"))
        shared = cls.model_fields.keys() & type(own).model_fields.keys()
        return {**values, "own": own, **{key: getattr(own, key) for key in shared}}
