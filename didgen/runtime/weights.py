"""Files of pretrained weights: safetensors alone, or what a network's authors publish."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from didgen.runtime.files import sha256_file

HUB = "hub"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


class WeightsError(ValueError):
    """Weights that do not fit their network; the message names the first tensor that differs."""


def describe_file(path: Path) -> str:
    """A file's name and the beginning of its checksum, for result files: names alone can agree."""
    return f"file {path.name}, SHA-256 {sha256_file(path)[:12]}"


def check_file(path: Path) -> None:
    """Raises: `WeightsError` unless `path` is a safetensors file of finite numbers; says how to
    convert a pickle."""
    if path.suffix.lower() in PICKLED:
        raise WeightsError(
            f"{path}: found a pickle, which can run code when it is opened, expected .safetensors; "
            'if you trust its origin, convert it once: python -c "import torch, '
            "safetensors.torch as s; d = torch.load('IN.pth', weights_only=True); "
            "s.save_file({k: v.contiguous() for k, v in d.items()}, 'OUT.safetensors')\""
        )
    if path.suffix.lower() != ".safetensors":
        raise WeightsError(f"{path}: expected a .safetensors file, or `{HUB}`")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; correct the path of the weights")
    try:
        bad = [name for name, value in load_file(path).items() if not torch.isfinite(value).all()]
    except SafetensorError as error:
        raise WeightsError(f"{path}: no readable safetensors file ({error})") from error
    if bad:
        raise WeightsError(
            f"{path}: {len(bad)} of its tensors hold NaN or infinity (first: {bad[0]}); the file "
            "is damaged, or of a training that diverged: get it again, or use another"
        )


def fetch(url: str, sha256_starts: str) -> Path:
    """A published file, in torch's cache or fetched into it.

    Raises: `WeightsError` where it is not there and cannot be fetched.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rpartition("/")[2]
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), sha256_starts, progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"{url}: cannot be fetched ({error}); put the file into {folder}, or name a "
                ".safetensors file of it"
            ) from error
    return path
