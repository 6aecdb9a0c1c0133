"""What a Stable Diffusion folder must hold, and clear words where it does not."""

from pathlib import Path
from typing import Any

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}


class BackboneError(ValueError):
    """The folder or hub id is not a Stable Diffusion 1.x or 2.x model that can be used."""


def is_local(source: str, place: Path) -> bool:
    """Whether a source is a path (or "tiny") and not a hub id, which is "owner/name"."""
    return place.exists() or source == "tiny" or source.count("/") != 1 or source[0] in "./~"


def check_folder(folder: Path) -> str | None:
    """The weights' variant, "fp16" where only such files are there, else None.

    Raises: BackboneError for a folder that is missing, incomplete or of another format.
    """
    if not folder.is_dir():
        raise BackboneError(f"there is no folder {folder}: give a diffusers folder or a hub id")
    if not (folder / "model_index.json").is_file():
        raise BackboneError(
            f"{folder} has no model_index.json, so it is no diffusers folder: convert a single "
            "checkpoint file with diffusers first"
        )
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise BackboneError(
            f"{folder} lacks {', '.join(missing)}: expected the parts {', '.join(PARTS)}"
        )
    variants = []
    for part, stem in WEIGHTS.items():
        files = sorted((folder / part).glob(f"{stem}*.safetensors"))
        if not files:
            found = sorted(file.name for file in (folder / part).iterdir())
            raise BackboneError(
                f"{folder / part} has no {stem}.safetensors (found {', '.join(found)}); weights "
                "in other formats are not opened: convert them to safetensors"
            )
        # fp16 files are read only where the full ones are absent.
        variants.append(all(".fp16." in file.name for file in files))
    return "fp16" if all(variants) else None


def scheduler_class(name: str, options: dict[str, Any]) -> Any:
    """The diffusers scheduler class that the model itself names."""
    import diffusers

    given = {key: value for key, value in options.items() if value is not None}
    config = diffusers.DDIMScheduler.load_config(name, subfolder="scheduler", **given)
    found = config.get("_class_name", "")
    if not hasattr(diffusers, found):
        raise BackboneError(f"{name} names the scheduler {found!r}, which diffusers does not have")
    return getattr(diffusers, found)
