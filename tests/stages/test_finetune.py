"""The stage: validation while it trains, masks by segmentation, several processes, bad inputs."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from didgen.data.manifest import read_manifest, resolve
from didgen.runtime.files import write_png
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.stages import finetune

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
WATCHED = {"validate_every": 2, "validation_images": 3, "validation_samples": 1}


@pytest.fixture(scope="module")
def watched(mini_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("watched") / "b"
    val = mini_run.root / "data/val.csv"
    finetune.run(mini_run.finetune_config(out, val=val, **WATCHED))
    return out


def test_validation_images_are_looked_at_and_nothing_else_changes(watched, mini_run):
    frame = pd.read_csv(watched / "validation.csv")
    assert frame["step"].tolist() == [0, 2, 4]
    assert frame["iou_lesion"].between(0, 1).all() and frame["loss_rec"].gt(0).all()
    parts = frame[["loss_rec_100", "loss_rec_400", "loss_rec_700"]]
    assert parts.mean(axis=1).tolist() == pytest.approx(frame["loss_rec"].tolist())
    pictures = sorted((watched / "validation").iterdir())
    assert [p.name for p in pictures] == [f"step-{n:07d}.png" for n in (0, 2, 4)]
    # Three images and a row of samples, four pictures and three gaps wide.
    assert Image.open(pictures[-1]).size == (4 * 128 + 3 * 4, 4 * 128)
    plain, seen = load_file(mini_run.backbone / WEIGHTS), load_file(watched / WEIGHTS)
    assert all((plain[key] == seen[key]).all() for key in plain)


def test_the_folder_opens_with_diffusers_beside_the_pictures(watched):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(watched)
    assert len(pipeline.tokenizer("<lesion> <skin>").input_ids) == 4


def test_masks_are_segmented_where_asked(mini_run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data = tmp_path / "data"
    data.symlink_to(mini_run.root / "data")
    frame = pd.read_csv(mini_run.train, keep_default_na=False)
    frame["mask"] = ""
    frame.to_csv(tmp_path / "bare.csv", index=False)
    for folder in ("images", "masks"):
        if (data / folder).is_dir():
            (tmp_path / folder).symlink_to(data / folder)
    options = {"train": tmp_path / "bare.csv", "steps": 1, "state": tmp_path / "state"}
    finetune.run(mini_run.finetune_config(tmp_path / "b", unmasked="segmented", **options))
    made = list((tmp_path / "state/segmented").iterdir())
    assert len(made) > len(frame) / 2
    assert f"{len(made)} images without a mask were segmented" in caplog.text
    assert f"{len(frame)} images, {len(made)} of them with a mask" in caplog.text
    finetune.run(mini_run.finetune_config(tmp_path / "c", **options))
    assert "L_attn (Eq. 3) is nowhere in the loss" in caplog.text


def test_an_empty_mask_stops_the_stage_before_anything_is_encoded(mini_run, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(mini_run.root / "data", data)
    frame = read_manifest(data / "train.csv")
    row = frame[frame["mask"] != ""].iloc[0]
    (path,) = resolve(data / "train.csv", pd.Series([row["mask"]]))
    write_png(path, np.zeros((128, 128), bool))
    config = mini_run.finetune_config(tmp_path / "b", train=data / "train.csv", steps=1)
    with pytest.raises(ValueError, match=f"{path.name}: mask is empty"):
        finetune.run(config)
    assert not list(config.state.rglob("moments.npy"))


def test_a_backbone_without_layers_of_that_resolution_is_refused(mini_run, tmp_path):
    from dataclasses import replace

    from didgen.tiny.architecture import MINIATURE, build

    build(replace(MINIATURE, image_size=32)).save(tmp_path / "small")
    config = mini_run.finetune_config(tmp_path / "b", backbone=str(tmp_path / "small"))
    with pytest.raises(ValueError, match="no cross-attention layer works at resolution 16"):
        finetune.run(config)


def test_a_backbone_that_can_make_no_pairs_is_warned_of_before_training(caplog):
    from didgen.methods.didgen.inputs import add_placeholders
    from didgen.tiny.architecture import MINIATURE, build

    assert MINIATURE.image_size == 64
    add_placeholders(build(MINIATURE), "mean")
    assert "pairs and maps will not work" in caplog.text
    assert "no self-attention layer works at resolution 32" in caplog.text


def test_a_backbone_of_larger_images_is_trained_on_these(mini_run, tmp_path):
    from dataclasses import replace

    from didgen.backbone.handle import Backbone
    from didgen.tiny.architecture import MINIATURE, build

    build(replace(MINIATURE, image_size=256)).save(tmp_path / "large")
    options = {"backbone": str(tmp_path / "large"), "steps": 1}
    with pytest.raises(ValueError, match="found 128x128 px, expected 256x256.*finetune.image_size"):
        finetune.run(mini_run.finetune_config(tmp_path / "b", **options))
    with pytest.raises(ValueError, match="is 130 px, expected a multiple of 4"):
        finetune.run(mini_run.finetune_config(tmp_path / "b", image_size=130, **options))
    finetune.run(mini_run.finetune_config(tmp_path / "b", image_size=128, **options))
    assert Backbone.load(tmp_path / "b").image_size == 128


def test_validation_images_of_another_size_are_refused_before_training(mini_run, tmp_path):
    from didgen.stages import data

    data.run(data.Config(phantoms=56, size=64, seed=1, out=tmp_path / "d"))
    config = mini_run.finetune_config(tmp_path / "b", val=tmp_path / "d/val.csv", **WATCHED)
    with pytest.raises(ValueError, match="found 64x64 px, expected 128x128"):
        finetune.run(config)
    assert not list(config.state.rglob("step-*"))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("An image of <lesion>.", "'<skin>' does not occur"),
        ("red " * 80 + "<lesion> on <skin>", "tokens .*shorten it"),
        ("A red image of <lesion> on <skin>.", "expected one place; let every caption follow"),
    ],
)
def test_prompts_without_the_placeholders_in_their_place_are_refused(mini_run, prompt, message):
    from didgen.backbone.handle import Backbone
    from didgen.methods.didgen.cache import TrainingItem
    from didgen.methods.didgen.inputs import placeholder_positions

    backbone = Backbone.load(mini_run.backbone)
    prefix = "An image of <lesion> on <skin>."
    good = TrainingItem("a", mini_run.train, None, f"{prefix} A red spot.")
    assert placeholder_positions(backbone, prefix, [good]) == (4, 6)
    with pytest.raises(ValueError, match=message):
        placeholder_positions(backbone, prefix, [good, TrainingItem("b", good.image, None, prompt)])


def test_pickled_checkpoints_are_refused_before_any_work(mini_run, tmp_path):
    (tmp_path / "sd.ckpt").write_bytes(b"x")
    config = mini_run.finetune_config(tmp_path / "b", backbone=str(tmp_path / "sd.ckpt"))
    with pytest.raises(ValueError, match="convert it to .safetensors"):
        finetune.run(config)


@pytest.mark.slow
def test_two_processes_make_what_one_makes(mini_run, tmp_path):
    """With the same batches; sums in another order round differently."""
    options = {"batch_size": 4, "steps": 3, "precision": "float32", "learning_rate": 1e-4}
    curves, weights = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        state = tmp_path / f"state-{processes}"
        finetune.run(mini_run.finetune_config(out, processes=processes, state=state, **options))
        curves.append(pd.read_csv(out / "training.csv"))
        weights.append(load_file(out / WEIGHTS))
    assert_alike(curves, weights)
    assert json.loads((tmp_path / "2/config.json").read_text())["processes"] == 2


def assert_alike(curves, weights):
    for column in ("loss", "loss_rec", "loss_attn", "grad_norm"):
        assert curves[1][column].tolist() == pytest.approx(curves[0][column].tolist(), rel=1e-4)
    for name, value in weights[0].items():
        assert np.allclose(value, weights[1][name], atol=2e-4), name


@pytest.mark.slow
def test_sharded_processes_make_what_one_makes_also_when_resumed(mini_run, tmp_path):
    options = {
        **{"batch_size": 4, "precision": "float32", "learning_rate": 1e-4, "accumulation": 2},
        **{"ema": 0.9, "checkpoint_every": 2, "validation_samples": 0, "validation_images": 2},
        "val": mini_run.train.parent / "val.csv",
    }
    curves, weights, looks = [], [], []
    for name, steps, shares in (
        ("one", 4, {}),
        ("parts", 2, {"processes": 2, "sharding": "full"}),
        ("parts", 4, {"processes": 2, "sharding": "full"}),
    ):
        out = tmp_path / f"{name}-{steps}"
        config = {**options, **shares, "steps": steps, "state": tmp_path / name}
        finetune.run(mini_run.finetune_config(out, **config))
        if steps == 4:
            curves.append(pd.read_csv(out / "training.csv"))
            weights.append(load_file(out / WEIGHTS))
            looks.append(pd.read_csv(out / "validation.csv").iloc[-1].to_dict())
    assert_alike(curves, weights)
    assert looks[1] == pytest.approx(looks[0], rel=1e-3)


def test_sharding_does_not_go_with_adapters():
    with pytest.raises(ValueError, match="sharding: found full together with lora_rank"):
        FinetuneSettings(sharding="full", lora_rank=4)


@pytest.mark.slow
def test_what_one_process_raises_reaches_the_caller(mini_run, tmp_path):
    config = mini_run.finetune_config(
        tmp_path / "b", processes=2, batch_size=4, backbone=str(tmp_path / "nowhere")
    )
    with pytest.raises(ValueError, match="there is no folder"):
        finetune.run(config)


def test_batches_that_cannot_be_shared_are_refused_with_the_settings():
    with pytest.raises(ValueError, match="multiple of processes times accumulation, 2 x 3 = 6"):
        FinetuneSettings(batch_size=4, processes=2, accumulation=3)
