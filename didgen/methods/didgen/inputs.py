"""What a fine-tuning starts from: tokens, training images, prompts, and its state's name."""

import hashlib
import logging

import diffusers
import pandas as pd

import didgen
from didgen.attention.layers import (
    CROSS_SIDE,
    SELF_SIDE,
    AttentionRecordingError,
    attention_layers,
    select_layers,
)
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import PLACEHOLDERS, add_placeholder_tokens
from didgen.backbone.prompts import PREFIX, build_prompt
from didgen.methods.didgen.cache import TrainingItem
from didgen.settings.finetune import Settings

LOGGER = logging.getLogger(__name__)
# What a saved state does not depend on: it may be continued with other values of these.
FREE = (
    *("out", "state", "steps", "checkpoint_every", "processes", "sharding", "offline"),
    *("val", "validate_every", "validation_images", "validation_samples", "report_to"),
    *("accumulation", "gradient_checkpointing", "channels_last", "compile"),
)


def add_placeholders(backbone: Backbone, init: str) -> str:
    """Add `<lesion>` and `<skin>` to the backbone, in place; the prefix of all prompts.

    Raises: AttentionRecordingError when no layer has the resolution of Eq. 3; one without that of
    Eq. 5 and 7 is only warned of, since images from text alone need neither.
    """
    add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder, init=init)
    layers = attention_layers(backbone.unet, backbone.latent_size)
    select_layers(layers, "cross", CROSS_SIDE)
    try:
        select_layers(layers, "self", SELF_SIDE)
    except AttentionRecordingError as error:
        LOGGER.warning("the stages pairs and maps will not work with this backbone: %s", error)
    return PREFIX


def training_items(data: pd.DataFrame, backbone: Backbone) -> list[TrainingItem]:
    """The images of a table as the fine-tuning reads them; data: id, image, mask and caption."""
    return [
        TrainingItem(row.id, row.image, row.mask, build_prompt(row.caption, backbone.tokenizer))
        for row in data.itertuples()
    ]


def placeholder_positions(
    backbone: Backbone, prefix: str, items: list[TrainingItem]
) -> tuple[int, int]:
    """Positions of both placeholder tokens, the same in every prompt since the prefix leads it."""
    lesion, skin = PLACEHOLDERS
    positions = {
        (backbone.token_positions(prompt, lesion)[0], backbone.token_positions(prompt, skin)[0])
        for prompt in [prefix, *(item.prompt for item in items)]
    }
    if len(positions) != 1:
        raise ValueError(
            f"placeholder tokens stand at {sorted(positions)} in different prompts, expected one "
            "place; let every caption follow the prefix"
        )
    return positions.pop()


def state_key(
    settings: Settings, items: list[TrainingItem], backbone: Backbone, *more: object
) -> str:
    """What the saved state belongs to: settings and inputs, but not what `FREE` names.

    more: what else the training depends on, as text.
    """
    kept = settings.model_dump_json(exclude=set(FREE))
    versions = "/".join(map(str, (didgen.__version__, diffusers.__version__, *more)))
    digest = hashlib.sha256(f"{kept}/{backbone.checksum()}/{versions}".encode())
    for item in items:
        digest.update(f"{item.id}\0{item.prompt}\0".encode())
        for file in (item.image, item.mask):
            digest.update(b"" if file is None else file.read_bytes())
    return digest.hexdigest()[:16]
