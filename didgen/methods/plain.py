"""Standard fine-tuning of Stable Diffusion: L_rec (Eq. 1) alone, on the run's own budget.

With the prefix and the diagnosis as prompt it is the paper's "Finetune"; with DermPrompts L_attn is
all that sets the run's own method apart. As diffusers' text-to-image training, but for what the
run's own fine-tuning does differently too (`DEPARTURES`).
"""

from dataclasses import replace

import pandas as pd

from didgen.data.classes import diagnosis_caption
from didgen.methods.didgen import method
from didgen.methods.didgen.method import Variant, load
from didgen.settings.finetune import Config as FinetuneConfig
from didgen.settings.finetune import TrainingPaths
from didgen.settings.rivals import DreamBooth, Plain
from didgen.settings.train import Config

__all__ = ["load", "train", "without_regions"]

DEPARTURES = (
    "Images are squashed to a square, as those of the run's own method, where diffusers' scripts "
    "crop them.",
    "With prompts: prefix the diagnosis follows the paper's one prompt for all images, so that it "
    "can be asked for.",
    "The share of empty prompts is that of finetune.prompt_dropout, where the scripts have none.",
)


def train(data: pd.DataFrame, config: Config) -> None:
    """Write the fine-tuned folder. Raises: as the run's own fine-tuning."""
    without_regions(data, config, Variant("train", None, DEPARTURES))


def without_regions(data: pd.DataFrame, config: Config, variant: Variant) -> None:
    """Fine-tune by the section `finetune` with no weight on L_attn, on the method's own prompts.

    Raises: as the run's own fine-tuning.
    """
    assert isinstance(config.own, Plain | DreamBooth)
    if config.own.prompts == "prefix":
        data = data.assign(caption=[diagnosis_caption(label) for label in data["label"]])
    paths = {name: getattr(config, name) for name in TrainingPaths.model_fields}
    given = config.finetune
    # One process: where several share the fine-tuning's batch, it takes as many passes a step.
    settings = given.model_dump() | {
        "alpha": 0.0,
        "accumulation": given.accumulation * given.processes,
        # What sampling always says is never left out of training.
        "prefix_only": given.prefix_only if config.own.prompts == "dermprompt" else 0.0,
        "processes": 1,
        "sharding": "none",
    }
    method.train(data, FinetuneConfig(**settings, **paths), replace(variant, record=config))
