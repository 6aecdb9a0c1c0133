"""Synthesize class-conditional images from text alone."""

import logging

import numpy as np
import pandas as pd

from didgen.backbone.loading import load_tokenizer
from didgen.captions.recombine import recombine
from didgen.data.classes import diagnosis_caption
from didgen.data.manifest import read_manifest
from didgen.methods.protocol import Request, derive_seed
from didgen.runtime.outputs import check_output, paths_read
from didgen.settings.images import Config
from didgen.settings.methods import METHODS
from didgen.stages.caption import read_captions
from didgen.stages.prompts import class_captions, read_prompts
from didgen.stages.synthetic_set import synthesize_to_folder

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `images/`, `metadata.csv` and `config.json`; images already made are kept.

    Raises: `ValueError` for a class without training captions or an unusable backbone.
    """
    check_output(config.out, "images", paths_read(config))
    synthesize_to_folder("images", _requests(config), config)


def _requests(config: Config) -> list[Request]:
    train = read_manifest(config.train)
    captions = read_captions(config.captions, train["id"])
    present = [code for code in dict.fromkeys(train["label"]) if code]
    classes = config.classes if config.classes is not None else tuple(sorted(present))
    absent = sorted(set(classes) - set(present))
    if absent:
        raise ValueError(
            f"images.classes asks for {absent}, but no training image has these labels; found "
            f"{sorted(present)}"
        )
    requests = []
    reads_text = "text" in METHODS[config.method].reads
    for code in classes:
        parents = train.loc[train["label"] == code, "id"].tolist()
        silent: list[tuple[tuple[str, ...], str]] = [((), "")] * config.per_class
        drafts = _captions(config, code, parents, captions) if reads_text else silent
        for number, (parent, caption) in enumerate(drafts):
            name = f"SYN_{code}_{number:05d}"
            seed = derive_seed(config.seed, name)
            requests.append(Request(name, code, caption, seed, parent_ids=parent))
    return requests


def _captions(
    config: Config, code: str, parents: list[str], captions: pd.Series
) -> list[tuple[tuple[str, ...], str]]:
    """Parent ids and caption of each image of a class."""
    if config.prompts == "llm":
        return read_prompts(config.prompts_file, code, config.per_class)
    if config.prompts == "recombined":
        (own,) = class_captions(config.train, config.captions, (code,))
        made, counts = recombine(own, config.per_class, load_tokenizer(config.model), config.seed)
        LOGGER.info("%s: %d new prompts, %d repeated", code, counts.made, counts.repeated)
        return [(prompt.parent_ids, prompt.caption) for prompt in made]
    numbers = range(config.per_class)
    return [_caption(config, code, number, parents, captions) for number in numbers]


def _caption(
    config: Config, code: str, number: int, parents: list[str], captions: pd.Series
) -> tuple[tuple[str, ...], str]:
    """The caption of the n-th image of a class; training captions are used in turn."""
    if config.prompts == "prefix":
        return (), diagnosis_caption(code)
    turn, place = divmod(number, len(parents))
    order = np.random.default_rng([config.seed, turn, *code.encode()]).permutation(len(parents))
    parent = parents[order[place]]
    return (parent,), captions[parent]
