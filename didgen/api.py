"""The Python interface, without the workflow: sample, make pairs, read masks, record attention.

Images are uint8 (H, W, 3), masks bool (H, W), of the backbone's size. Taken too: gray images,
images with alpha, whose clear pixels are laid on white, and masks of 0 and 1 or of 0 and 255; not
numbers of an unknown scale. Seeds: 0 to 2^63 - 1. Further keyword arguments are keys of the
configuration's sections `images` and `pairs`, with the same defaults.

All functions raise `TypeError` or `ValueError` for what they cannot use, before any costly work.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from didgen.attention.recorder import AttentionRecorder
from didgen.attention.trace import record_attention
from didgen.backbone.handle import Backbone
from didgen.backbone.prompts import build_prompt
from didgen.data.images import to_rgb
from didgen.methods.didgen.objective import attention_loss
from didgen.methods.didgen.readout import read_out
from didgen.methods.didgen.sampler import DidgenSynthesizer
from didgen.methods.protocol import Request, Sample
from didgen.runtime.precision import default_device
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.images import Settings as ImageSettings
from didgen.settings.maps import Settings as MapSettings
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.sampling import Sampling

__all__ = ["AttentionRecorder", "load", "make_pairs", "read_masks", "record_attention"]
__all__ += ["region_loss", "sample"]


def load(folder: str | Path, device: str | torch.device | None = None) -> Backbone:
    """A fine-tuned folder, on a GPU where there is one.

    Raises: `BackboneError`; `ValueError` for a device that is not there.
    """
    if not isinstance(folder, str | Path):
        raise TypeError(f"folder: found {_brief(folder)}, expected a path")
    if device is not None:
        try:
            torch.zeros(1, device=device).item()
        # Each device raises its own errors, also where PyTorch was built without it.
        except Exception as error:
            raise ValueError(
                f"device: found {_brief(device)}, which cannot be used "
                f"({str(error).splitlines()[0]}); expected 'cpu', 'cuda', 'cuda:0' or the like, or "
                "None for a GPU where there is one"
            ) from None
    return Backbone.load(folder, device=device or default_device())


def sample(
    backbone: Backbone, captions: Sequence[str], seed: int = 0, **settings: Any
) -> list[Sample]:
    """One image per caption; the n-th has the seed `seed` + n.

    Raises: `ValueError` for settings that do not exist or a backbone that was not fine-tuned.
    """
    _check_backbone(backbone)
    texts = _texts(captions)
    first = _whole("seed", seed, 0, 2**63 - len(texts))
    requests = [Request(str(n), "", text, first + n) for n, text in enumerate(texts)]
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
    _check_backbone(backbone)
    layouts = [_mask(f"masks[{n}]", mask) for n, mask in enumerate(_some("masks", masks))]
    texts = _texts(captions, "masks", len(layouts))
    first = _whole("seed", seed, 0, 2**63 - len(texts))
    requests = [
        Request(f"masks[{n}]", "", text, first + n, mask)
        for n, (mask, text) in enumerate(zip(layouts, texts, strict=True))
    ]
    return _synthesize(backbone, PairSettings(**settings), requests)


def _synthesize(
    backbone: Backbone, settings: Sampling, requests: Sequence[Request]
) -> list[Sample]:
    for request in requests:
        build_prompt(request.caption, backbone.tokenizer)
    synthesizer = DidgenSynthesizer(backbone, settings)
    synthesizer.check(requests)
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
    _check_backbone(backbone)
    side = backbone.image_size
    pixels = [_pixels(f"images[{n}]", each, side) for n, each in enumerate(_some("images", images))]
    texts = [""] * len(pixels) if captions is None else _texts(captions, "images", len(pixels))
    timestep = _whole("timestep", timestep, 0, len(backbone.scheduler.alphas_cumprod) - 1)
    seed = _whole("seed", seed, 0, 2**63 - len(pixels))
    prompts = [build_prompt(text, backbone.tokenizer) for text in texts]
    chosen, masks = PairSettings(**settings), []
    for first in range(0, len(pixels), chosen.batch_size):
        part = slice(first, first + chosen.batch_size)
        batch = np.stack(pixels[part])
        seeds = range(seed + first, seed + first + len(batch))
        _, annotation = read_out(backbone, batch, prompts[part], seeds, timestep, chosen)
        masks.append(annotation.masks.cpu().numpy())
    return np.concatenate(masks)


def region_loss(maps: Tensor, masks: Tensor, **settings: Any) -> Tensor:
    """L_attn (Eq. 3) of K tokens and their regions, mean over images: for your own training loop.

    Shapes: maps and masks (B, K, r, r); `AttentionRecorder.cross_maps` gives the maps. Masks may be
    soft, in [0, 1]. settings: keys of the section `finetune`.
    """
    for name, value in (("maps", maps), ("masks", masks)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: found {_brief(value)}, expected a tensor (B, K, r, r)")
        if not value.numel():
            raise ValueError(f"{name}: found shape {tuple(value.shape)}, expected at least one map")
    low, high = (edge.item() for edge in masks.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"masks: found values from {low} to {high}, expected 0 to 1; divide masks of 255 by it"
        )
    chosen = FinetuneSettings(**settings)
    return attention_loss(maps, masks, chosen.reading, chosen.normalization).mean()


def _brief(value: object) -> str:
    """A value in a message: its type, and itself where that is short."""
    text = repr(value)
    kind = type(value).__name__
    return f"{text} ({kind})" if len(text) <= 60 and text.isprintable() else f"a {kind}"


def _check_backbone(backbone: object) -> None:
    if not isinstance(backbone, Backbone):
        raise TypeError(f"backbone: found {_brief(backbone)}, expected what `didgen.load` returns")


def _some(name: str, values: object) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: found {_brief(values)}, expected a list")
    listed = list(values)
    if not listed:
        raise ValueError(f"{name}: found none, expected at least one")
    return listed


def _texts(captions: object, beside: str = "", count: int | None = None) -> list[str]:
    texts = _some("captions", captions)
    for n, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"captions[{n}]: found {_brief(text)}, expected a text")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(
                f"captions[{n}]: found half of a surrogate pair, expected Unicode text"
            )
    if count not in (None, len(texts)):
        raise ValueError(f"found {count} {beside} and {len(texts)} captions, expected as many")
    return texts


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: found {_brief(value)}, expected a whole number")
    if not low <= value <= high:
        raise ValueError(f"{name}: found {value}, expected {low} to {high}")
    return int(value)


def _mask(name: str, mask: object) -> np.ndarray:
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"{name}: found {_brief(mask)}, expected an array (H, W)")
    if mask.ndim != 2:
        raise ValueError(f"{name}: found an array of shape {mask.shape}, expected a mask (H, W)")
    if mask.dtype == bool:
        return mask
    values = set(np.unique(mask).tolist())
    if not (values <= {0, 1} or values <= {0, 255}):
        raise ValueError(
            f"{name}: found {len(values)} different values of {mask.dtype}, expected bool, 0 and "
            "1, or 0 and 255; threshold it first"
        )
    return mask > 0


def _pixels(name: str, image: object, side: int) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{name}: found {_brief(image)}, expected an array; of a Pillow image, "
            'np.asarray(image.convert("RGB"))'
        )
    try:
        pixels = to_rgb(image)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if pixels.shape[:2] != (side, side):
        raise ValueError(
            f"{name}: found {pixels.shape[1]}x{pixels.shape[0]} px, expected {side}x{side} px, the "
            "backbone's size; cut it to a square and resize it"
        )
    return pixels
