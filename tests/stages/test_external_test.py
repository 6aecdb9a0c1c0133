"""Networks of two arms, tested on images that stand for another data set."""

import pandas as pd
import pytest

from didgen.data.manifest import read_manifest, write_manifest
from didgen.downstream.saved import SavedNetworkError
from didgen.runtime.files import write_json
from didgen.stages import classify, external_test, segment
from tests.stages.test_judges import config, discs

ARMS = ("original", "synthetic")
TASKS = ["classification", "segmentation"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both networks of both arms, and as external sets the test images themselves, and others."""
    folder = tmp_path_factory.mktemp("trained")
    data = {
        "train": discs(folder, "real", 6, "train"),
        "val": discs(folder, "val", 4, "val"),
        "test": discs(folder, "test", 5, "test"),
        "synthetic": discs(folder, "made", 4, "train", parent_ids="real_0;real_1"),
    }
    for name, stage in (("classify", classify), ("segment", segment)):
        for arm in ARMS:
            stage.run(config(stage, data, arm, folder / name / arm / "seed0"))
    sets = {}
    for name in ("same", "unlabelled", "unmasked"):
        (folder / "sets" / name).mkdir(parents=True)
        for kind in ("images", "masks"):
            (folder / "sets" / name / kind).symlink_to(folder / kind)
        rows = read_manifest(data["test"])
        if name == "unlabelled":
            rows = rows[rows["mask"] != ""].assign(label="")
        if name == "unmasked":
            rows["mask"] = ""
        write_manifest(rows, folder / "sets" / name / "test.csv")
        tasks = {"unlabelled": TASKS[1:], "unmasked": TASKS[:1]}.get(name, TASKS)
        sets[name] = {"tasks": tasks}
    write_json(folder / "sets/summary.json", sets)
    return folder


def settings(trained, out, **changes):
    usual = dict(
        external=trained / "sets", classify=trained / "classify", segment=trained / "segment",
        classify_arms=ARMS, segment_arms=ARMS, seeds=(0,), memory_gb=1.0, out=out,
    )  # fmt: skip
    return external_test.Config(**usual | changes)


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "out"
    external_test.run(settings(trained, out))
    return out


@pytest.mark.parametrize(
    ("stage", "name", "columns"),
    [
        ("classify", "predictions.csv", ["id", "label", "prediction", "p_MEL", "p_NV"]),
        ("segment", "scores.csv", ["id", "dice", "iou", "hd95"]),
    ],
)
def test_the_same_images_get_the_same_answers_as_in_training(
    trained, results, stage, name, columns
):
    table = pd.read_csv(results / name, dtype=str)
    same = table[table["set"] == "same"]
    assert same.groupby(["arm", "seed"]).ngroups == 2
    for arm in ARMS:
        own = pd.read_csv(trained / stage / arm / "seed0" / name, dtype=str)
        rows = same.loc[same["arm"] == arm, columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, own[columns])


def test_a_set_without_labels_tests_segmenters_alone_and_one_without_masks_classifiers(results):
    sets = [set(pd.read_csv(results / name)["set"]) for name in ("predictions.csv", "scores.csv")]
    assert sets == [{"same", "unmasked"}, {"same", "unlabelled"}]


def test_the_table_of_a_task_without_networks_has_no_row(trained, tmp_path):
    external_test.run(settings(trained, tmp_path / "out", segment=None, segment_arms=()))
    assert pd.read_csv(tmp_path / "out/scores.csv").empty
    assert not pd.read_csv(tmp_path / "out/predictions.csv").empty


def test_what_is_not_there_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match="summary.json"):
        external_test.run(settings(trained, tmp_path / "out", external=tmp_path))
    with pytest.raises(SavedNetworkError, match="no such file; run the classify stage"):
        external_test.run(settings(trained, tmp_path / "out", seeds=(0, 1)))
    assert not (tmp_path / "out").exists()
