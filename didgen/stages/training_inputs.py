"""What a fine-tuning starts from: tokens, training images, prompts, and its state's name."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from didgen.backbone.handle import Backbone
    from didgen.methods.didgen.cache import TrainingItem
    from didgen.settings.finetune import Config

LOGGER = logging.getLogger(__name__)
# What a saved state does not depend on: it may be continued with other values of these.
FREE = (
    *("out", "state", "steps", "checkpoint_every", "processes", "sharding", "offline"),
    *("val", "validate_every", "validation_images", "validation_samples", "tensorboard"),
    *("accumulation", "gradient_checkpointing", "channels_last", "compile"),
)


def add_placeholders(backbone: "Backbone", init: str) -> str:
    """Add `<lesion>` and `<skin>` to the backbone, in place; the prefix of all prompts.

    Raises: AttentionRecordingError when no layer has the resolution of Eq. 3; one without that of
    Eq. 5 and 7 is only warned of, since images from text alone need neither.
    """
    from didgen.attention.layers import (
        CROSS_SIDE,
        SELF_SIDE,
        AttentionRecordingError,
        attention_layers,
        select_layers,
    )
    from didgen.backbone.placeholder import add_placeholder_tokens
    from didgen.backbone.prompts import PREFIX

    add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder, init=init)
    layers = attention_layers(backbone.unet, backbone.latent_size)
    select_layers(layers, "cross", CROSS_SIDE)
    try:
        select_layers(layers, "self", SELF_SIDE)
    except AttentionRecordingError as error:
        LOGGER.warning("the stages pairs and maps will not work with this backbone: %s", error)
    return PREFIX


def training_items(config: "Config", backbone: "Backbone") -> list["TrainingItem"]:
    """Images, masks and prompts of the chosen classes."""
    from didgen.backbone.prompts import build_prompt
    from didgen.data.manifest import read_manifest, resolve
    from didgen.methods.didgen.cache import TrainingItem
    from didgen.stages.caption import read_captions

    frame = read_manifest(config.train)
    captions = read_captions(config.captions, frame["id"])
    if config.classes is not None:
        kept = frame["label"].isin([*config.classes, ""])
        LOGGER.info("%d of %d images left out: other classes", int((~kept).sum()), len(frame))
        frame = frame[kept]
    images, masks = resolve(config.train, frame["image"]), resolve(config.train, frame["mask"])
    if config.unmasked == "segmented":
        masks = _segmented_masks(frame["id"], images, masks, config.state / "segmented")
    return [
        TrainingItem(name, image, mask, build_prompt(captions[name], backbone.tokenizer))
        for name, image, mask in zip(frame["id"], images, masks, strict=True)
    ]


def placeholder_positions(
    backbone: "Backbone", prefix: str, items: list["TrainingItem"]
) -> tuple[int, int]:
    """Positions of both placeholder tokens, the same in every prompt since the prefix leads it."""
    from didgen.backbone.placeholder import PLACEHOLDERS

    found = {
        tuple(backbone.token_positions(prompt, token)[0] for token in PLACEHOLDERS)
        for prompt in [prefix, *(item.prompt for item in items)]
    }
    if len(found) != 1:
        raise ValueError(
            f"placeholder tokens stand at {sorted(found)} in different prompts, expected one "
            "place; let every caption follow the prefix"
        )
    return found.pop()


def state_key(config: "Config", items: list["TrainingItem"], backbone: "Backbone") -> str:
    """What the saved state belongs to: settings and inputs, but not what `FREE` names."""
    import hashlib

    import diffusers

    import didgen

    settings = config.model_dump_json(exclude=set(FREE))
    versions = f"{didgen.__version__}/{diffusers.__version__}"
    digest = hashlib.sha256(f"{settings}/{backbone.checksum()}/{versions}".encode())
    for item in items:
        digest.update(f"{item.id}\0{item.prompt}\0".encode())
        for file in (item.image, item.mask):
            digest.update(b"" if file is None else file.read_bytes())
    return digest.hexdigest()[:16]


def _segmented_masks(
    names: Sequence[str], images: Sequence[Path], masks: Sequence[Path | None], folder: Path
) -> list[Path | None]:
    """The masks, and for images without one a mask segmented by color, written to `folder`.

    An image in which nothing plausible is found keeps having none.
    """
    from didgen.runtime.progress import track

    given = list(zip(names, images, masks, strict=True))
    found = [
        mask if mask is not None else _segment(image, folder / f"{name}.png")
        for name, image, mask in track(given, label="segment images without a mask")
    ]
    added = sum(mask is None for mask in masks) - sum(mask is None for mask in found)
    LOGGER.info("%d images without a mask were segmented", added)
    return found


def _segment(image: Path, path: Path) -> Path | None:
    import numpy as np
    from PIL import Image

    from didgen.captions import artifacts
    from didgen.captions.color import srgb_to_lab
    from didgen.captions.measure import WORKING_SIDE
    from didgen.captions.segment import segment
    from didgen.data.images import read_image
    from didgen.runtime.files import write_png

    pixels = Image.fromarray(read_image(image))
    size = pixels.size
    pixels.thumbnail((WORKING_SIDE, WORKING_SIDE))
    lab = srgb_to_lab(np.asarray(pixels))
    thin = artifacts.thin_dark(lab) > artifacts.THIN_CONTRAST
    mask = segment(lab, artifacts.dark_corners(lab), thin)
    if mask is None:
        return None
    whole = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    write_png(path, np.asarray(whole))
    return path
