"""A trained segmenter as one safetensors file that says how to build its network again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from didgen.downstream.segmenters import Model, build_segmenter, standardize_encoder
from didgen.runtime.files import atomic_path

KEY = "segmenter"


class SavedSegmenterError(ValueError):
    """A file that is not a segmenter saved here; the message says which and what to do."""


@dataclass(frozen=True)
class SegmenterCard:
    """How a segmenter was built and trained.

    `image_size`: side in px at which it sees images. `val_dice`: its best mean Dice on validation
    images, which also chose the step it was kept at. `standardized`: its encoder sees images by
    ImageNet's mean and deviation.
    """

    encoder: str
    decoder_channels: tuple[int, ...]
    image_size: int
    arm: str
    seed: int
    n_train: int
    val_dice: float
    model: Model = "unet"
    standardized: bool = False


def save_segmenter(path: Path, model: nn.Module, card: SegmenterCard) -> None:
    """Write the weights and the card, in single precision."""
    from safetensors.torch import save_file

    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={KEY: json.dumps(asdict(card))})


def load_segmenter(path: Path) -> tuple[nn.Module, SegmenterCard]:
    """The network in evaluation mode on the CPU, frozen, and its card.

    Raises: `SavedSegmenterError` when the file is missing or is something else.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SavedSegmenterError(f"{path}: no such file; run the segment stage first")
    try:
        with safe_open(path, "pt") as opened:
            told = (opened.metadata() or {}).get(KEY)
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise SavedSegmenterError(
            f"{path}: found no readable safetensors file ({error}); run the segment stage again"
        ) from error
    if told is None:
        raise SavedSegmenterError(
            f"{path}: found weights that do not say how they were trained, expected those of the "
            "segment stage; run it again"
        )
    values = json.loads(told)
    card = SegmenterCard(**values | {"decoder_channels": tuple(values["decoder_channels"])})
    built = build_segmenter(
        card.encoder, card.image_size, card.decoder_channels, pretrained=False, model=card.model
    )
    built.model.load_state_dict(state)
    if card.standardized:
        standardize_encoder(built.model, card.model, card.encoder)
    return built.model.eval().requires_grad_(False), card
