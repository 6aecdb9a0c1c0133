"""DreamBooth (Ruiz et al. 2023): fine-tuning that is to keep what the backbone knew.

Half of each batch are images that the untouched backbone made of a class prompt, so that it goes on
making them: L = MSE of the training images + prior_weight * MSE of its own (prior preservation).
As diffusers' script, but for `DEPARTURES`.
"""

import pandas as pd

from didgen.methods.didgen.method import Prior, Variant, load
from didgen.methods.plain import DEPARTURES as OF_PLAIN
from didgen.methods.plain import without_regions
from didgen.settings.rivals import DreamBooth
from didgen.settings.train import Config

__all__ = ["load", "train"]

DEPARTURES = (
    *OF_PLAIN,
    "Learning rate and steps are those of the fine-tuning, for an equal budget; diffusers "
    "recommends 5e-6, 800 steps and 200 to 300 class images.",
    "The prompt names the diagnosis in place of one rare word, so that one model serves all.",
    "A step has as many images as one of the run's own fine-tuning, half of them made by the "
    "backbone, where diffusers' script has twice as many.",
)


def train(data: pd.DataFrame, config: Config) -> None:
    """Write the fine-tuned folder. Raises: as the run's own fine-tuning."""
    own = config.own
    assert isinstance(own, DreamBooth)
    prior = Prior(own.class_prompt, own.class_images, own.class_steps, own.prior_weight)
    without_regions(data, config, Variant("train", prior, DEPARTURES))
