"""What is wanted of a backbone without opening its weights."""

from pathlib import Path
from typing import Any

from didgen.backbone.handle import TINY, BackboneError


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """Open only the tokenizer of a diffusers folder, a hub id or "tiny".

    Raises: BackboneError when there is none.
    """
    from transformers import CLIPTokenizer

    name = str(TINY if str(source) == "tiny" else source)
    try:
        return CLIPTokenizer.from_pretrained(name, subfolder="tokenizer", revision=revision)
    except (OSError, TypeError) as error:
        raise BackboneError(
            f"cannot open the tokenizer of {name!r}: {error}; expected a diffusers Stable "
            "Diffusion folder or hub id"
        ) from error
