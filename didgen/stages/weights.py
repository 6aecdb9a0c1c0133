"""Bring the published weights of a run into the local cache, for nodes without a network."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from didgen.backbone.loading import locate
from didgen.captions import mllama
from didgen.captions.gguf_models import MODEL, PROJECTOR
from didgen.captions.model_files import local_file, local_folder
from didgen.downstream.feature_spaces import DINOV2, published_file
from didgen.downstream.segmenters import pretrained_part
from didgen.downstream.weights import published
from didgen.methods.pix2pixhd import published_vgg
from didgen.runtime.files import write_json
from didgen.runtime.outputs import check_output_file
from didgen.runtime.weights import HUB
from didgen.settings.caption import Settings as CaptionSettings
from didgen.settings.fidelity import Settings as FidelitySettings
from didgen.settings.rivals import Methods
from didgen.settings.weights import Config, Settings

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Fetch what is missing and write the list of all.

    Raises: ValueError that names every model that cannot be had, and why. The list is written only
    where all are there.
    """
    check_output_file(config.out, "a list of models", _is_list)
    models, faults = [], []
    for name, fetch in wanted(config):
        try:
            place = Path(fetch())
            size = bytes_of(place)
            if not size:
                raise ValueError(f"found nothing in {place}, expected the files of a model")
        except (OSError, ValueError) as error:
            faults.append(f"  {name}: {error}")
            continue
        LOGGER.info("%s: %.1f MB in %s", name, size / 1e6, place)
        models.append({"name": name, "path": str(place), "bytes": size})
    if faults:
        listed = "\n".join(faults)
        raise ValueError(
            f"{len(faults)} of {len(faults) + len(models)} models cannot be had:\n{listed}\n"
            "run this where the network is, with the same HF_HOME and TORCH_HOME as the nodes"
        )
    write_json(config.out, {"models": models, "bytes": sum(model["bytes"] for model in models)})


def _is_list(text: str) -> bool:
    listed = json.loads(text)
    return listed.keys() == {"models", "bytes"} and all(
        model.keys() == {"name", "path", "bytes"} for model in listed["models"]
    )


def wanted(config: Settings) -> list[tuple[str, Callable[[], Any]]]:
    """Each model's name and the function that gives the place of its files: that of the stages
    which use them, so that both look in the same places."""
    finetune = config.finetune
    models: list[tuple[str, Callable[[], Any]]] = [
        (
            finetune.backbone,
            lambda: locate(
                finetune.backbone, finetune.revision, tokenizer_only=config.tokenizer_only
            ),
        ),
        *_networks(config),
        *_spaces(config.fidelity),
        *_captioners(config.caption),
        *_methods(config.methods),
    ]
    return list(dict(models).items())


def _networks(config: Settings) -> list[tuple[str, Callable[[], Any]]]:
    named = (
        (config.classify, config.classify.model),
        (config.segment, pretrained_part(config.segment.model, config.segment.encoder)),
    )
    names = {name for part, name in named if name and part.pretrained and part.weights == HUB}
    return [(name, partial(_network, name)) for name in sorted(names)]


def _spaces(fidelity: FidelitySettings) -> list[tuple[str, Callable[[], Any]]]:
    files = {
        "inception": ("inception", lambda: published_file("inception")),
        "dinov2": (DINOV2, lambda: _network(DINOV2)),
        "lpips": ("lpips", lambda: published_file("lpips")),
    }
    # LPIPS is no space: it is measured whichever there are.
    compared = (*fidelity.spaces, "lpips")
    return [
        file
        for name, file in files.items()
        if name in compared and getattr(fidelity, f"{name}_weights") == HUB
    ]


def _captioners(caption: CaptionSettings) -> list[tuple[str, Callable[[], Any]]]:
    if caption.captioner == "llama_cpp":
        named = (caption.model or MODEL, caption.mmproj or PROJECTOR, caption.text_model)
        return [(name, partial(local_file, name)) for name in named if name]
    if caption.captioner == "transformers":
        name = caption.model or mllama.MODEL
        return [(name, lambda: local_folder(name, caption.model_revision))]
    return []


def _methods(methods: Methods) -> list[tuple[str, Callable[[], Any]]]:
    asked = [getattr(own, "vgg_weights", None) for own in methods.chosen.values()]
    return [("vgg19", published_vgg)] if HUB in asked else []


def bytes_of(place: Path) -> int:
    """Size of a file, or of all files below a folder, links followed; bytes."""
    if place.is_file():
        return place.stat().st_size
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _network(name: str) -> Path:
    return published(name)[0]
