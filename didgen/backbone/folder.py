"""What a Stable Diffusion folder must hold, and clear errors where it does not."""

from pathlib import Path

from didgen.runtime.files import read_object

TINY = Path(__file__).parents[1] / "tiny" / "weights"
PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
CONFIGS = (
    *("vae/config.json", "text_encoder/config.json", "unet/config.json"),
    *("tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"),
)
WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
# Formats of Python's pickle: opening such a file runs whatever code is in it.
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class BackboneError(ValueError):
    """The folder, file or hub id is not a Stable Diffusion 1.x or 2.x model that can be used."""


def is_local(source: str, place: Path) -> bool:
    """Whether a source is a path (or "tiny") and not a hub id, which is "owner/name"."""
    if place.suffix in (".safetensors", *PICKLED):
        return True
    return place.exists() or source == "tiny" or source.count("/") != 1 or source[0] in "./~"


def check_file(file: Path) -> None:
    """Check that a single-file checkpoint is there and of a format that is opened.

    Raises: BackboneError for pickled, absent or other files.
    """
    if file.suffix in PICKLED:
        raise BackboneError(
            f"{file}: {file.suffix} files are not opened, because they can run code; convert it "
            "to .safetensors first"
        )
    if not file.is_file():
        raise BackboneError(f"there is no file {file}: give a checkpoint, a folder or a hub id")
    if file.suffix != ".safetensors":
        raise BackboneError(f"{file}: expected a diffusers folder or a .safetensors checkpoint")


def check_folder(folder: Path) -> str | None:
    """The weights' variant, "fp16" where only such files are there, else None.

    Raises: BackboneError for a folder that is missing, incomplete or of another format.
    """
    if not folder.is_dir():
        raise BackboneError(f"there is no folder {folder}: give a diffusers folder or a hub id")
    if not (folder / "model_index.json").is_file():
        raise BackboneError(
            f"{folder} has no model_index.json, so it is no diffusers folder: give one, or the "
            "path of a single .safetensors checkpoint"
        )
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise BackboneError(
            f"{folder} lacks {', '.join(missing)}: expected the parts {', '.join(PARTS)}"
        )
    for name in CONFIGS:
        file = folder / name
        if file.name == "tokenizer_config.json" and not file.is_file():
            continue
        if not file.is_file():
            raise BackboneError(f"{folder} lacks {name}; copy or download the folder again")
        try:
            read_object(file)
        except ValueError as error:
            raise BackboneError(f"{error}; copy or download the folder again") from None
    variants = []
    for part, stem in WEIGHTS.items():
        files = sorted((folder / part).glob(f"{stem}*.safetensors"))
        if not files:
            names = sorted(file.name for file in (folder / part).iterdir())
            raise BackboneError(
                f"{folder / part} has no {stem}.safetensors (found {', '.join(names)}); weights "
                "in other formats are not opened: convert them to safetensors"
            )
        # fp16 files are read only where the full ones are absent.
        variants.append(all(".fp16." in file.name for file in files))
    return "fp16" if all(variants) else None
