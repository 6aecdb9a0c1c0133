"""Synthesize class-conditional images from text alone."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from didgen.settings.base import Section
from didgen.stages.prepare import Code

if TYPE_CHECKING:
    import pandas as pd

    from didgen.methods.protocol import Request

LOGGER = logging.getLogger(__name__)


class Settings(Section):
    """How many images of which class, and how they are sampled."""

    method: Literal["didgen"] = Field("didgen", description="method of synthesis")
    classes: tuple[Code, ...] | None = Field(
        None, description="diagnoses to synthesize; null: all that the training set has"
    )
    per_class: int = Field(40, ge=1, description="images a class; the paper: 1000")
    prompts: Literal["dermprompt", "prefix", "recombined", "llm"] = Field(
        "dermprompt",
        description="`dermprompt`: captions of the class's training images; `recombined`: new ones "
        "from the attributes of two of them; `llm`: new ones by the language model that wrote the "
        "captions; `prefix`: the prefix and the diagnosis only",
    )
    steps: int = Field(50, ge=1, le=1000, description="sampling steps")
    guidance_scale: float = Field(7.5, ge=1, description="classifier-free guidance; 1: none")
    scheduler: Literal["ddim", "dpm++"] = Field("ddim", description="sampler")
    batch_size: int = Field(
        8,
        ge=1,
        description="images sampled together; another number may change an image's last bits",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the UNet; auto: bfloat16 where it is built in"
    )


class Config(Settings):
    """Settings and paths of the stage."""

    train: Path = Field(description="manifest of the training images")
    captions: Path = Field(description="captions.csv of the caption stage")
    prompts_file: Path | None = Field(
        None, description="prompts.csv of the prompts stage, for `prompts: llm`"
    )
    backbone: Path = Field(description="fine-tuned diffusers folder")
    out: Path = Field(description="folder to write: images/, metadata.csv")
    shard: str = Field("1/1", description="which of how many shards to make: k/n")
    seed: int = Field(0, ge=0, description="seed from which every image's own seed is derived")
    workers: int = Field(
        1, ge=1, le=1024, description="on a processor: most processes to sample in, one core each"
    )
    memory_mb: int | None = Field(
        None, ge=1, description="memory that they may take together; null: what is free"
    )


def run(config: Config) -> None:
    """Write `images/`, `metadata.csv` and `config.json`; images already made are kept.

    Raises: `ValueError` for a class without training captions or an unusable backbone.
    """
    from didgen.stages.synthetic_set import synthesize_to_folder

    synthesize_to_folder(_requests(config), config, options={
        "steps": config.steps,
        "guidance_scale": config.guidance_scale,
        "scheduler": config.scheduler,
        "precision": config.precision,
    })  # fmt: skip


def _requests(config: Config) -> list["Request"]:
    from didgen.backbone.loading import load_tokenizer
    from didgen.captions.prompts import build_prompt
    from didgen.data.manifest import read_manifest
    from didgen.methods.protocol import Request, derive_seed
    from didgen.stages.caption import read_captions

    tokenizer = load_tokenizer(config.backbone)
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
    for code in classes:
        parents = train.loc[train["label"] == code, "id"].tolist()
        drafts = _captions(config, code, parents, captions, tokenizer)
        for number, (parent, caption) in enumerate(drafts):
            name = f"SYN_{code}_{number:05d}"
            prompt = build_prompt(caption, tokenizer)
            seed = derive_seed(config.seed, name)
            requests.append(Request(name, code, caption, prompt, seed, parent_ids=parent))
    return requests


def _captions(
    config: Config, code: str, parents: list[str], captions: "pd.Series", tokenizer: Any
) -> list[tuple[tuple[str, ...], str]]:
    """Parent ids and caption of each image of a class."""
    if config.prompts == "llm":
        from didgen.stages.prompts import read_prompts

        return read_prompts(config.prompts_file, code, config.per_class)
    if config.prompts == "recombined":
        from didgen.captions.recombine import recombine
        from didgen.stages.prompts import class_captions

        (own,) = class_captions(config.train, config.captions, (code,))
        made, counts = recombine(own, config.per_class, tokenizer, config.seed)
        LOGGER.info("%s: %d new prompts, %d repeated", code, counts.made, counts.repeated)
        return [(prompt.parent_ids, prompt.caption) for prompt in made]
    numbers = range(config.per_class)
    return [_caption(config, code, number, parents, captions) for number in numbers]


def _caption(
    config: Config, code: str, number: int, parents: list[str], captions: "pd.Series"
) -> tuple[tuple[str, ...], str]:
    """The caption of the n-th image of a class; every training caption has its turn."""
    import numpy as np

    from didgen.data.classes import CLASSES

    if config.prompts == "prefix":
        return (), f"A {CLASSES[code].phrase}."
    turn, place = divmod(number, len(parents))
    order = np.random.default_rng([config.seed, turn, *code.encode()]).permutation(len(parents))
    parent = parents[order[place]]
    return (parent,), captions[parent]
