"""Standard fine-tuning and DreamBooth: trained by `train`, sampled by `images`."""

import json

import pandas as pd
import pytest
from safetensors.torch import load_file

from didgen.data.manifest import read_manifest
from didgen.methods.didgen import training
from didgen.settings.images import Config as ImagesConfig
from didgen.settings.train import Config
from didgen.stages import finetune, images, train
from tests.stages.conftest import TRAINING

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def config(mini_run, tmp_path):
    def make(method: str, name: str = "model", own: dict | None = None, **changes) -> Config:
        settings = {"backbone": str(mini_run.pretrained), **TRAINING, **changes}
        return Config(
            method=method, own=own or {}, finetune=settings, train=mini_run.train,
            captions=mini_run.captions, out=tmp_path / name, state=tmp_path / f"{name}-state",
        )  # fmt: skip

    return make


def weights(folder):
    return load_file(folder / UNET)


def test_plain_on_dermprompts_is_the_own_method_without_l_attn(config, mini_run, tmp_path):
    made = config("plain", own={"prompts": "dermprompt"}, steps=2)
    train.run(made)
    finetune.run(mini_run.finetune_config(tmp_path / "own", alpha=0.0, steps=2))
    plain, own = weights(made.out), weights(tmp_path / "own")
    assert all((plain[key] == own[key]).all() for key in own)
    budget = json.loads((made.out / "budget.json").read_text())
    assert budget["steps"] == 2 and budget["images"] == 2 * TRAINING["batch_size"]
    assert budget["parameters"] == sum(value.numel() for value in plain.values())


@pytest.mark.parametrize("method", ["plain", "dreambooth"])
def test_images_are_sampled_with_the_prompts_of_the_training(config, mini_run, tmp_path, method):
    own = {"class_images": 2, "class_steps": 1} if method == "dreambooth" else {}
    made = config(method, own=own, batch_size=2)
    train.run(made)
    images.run(
        ImagesConfig(
            method=method,
            train=mini_run.train,
            captions=mini_run.captions,
            model=made.out,
            out=tmp_path / "images",
            classes=("MEL",),
            per_class=2,
            batch_size=2,
            steps=2,
        )  # fmt: skip
    )
    frame = read_manifest(tmp_path / "images/metadata.csv")
    assert set(frame["caption"]) == {"A melanoma."} and set(frame["method"]) == {method}


def test_prior_images_are_made_once_and_a_killed_training_continues(config, tmp_path, monkeypatch):
    own = {"class_images": 3, "class_steps": 1}
    straight = config("dreambooth", "straight", own, steps=4, batch_size=4)
    train.run(straight)
    killed = config("dreambooth", "killed", own, steps=4, batch_size=4)
    real_step, done = training.Step.__call__, []

    def dying_step(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training.Step, "__call__", dying_step)
        with pytest.raises(KeyboardInterrupt):
            train.run(killed)
    made = sorted((tmp_path / "killed-state").glob("*/prior/*.png"))
    times = [path.stat().st_mtime_ns for path in made]
    assert len(made) == 3
    train.run(killed)
    assert [path.stat().st_mtime_ns for path in made] == times
    first, second = weights(straight.out), weights(killed.out)
    assert all((first[key] == second[key]).all() for key in first)
    curve = pd.read_csv(killed.out / "training.csv")
    assert curve["step"].tolist() == [1, 2, 3, 4] and (curve["loss"] == curve["loss_rec"]).all()
    assert any("half" in each for each in json.loads((killed.out / "budget.json").read_text())
               ["departures"])  # fmt: skip


def test_a_batch_that_has_no_halves_is_refused(config):
    with pytest.raises(ValueError, match=r"batch_size: found 3, expected an even number"):
        train.run(config("dreambooth", batch_size=3))
