"""The stage that pretrains the tiny backbone: what it hands on and what it writes down."""

import pytest

from didgen.stages import pretrain_tiny
from didgen.tiny.architecture import MINIATURE, build
from didgen.training.loop import OutOfTime


@pytest.fixture
def asked(monkeypatch):
    """The recipe and the record of each pretraining, none of which is run."""
    seen = []

    def note(recipe, captioner, features, out, work, record):
        seen.append((recipe, record))

    monkeypatch.setattr(pretrain_tiny, "pretrain", note)
    return seen


def test_the_control_is_asked_for_by_its_prompts(asked, tmp_path):
    for prompts in ("attributes", "shuffled"):
        given = {"prompts": prompts, "text_steps": 9, "unet_steps": 8, "images": 7}
        pretrain_tiny.run(pretrain_tiny.Config(out=tmp_path, **given))
    (full, kept), (control, noted) = asked
    assert (full.settings.prompts, control.settings.prompts) == ("attributes", "shuffled")
    assert (
        control.settings.model_dump().items()
        >= {"text_steps": 9, "unet_steps": 8, "images": 7}.items()
    )
    assert (kept["prompts"], noted["prompts"]) == ("attributes", "shuffled")
    assert "start" not in kept and kept["vae_steps"] == 4200
    assert str(tmp_path) not in str(kept)


def test_the_record_tells_what_a_training_began_with(asked, tmp_path):
    begun = build(MINIATURE, seed=3, prediction_type="v_prediction")
    begun.save(tmp_path / "start")
    pretrain_tiny.run(pretrain_tiny.Config(out=tmp_path / "out", start=tmp_path / "start"))
    ((recipe, record),) = asked
    assert recipe.start == tmp_path / "start"
    assert record["start"] == begun.checksum()
    # The autoencoder is the start's: nothing was trained for these steps.
    assert record["vae_steps"] is None and record["decoder_steps"] is None


def test_out_of_time_is_told_not_raised(monkeypatch, tmp_path, caplog):
    def stop(*_):
        raise OutOfTime("stopped at step 3 of 9")

    monkeypatch.setattr(pretrain_tiny, "pretrain", stop)
    pretrain_tiny.run(pretrain_tiny.Config(out=tmp_path, minutes_limit=1))
    assert "stopped at step 3 of 9; the same command continues from there" in caplog.text
