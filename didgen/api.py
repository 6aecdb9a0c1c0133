"""What a researcher wants without the workflow: sample, make pairs, read masks, record attention.

Images are uint8 (H, W, 3), masks bool (H, W), of the backbone's size. Further keyword arguments
are keys of the configuration's sections `images` and `pairs`, with the same defaults.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from didgen.attention.recorder import AttentionRecorder
from didgen.attention.trace import record_attention
from didgen.backbone.handle import Backbone
from didgen.backbone.prompts import build_prompt
from didgen.methods.didgen.objective import attention_loss
from didgen.methods.didgen.readout import read_out
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request, Sample
from didgen.runtime.precision import default_device
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.images import Settings as ImageSettings
from didgen.settings.maps import Settings as MapSettings
from didgen.settings.pairs import DidgenPairs
from didgen.settings.sampling import Sampling

__all__ = ["AttentionRecorder", "load", "make_pairs", "read_masks", "record_attention"]
__all__ += ["region_loss", "sample"]


def load(folder: str | Path, device: str | torch.device | None = None) -> Backbone:
    """A fine-tuned folder, on a GPU where there is one. Raises: `BackboneError`."""
    return Backbone.load(str(folder), device=device or default_device())


def sample(
    backbone: Backbone, captions: Sequence[str], seed: int = 0, **settings: Any
) -> list[Sample]:
    """One image per caption; the n-th has the seed `seed` + n.

    Raises: `ValueError` for settings that do not exist or a backbone that was not fine-tuned.
    """
    requests = [Request(str(n), "", caption, seed + n) for n, caption in enumerate(captions)]
    return _synthesize(backbone, ImageSettings(**settings), requests)


def make_pairs(
    backbone: Backbone,
    masks: Sequence[np.ndarray],
    captions: Sequence[str],
    seed: int = 0,
    **settings: Any,
) -> list[Sample]:
    """One lesion-mask pair per layout mask and caption: guided, then annotated (Eq. 5 to 7).

    A sample whose `failure` is not empty should not be used. Raises: `ValueError` as `sample`, and
    for a mask that cannot be followed.
    """
    pairs = zip(masks, captions, strict=True)
    requests = [Request(str(n), "", text, seed + n, mask) for n, (mask, text) in enumerate(pairs)]
    return _synthesize(backbone, DidgenPairs(**settings), requests)


def _synthesize(
    backbone: Backbone, settings: Sampling, requests: Sequence[Request]
) -> list[Sample]:
    synthesizer = DidgenSynthesizer(backbone, settings)
    size = settings.batch_size
    batches = [requests[first : first + size] for first in range(0, len(requests), size)]
    return [made for batch in batches for made in synthesizer.synthesize(batch)]


def read_masks(
    backbone: Backbone,
    images: Sequence[np.ndarray],
    captions: Sequence[str] | None = None,
    timestep: int = MapSettings().timestep,
    seed: int = 0,
    **settings: Any,
) -> np.ndarray:
    """The lesion's mask in each image, bool (N, H, W), read out of the attention maps (Eq. 7).

    captions: what is known of each image; None: nothing. timestep: noise that is added, 0 to 999.
    """
    prompts = [build_prompt(c, backbone.tokenizer) for c in captions or [""] * len(images)]
    chosen, masks = DidgenPairs(**settings), []
    for first in range(0, len(images), chosen.batch_size):
        part = slice(first, first + chosen.batch_size)
        batch = np.stack(images[part])
        seeds = range(seed + first, seed + first + len(batch))
        _, annotation = read_out(backbone, batch, prompts[part], seeds, timestep, chosen)
        masks.append(annotation.masks.cpu().numpy())
    return np.concatenate(masks)


def region_loss(maps: Tensor, masks: Tensor, **settings: Any) -> Tensor:
    """L_attn (Eq. 3) of K tokens and their regions, mean over images: for one's own training loop.

    Shapes: maps and masks (B, K, r, r); `AttentionRecorder.cross_maps` gives the maps. settings:
    keys of the section `finetune`.
    """
    chosen = FinetuneSettings(**settings)
    return attention_loss(maps, masks, chosen.reading, chosen.normalization).mean()
