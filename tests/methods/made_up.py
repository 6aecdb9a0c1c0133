"""Made-up training inputs: latents and masks by a generator, and a short training's settings."""

import numpy as np

from didgen.backbone.handle import Backbone
from didgen.methods.didgen.cache import TrainingCache
from didgen.settings.finetune import Settings

PREFIX = "An image of <lesion> on <skin>."
POSITIONS = (4, 6)


def made_up_cache(backbone: Backbone, images: int = 6, seed: int = 0) -> TrainingCache:
    """Latents and masks by a generator; the last image has no mask, and all have mirror images."""
    rng = np.random.default_rng(seed)
    side, width = backbone.latent_size, backbone.unet.config.cross_attention_dim
    moments = rng.normal(size=(2 * images, 2, 4, side, side)).astype(np.float16)
    moments[:, 1] = 0.1
    rows, columns = np.mgrid[:16, :16]
    lesion = np.stack([(rows - 8) ** 2 + (columns - 4 - k) ** 2 < 20 for k in range(images)])
    lesion = np.concatenate([lesion, lesion[..., ::-1]]).astype(np.float32)
    masks = np.stack([lesion, 1 - lesion], axis=1)
    without = [images - 1, 2 * images - 1]
    masks[without] = 0
    has_mask = np.ones(2 * images, bool)
    has_mask[without] = False
    embeddings = rng.normal(size=(4, 77, width)).astype(np.float16)
    prompts = np.arange(2 * images) % 2 + 2
    return TrainingCache(images, moments, masks, has_mask, embeddings, prompts, {PREFIX: 0, "": 1})


def made_up_settings(**changes) -> Settings:
    """A short training without any option."""
    values = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "checkpoint_every": 2,
    }
    return Settings(**{**values, **changes})
