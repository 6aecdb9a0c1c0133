"""A miniature backbone and made-up latents: real training steps in a fraction of a second."""

import pytest

from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.tiny.architecture import MINIATURE, build
from tests.methods import conditioned
from tests.methods.made_up import POSITIONS, PREFIX, made_up_cache, made_up_settings


@pytest.fixture(scope="module")
def backbone():
    """A backbone for guides, which leave it as it is."""
    return conditioned.backbone()


@pytest.fixture(scope="module")
def folder(backbone, tmp_path_factory):
    """A folder with that backbone in it."""
    place = tmp_path_factory.mktemp("guided")
    backbone.save(place / "backbone")
    return place


@pytest.fixture
def fresh():
    """A function that builds the same miniature backbone again and again."""

    def make() -> Backbone:
        backbone = build(MINIATURE, seed=0)
        add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
        return backbone

    return make


@pytest.fixture
def train(fresh, tmp_path):
    """A function that trains a fresh backbone; a folder of its own unless one is named."""
    from didgen.methods.didgen.training import finetune
    from didgen.methods.didgen.validation import Validation
    from didgen.training.log import Log

    def run(
        state=None, backbone=None, seed=0, precision="float32", measure=None, every=1, **changes
    ):
        backbone = backbone or fresh()
        state = state or tmp_path / f"state-{len(list(tmp_path.iterdir()))}"
        settings = made_up_settings(**changes)
        cache = made_up_cache(backbone)
        log = Log("training", state, every=1, report_to="none")
        validation = measure and Validation(measure, state, settings.steps, every, log)
        curve = finetune(
            backbone, cache, POSITIONS, PREFIX, settings, seed, precision, state, log=log,
            validation=validation,
        )  # fmt: skip
        return curve, backbone

    return run
