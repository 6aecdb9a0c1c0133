"""Opening a backbone: a diffusers folder, a hub id, a single .safetensors file or "tiny"."""

import logging
from pathlib import Path
from typing import Any

import torch

from didgen.backbone.folder import TINY, BackboneError, check_file, check_folder, is_local
from didgen.backbone.hub import fetch
from didgen.runtime.files import read_object
from didgen.settings.addresses import meant_as_address

LOGGER = logging.getLogger(__name__)


def load_tokenizer(
    source: str | Path, revision: str | None = None, local_files_only: bool = False
) -> Any:
    """Open only the tokenizer of a backbone.

    Raises: BackboneError when there is none.
    """
    from transformers import CLIPTokenizer

    from didgen.backbone.single_file import open_tokenizer

    place = locate(source, revision, local_files_only, tokenizer_only=True)
    try:
        if place.suffix == ".safetensors":
            return open_tokenizer(place)
        return CLIPTokenizer.from_pretrained(str(place), subfolder="tokenizer")
    except BackboneError:
        raise
    # Each library has errors of its own for files that are damaged or hold another model.
    except Exception as error:
        raise BackboneError(
            f"cannot open the tokenizer of {str(source)!r}: {error}; expected a diffusers Stable "
            "Diffusion folder or hub id"
        ) from error


def locate(
    source: str | Path,
    revision: str | None = None,
    local_files_only: bool = False,
    *,
    tokenizer_only: bool,
) -> Path:
    """The local folder, or the .safetensors file, that a source stands for.

    Raises: BackboneError when there is none, or for a format that is not opened. Of a folder, only
    the tokenizer is asked for with `tokenizer_only`.
    """
    text = str(source)
    if meant_as_address(text):
        raise BackboneError(
            "found an address, which may hold a password and is not repeated here; expected a "
            "diffusers folder, a .safetensors file or a hub id such as owner/name"
        )
    place = TINY if text == "tiny" else Path(text).expanduser()
    if not is_local(text, place):
        return fetch(text, revision, local_files_only, tokenizer_only)
    if place.suffix and not place.is_dir():
        check_file(place)
    elif not tokenizer_only:
        check_folder(place)
    return place


def open_parts(
    source: str | Path,
    dtype: torch.dtype,
    revision: str | None = None,
    local_files_only: bool = False,
) -> dict[str, Any]:
    """The five parts of a backbone by name, in evaluation mode and without gradients.

    Raises: BackboneError when the source is no such model, lacks a part or is damaged.
    """
    from didgen.backbone.single_file import open_checkpoint

    place = locate(source, revision, local_files_only, tokenizer_only=False)
    try:
        parts = open_checkpoint(place, dtype) if place.is_file() else _open_folder(place, dtype)
    except BackboneError:
        raise
    # Each library has errors of its own for files that are damaged or hold another model.
    except Exception as error:
        raise BackboneError(
            f"cannot open {str(place)!r} as a Stable Diffusion model with safetensors weights: "
            f"{error}; if it was copied or downloaded, do that again"
        ) from error
    for part in ("vae", "text_encoder", "unet"):
        parts[part].eval().requires_grad_(False)
        _check_finite(parts[part], f"{place}, {part}")
    LOGGER.debug("opened %s", place)
    return parts


@torch.inference_mode()
def _check_finite(module: torch.nn.Module, name: str) -> None:
    """Raises: BackboneError for weights that are not finite: training would seem to fail."""
    # The extremes are NaN where any value is, and need no memory.
    bad = [k for k, v in module.named_parameters() if not all(map(torch.isfinite, v.aminmax()))]
    if bad:
        raise BackboneError(
            f"{name}: {len(bad)} of its weights hold NaN or infinity (first: {bad[0]}); the file "
            "is damaged, or of a training that diverged: get it again, or use another"
        )


def _open_folder(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    weights = {"use_safetensors": True, "variant": check_folder(folder)}
    kinds = {
        "vae": (diffusers.AutoencoderKL, {"torch_dtype": dtype}),
        "unet": (diffusers.UNet2DConditionModel, {"torch_dtype": dtype}),
        "text_encoder": (CLIPTextModel, {"dtype": dtype}),
    }
    parts: dict[str, Any] = {}
    for part, (kind, typed) in kinds.items():
        model, report = kind.from_pretrained(
            str(folder), subfolder=part, output_loading_info=True, **typed, **weights
        )
        # Both libraries only warn of these, and leave what is missing at random values.
        if wrong := sorted([*report["missing_keys"], *report.get("mismatched_keys", ())]):
            raise BackboneError(
                f"{folder / part}: {len(wrong)} of its weights are missing or of another shape "
                f"(first: {wrong[0]}); the weights do not belong to its config.json"
            )
        parts[part] = model
    parts["scheduler"] = open_scheduler(folder)
    parts["tokenizer"] = CLIPTokenizer.from_pretrained(str(folder), subfolder="tokenizer")
    return parts


def open_scheduler(folder: Path) -> Any:
    """The scheduler, of the diffusers class that the folder itself names."""
    import diffusers

    path = folder / "scheduler" / "scheduler_config.json"
    name = read_object(path).get("_class_name", "")
    kind: Any = getattr(diffusers, str(name), None)
    if diffusers.SchedulerMixin not in getattr(kind, "__mro__", ()):
        raise BackboneError(f"{path} names the scheduler {name!r}, which diffusers does not have")
    return kind.from_pretrained(str(folder), subfolder="scheduler")
