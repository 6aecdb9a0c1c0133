"""Files of language models: found on disk or fetched from the hub, and named by their contents."""

import hashlib
import re
from pathlib import Path
from typing import Any

from didgen.captions.llm import ModelError
from didgen.runtime.files import sha256_file

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def local_file(name: str) -> Path:
    """The file of a path, or of "owner/repository/file" on the hub, fetched where needed.

    Raises: `ModelError`.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    parts = name.split("/", 2)
    if len(parts) < 3 or path.is_absolute() or name.startswith("."):
        raise ModelError(
            f"{name}: no such file; give a file or owner/repository/file.gguf on the Hugging Face "
            "hub"
        )
    from huggingface_hub import hf_hub_download

    return Path(_fetched(name, hf_hub_download, "/".join(parts[:2]), parts[2]))


def local_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a path, or of "owner/repository" on the hub, fetched where needed.

    Only safetensors weights are fetched. Raises: `ModelError`.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise ModelError(
            f"{name}: no such folder; give a folder or owner/repository on the Hugging Face hub"
        )
    from huggingface_hub import snapshot_download

    return Path(
        _fetched(
            name,
            snapshot_download,
            name,
            revision=revision,
            allow_patterns=list(_WEIGHTS),
            # The same weights in Meta's own layout.
            ignore_patterns=["original/*"],
        )
    )


def _fetched(name: str, download: Any, *args: Any, **options: Any) -> str:
    """What a download of huggingface_hub gives, its errors explained. Raises: `ModelError`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repository = "/".join(name.split("/")[:2])
    try:
        return download(*args, **options)
    except GatedRepoError:
        raise ModelError(
            f"{repository} is gated: its licence must be accepted once. Log in at "
            f"https://huggingface.co/{repository}, accept it, make a token with read access at "
            "https://huggingface.co/settings/tokens, and run `hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{repository}: no such repository on the Hugging Face hub, or a private one; check "
            "the name, or run `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise ModelError(
            f"{name}: not in the Hugging Face cache, and the hub cannot be reached; connect to the "
            "network once, or give a path of your own"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{name}: cannot be fetched from the hub ({error})") from None


def file_identity(path: Path) -> str:
    """SHA-256 of a file. The hub's cache names large files by it, which saves reading them."""
    stored = path.resolve().name
    return stored if _SHA256.fullmatch(stored) else sha256_file(path)


def folder_identity(folder: Path) -> str:
    """SHA-256 of the names and contents of a model folder's files."""
    files = {path for pattern in _WEIGHTS for path in folder.glob(pattern)}
    if not files:
        raise ModelError(f"{folder}: holds no model; expected config.json and *.safetensors")
    lines = [f"{path.name} {file_identity(path)}" for path in sorted(files)]
    return combined_identity(*lines)


def combined_identity(*parts: str) -> str:
    """SHA-256 of several parts, each on a line of its own."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
