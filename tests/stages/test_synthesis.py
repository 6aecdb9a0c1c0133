import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from didgen.data.images import read_image, read_mask
from didgen.data.manifest import read_manifest
from didgen.settings.pairs import Config as PairsConfig
from didgen.stages import augment, finetune, images, maps, pairs
from tests.stages.test_augment import synthetic_set

IMAGES = {"classes": ("MEL", "NV"), "per_class": 3, "steps": 2, "batch_size": 4}
PAIRS = {"count": 4, "steps": 4, "batch_size": 3}


def run_set(stage, run, out, **settings):
    stage.run(stage.Config(train=run.train, captions=run.captions, model=run.backbone,
                           out=out, **settings))  # fmt: skip
    return read_manifest(out / "metadata.csv")


@pytest.fixture(scope="module")
def image_set(mini_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "images"
    return run_set(images, mini_run, out, **IMAGES), out


@pytest.fixture(scope="module")
def pair_set(mini_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "pairs"
    pairs.run(PairsConfig(train=mini_run.train, captions=mini_run.captions,
                           model=mini_run.backbone, out=out, **PAIRS))  # fmt: skip
    return out


def test_images_have_provenance(image_set):
    frame, out = image_set
    assert frame["label"].value_counts().to_dict() == {"MEL": 3, "NV": 3}
    assert frame["seed"].nunique() == 6 and frame["checkpoint"].nunique() == 1
    assert (frame["method"] == "didgen").all() and (frame["parent_ids"] != "").all()
    assert read_image(out / frame["image"].iloc[0]).shape == (128, 128, 3)


def test_an_image_has_the_same_bytes_whatever_the_shard(mini_run, image_set, tmp_path):
    frame, out = image_set
    # Shards take whole batches: of four, and of the two that are left.
    for shard, count in (("1/2", 4), ("2-of-2", 2)):
        place = tmp_path / shard.replace("/", "_")
        part = run_set(images, mini_run, place, **IMAGES, shard=shard)
        assert len(part) == count
        for row in part.itertuples():
            whole = frame.set_index("id").loc[row.id]
            assert (row.seed, row.sha256) == (whole["seed"], whole["sha256"])


def test_an_image_hardly_depends_on_the_batch_size(mini_run, image_set, tmp_path):
    """Other shapes may choose other kernels, which round differently in the last bits."""
    frame, out = image_set
    settings = {**IMAGES, "batch_size": 1, "precision": "float32"}
    alone = run_set(images, mini_run, tmp_path / "alone", **settings)
    together = run_set(images, mini_run, tmp_path / "all", **{**settings, "batch_size": 6})
    for name in frame["image"]:
        first, second = (read_image(tmp_path / d / name).astype(int) for d in ("alone", "all"))
        assert np.abs(first - second).max() <= 1
    assert alone["seed"].tolist() == together["seed"].tolist()


def test_finished_samples_are_kept_and_changed_settings_start_afresh(mini_run, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_set(images, mini_run, tmp_path / "s", **IMAGES)
    kept = tmp_path / "s/images/SYN_MEL_00000.png"
    (tmp_path / "s/.parts/SYN_NV_00001.csv").unlink()
    (tmp_path / "s/metadata.csv").unlink()
    before = kept.stat().st_mtime_ns
    run_set(images, mini_run, tmp_path / "s", **IMAGES)
    # The batch of the missing one is made again, in the same company.
    assert "4 of 6 samples are there already" in caplog.text
    assert kept.stat().st_mtime_ns == before
    run_set(images, mini_run, tmp_path / "s", **{**IMAGES, "steps": 3})
    assert "settings or inputs have changed: everything is made afresh" in caplog.text
    assert kept.stat().st_mtime_ns != before


def test_images_have_the_same_bytes_from_several_processes_and_after_a_kill(
    mini_run, image_set, tmp_path, monkeypatch, caplog
):
    from didgen.stages import synthetic_set

    caplog.set_level(logging.INFO)

    written = []
    real = synthetic_set._write_sample

    def dying_write(*arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(1)
        real(*arguments)

    threads = torch.get_num_threads()
    monkeypatch.setattr(synthetic_set, "_write_sample", dying_write)
    with pytest.raises(KeyboardInterrupt):
        run_set(images, mini_run, tmp_path / "set", **IMAGES)
    monkeypatch.undo()
    unfinished, out = tmp_path / ".set.unfinished", tmp_path / "set"
    assert len(list((unfinished / ".parts").glob("*.csv"))) == 1
    assert not out.exists() and torch.get_num_threads() == threads
    (unfinished / "images/.SYN_NV_00001.png.abcdefgh.part.png").touch()
    (unfinished / ".parts/.SYN_NV_00001.csv.abcdefgh.part.csv").touch()
    monkeypatch.setattr(synthetic_set, "WORTH", 1)
    run_set(images, mini_run, out, **IMAGES, workers=2)
    assert "2 processes" in caplog.text and not unfinished.exists()
    assert contents(out) == contents(image_set[1])


def contents(root):
    """The bytes of every file of a set but its settings, which name its folder."""
    files = [path for path in root.rglob("*") if path.is_file()]
    named = {str(path.relative_to(root)): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if name != "config.json"}


def test_pairs_carry_condition_mask_and_scores(pair_set, mini_run):
    failed = pd.read_csv(pair_set / "failed.csv")
    made = pd.read_csv(pair_set / "metadata.csv", keep_default_na=False)
    assert len(made) + len(failed) == 4
    parents = set(read_manifest(mini_run.train)["id"])
    for row in made.itertuples():
        assert row.parent_ids in parents
        condition = read_mask(pair_set / row.condition, (128, 128))
        mask = read_mask(pair_set / row.mask, (128, 128))
        union = (condition | mask).sum()
        assert row.layout_iou == pytest.approx((condition & mask).sum() / union, abs=1e-4)


def test_pairs_that_diverge_are_counted_and_never_written_as_good(mini_run, tmp_path, caplog):
    config = PairsConfig(train=mini_run.train, captions=mini_run.captions, out=tmp_path,
                          model=mini_run.backbone, **PAIRS, eta=1e6, retries=1)  # fmt: skip
    pairs.run(config)
    failed = pd.read_csv(tmp_path / "failed.csv")
    assert len(failed) == 4 and failed["failure"].str.startswith("diverged: ").all()
    assert pd.read_csv(tmp_path / "metadata.csv").empty and not list(tmp_path.rglob("*.png"))
    assert "4 of 4 samples failed; see failed.csv" in caplog.text
    assert pd.read_csv(tmp_path / ".parts/PAIR_00000.csv")["retries"].tolist() == [1]


def test_augmented_set_opens_as_an_image_folder(image_set, tmp_path):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "augment"
    pairs = synthetic_set(tmp_path / "pairs", ["p", "q"], paired=True)
    augment.run(augment.Config(images=(image_set[1],), pairs=(pairs,), out=out))
    frame = read_manifest(out / "metadata.csv")
    assert (out / "metadata.csv").read_text().startswith("file_name,")
    opened = datasets.load_dataset("imagefolder", data_dir=str(out), split="train",
                                   cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert len(opened) == len(frame)
    row = opened[0]
    expected = frame.set_index("id").loc[row["id"]]
    assert row["image"].size == (128, 128) and row["caption"] == expected["caption"]
    np.testing.assert_array_equal(
        np.asarray(row["image"].convert("RGB")), read_image(out / expected["image"])
    )


def test_nothing_to_gather_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="found neither images nor pairs"):
        augment.run(augment.Config(out=tmp_path / "a"))


def test_a_killed_fine_tuning_continues_to_the_same_weights(mini_run, tmp_path, monkeypatch):
    from didgen.methods.didgen import training

    real_step, done = training.Step.__call__, []

    def dying_step(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return real_step(*arguments)

    config = mini_run.finetune_config(tmp_path / "b")
    monkeypatch.setattr(training.Step, "__call__", dying_step)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(config)
    assert not (tmp_path / "b").exists()
    monkeypatch.setattr(training.Step, "__call__", real_step)
    finetune.run(config)
    name = "unet/diffusion_pytorch_model.safetensors"
    resumed, straight = load_file(tmp_path / "b" / name), load_file(mini_run.backbone / name)
    assert all((resumed[key] == straight[key]).all() for key in straight)
    curves = [pd.read_csv(p / "training.csv") for p in (tmp_path / "b", mini_run.backbone)]
    assert curves[0]["loss"].tolist() == curves[1]["loss"].tolist()
    assert curves[0]["step"].tolist() == [1, 2, 3, 4]


def test_the_attention_loss_is_what_alpha_adds(mini_run, tmp_path):
    finetune.run(mini_run.finetune_config(tmp_path / "plain", alpha=0.0, steps=1))
    plain = pd.read_csv(tmp_path / "plain/training.csv").iloc[0]
    ours = pd.read_csv(mini_run.backbone / "training.csv").iloc[0]
    assert plain["loss"] == plain["loss_rec"] == ours["loss_rec"]
    assert ours["loss"] == pytest.approx(ours["loss_rec"] + 0.1 * ours["loss_attn"], rel=1e-6)


def test_weights_that_are_no_numbers_are_named_before_training(mini_run, tmp_path):
    config = mini_run.finetune_config(tmp_path / "x", steps=1)
    poisoned = tmp_path / "poisoned"
    from didgen.backbone.handle import Backbone

    backbone = Backbone.load(mini_run.pretrained)
    backbone.unet.conv_out.bias.data.fill_(float("nan"))
    backbone.save(poisoned)
    with pytest.raises(ValueError, match=r"unet: 1 of its weights hold NaN.*conv_out\.bias"):
        finetune.run(config.model_copy(update={"backbone": str(poisoned)}))


def test_a_loss_that_is_not_finite_names_its_step_and_the_remedy(mini_run, tmp_path):
    from didgen.backbone.handle import Backbone

    backbone = Backbone.load(mini_run.pretrained)
    backbone.unet.conv_out.weight.data.fill_(1e38)  # finite, its products are not
    backbone.save(tmp_path / "huge")
    config = mini_run.finetune_config(tmp_path / "x", backbone=str(tmp_path / "huge"), steps=2)
    words = r"step 1: the loss\w* is (inf|nan); .*saved state is kept\. .*learning_rate"
    with pytest.raises(ValueError, match=words):
        finetune.run(config)
    assert not (tmp_path / "x").exists()


def test_images_of_another_size_than_the_backbone_are_refused(mini_run, tmp_path):
    from didgen.stages import data

    data.run(data.Config(phantoms=56, size=64, seed=1, out=tmp_path / "d"))
    config = mini_run.finetune_config(tmp_path / "b", train=tmp_path / "d/train.csv")
    with pytest.raises(ValueError, match="found 64x64 px, expected 128x128"):
        finetune.run(config)


def test_maps_of_held_out_images_are_scored_and_drawn(mini_run, tmp_path):
    maps.run(maps.Config(manifest=mini_run.test, captions=mini_run.captions, images=5, panels=2,
                         batch_size=3, backbone=mini_run.backbone, out=tmp_path))  # fmt: skip
    found = json.loads((tmp_path / "maps.json").read_text())
    assert found["n"] == 5 == len(found["images"])
    ious = [row["lesion_iou"] for row in found["images"]]
    assert found["lesion_iou_mean"] == pytest.approx(np.mean(ious))
    drawn = [row["panel"] for row in found["images"] if row["panel"]]
    assert len(drawn) == 2 and all((tmp_path / panel).is_file() for panel in drawn)
    assert len(list((tmp_path / "panels").iterdir())) == 2


def test_maps_of_images_of_another_size_are_refused(mini_run, tmp_path):
    from didgen.stages import data

    data.run(data.Config(phantoms=56, size=64, seed=1, out=tmp_path / "d"))
    config = maps.Config(manifest=tmp_path / "d/test.csv", captions=mini_run.captions,
                         backbone=mini_run.backbone, out=tmp_path / "maps")  # fmt: skip
    with pytest.raises(ValueError, match="found 64x64 px, expected 128x128"):
        maps.run(config)


def test_without_memory_the_knobs_are_named_and_finished_images_are_kept(
    mini_run, tmp_path, monkeypatch
):
    from didgen.methods.didgen.sampler import DidgenSynthesizer

    real, done = DidgenSynthesizer.synthesize, []

    def synthesize(self, requests):
        if done:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        done.append(1)
        return real(self, requests)

    monkeypatch.setattr(DidgenSynthesizer, "synthesize", synthesize)
    with pytest.raises(ValueError, match="out of memory .*a smaller batch_size.*bfloat16"):
        run_set(images, mini_run, tmp_path / "set", **IMAGES)
    assert len(list((tmp_path / ".set.unfinished/.parts").glob("*.csv"))) == 4


def test_a_backbone_that_was_not_fine_tuned_is_refused(mini_run, tmp_path):
    with pytest.raises(ValueError, match="<lesion>"):
        run_set(
            images,
            replace(mini_run, backbone=mini_run.pretrained),
            tmp_path,
            **{**IMAGES, "per_class": 1},
        )
    assert not (tmp_path / "metadata.csv").exists()


def test_folders_that_are_no_backbone_are_refused(mini_run, tmp_path):
    config = mini_run.finetune_config(tmp_path / "b", backbone=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="there is no folder"):
        finetune.run(config)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no model_index.json"):
        finetune.run(config)


def test_state_of_another_backbone_is_not_continued(mini_run, tmp_path):
    """The same folder name with other weights in it starts a training of its own."""
    from didgen.tiny.architecture import MINIATURE, build

    place = tmp_path / "pretrained"
    config = mini_run.finetune_config(tmp_path / "b", backbone=str(place), steps=2)
    losses = []
    for seed in (0, 7):
        build(replace(MINIATURE, image_size=128), seed=seed).save(place)
        finetune.run(config)
        losses.append(pd.read_csv(tmp_path / "b/training.csv")["loss"].tolist())
    assert losses[0] != losses[1]
    assert len(list(config.state.glob("[!.]*"))) == 2
