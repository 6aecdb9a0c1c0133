"""The verdict stage, from result tables made by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from didgen.data.manifest import COLUMNS, write_manifest
from didgen.data.phantoms import cohort, render
from didgen.runtime.files import read_json, write_csv, write_json, write_png
from didgen.stages.arm_results import VerdictError, read_arms
from didgen.stages.verdict import Config, run


def predictions(right: list[bool], labels: list[str]) -> pd.DataFrame:
    other = {"MEL": "NV", "NV": "MEL"}
    guesses = [a if r else other[a] for a, r in zip(labels, right, strict=True)]
    return pd.DataFrame({
        "id": [f"t{k}" for k in range(len(labels))],
        "lesion_id": [f"l{k}" for k in range(len(labels))],
        "label": labels,
        "prediction": guesses,
        "p_MEL": [0.9 if g == "MEL" else 0.1 for g in guesses],
        "p_NV": [0.1 if g == "MEL" else 0.9 for g in guesses],
    })  # fmt: skip


def scores(dice: np.ndarray) -> pd.DataFrame:
    names = [f"t{k}" for k in range(len(dice))]
    return pd.DataFrame({"id": names, "lesion_id": names, "dice": dice, "iou": dice / (2 - dice)})


def put(
    folder: Path, arm: str, seed: int, table: pd.DataFrame, val: float = 0.5, **more: object
) -> None:
    """Write an arm's table and metrics.json; the name says how many synthetic images it has."""
    place = folder / arm / f"seed{seed}"
    write_csv(place / ("scores.csv" if "dice" in table else "predictions.csv"), table)
    made = (20 if arm.endswith("-0.5x") else 40) if arm.startswith(("synthetic", "prefix")) else 0
    copies = {"duplicates": 40, "duplicates-0.5x": 20}.get(arm, 0)
    told = {"n_train": 40 + made + copies, "n_real": 40, "n_synthetic": made}
    told["n_duplicates"] = copies
    told["synthetic_set"] = arm.split("-")[0] if made else None
    told |= {"model": MODEL, "settings": {"steps": 100, "image_size": None}, "n_val": 9}
    write_json(place / "metrics.json", told | {"training": {"best_score": val}} | more)


MODEL = {"name": "resnet10t", "weights": "hub, revision 1", "parameters": 5}
LABELS = ["MEL"] * 12 + ["NV"] * 4
BASE = [True] * 6 + [False] * 6 + [True] * 4


GAIN = np.tile([0.01, -0.01], 10)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Classification: 12 MEL and 4 NV, 6 MEL gained. Segmentation: no difference on average."""
    dice = np.linspace(0.6, 0.9, 20)
    for seed in (0, 1):
        for arm, right, gain in (
            ("original", BASE, 0), ("duplicates", BASE, 0), ("synthetic", [True] * 16, GAIN),
        ):  # fmt: skip
            put(tmp_path / "classify", arm, seed, predictions(right, LABELS))
            put(tmp_path / "segment", arm, seed, scores(dice + gain))
    return tmp_path


def judge(folder: Path, **changes) -> dict:
    usual = dict(
        run="test", classify=folder / "classify", segment=folder / "segment",
        out=folder / "verdict.json", tables=folder / "verdict", resamples=2000,
    )  # fmt: skip
    run(Config(**(usual | changes)))
    return read_json(folder / "verdict.json")


def test_known_numbers(results):
    found = judge(results, resamples=10_000)
    task = found["tasks"]["classification"]
    assert (found["run"], task["edition"]) == ("test", 2)
    assert task["metric"] == "balanced accuracy"
    # Original: (6/12 + 4/4) / 2 = .75; synthetic: 1.
    told = task["arms"]["original"]
    assert (told["mean"], told["sd"], told["per_seed"]) == (0.75, 0, [0.75, 0.75])
    assert (told["n_real"], told["n_synthetic"], told["val_score"]) == (40, 0, 0.5)
    assert task["arms"]["synthetic"]["mean"] == 1
    assert task["difference"] == pytest.approx(0.25)
    # Seeds agree, so only the 16 lesions vary: 12 MEL gain .5 / 24 less or more than the mean.
    error = np.sqrt(16 / 15 * 12 * (0.5 / 24) ** 2)
    reach = stats.t.ppf(0.975, 15) * error
    assert task["interval"] == pytest.approx([0.25 - reach, 0.25 + reach])
    assert task["p_uncorrected"] == pytest.approx(2 * stats.t.sf(0.25 / error, 15))
    assert task["p"] == pytest.approx(2 * task["p_uncorrected"])
    assert task["variance"] == pytest.approx(
        {"of_seeds": 0, "of_lesions": error**2, "degrees_of_freedom": 15}
    )
    # 6 gained: 2 of 64 sign patterns are as large. McNemar: 2 * (1/2)^6.
    assert task["sensitivity"]["randomisation over lesions"] == pytest.approx(2 / 64, abs=0.006)
    assert task["other_tests"] == pytest.approx({"McNemar exact on the seeds' ensemble": 2 / 64})
    assert task["effect"] == {"name": "Cohen's g of the ensemble", "value": 0.5}
    assert [each["difference"] for each in task["per_seed"]] == pytest.approx([0.25, 0.25])
    assert [each["p"] for each in task["per_seed"]] == pytest.approx([2 / 64, 2 / 64])
    assert (task["n_test"], task["n_clusters"], task["n_seeds"]) == (16, 16, 2)
    assert task["verdict"] == "helps"
    assert task["sentence"].startswith("helps: balanced accuracy +0.250 [")
    assert "over duplicates, p = 0.00" in task["sentence"]
    assert "n = 2 seeds, 16 test images of 16 lesions; better than every" in task["sentence"]


def test_an_effect_that_cancels_is_equivalent_where_the_interval_is_narrow(results):
    task = judge(results)["tasks"]["segmentation"]
    assert task["difference"] == pytest.approx(0, abs=1e-9)
    assert task["p"] == pytest.approx(1)
    error = 0.01 * np.sqrt(1 / 19)
    reach = stats.t.ppf(0.95, 19) * error
    assert task["equivalence"]["interval"] == pytest.approx([-reach, reach])
    assert (task["equivalence"]["delta"], task["verdict"]) == (0.01, "equivalent")
    assert task["sentence"].endswith("the 90 % interval lies within \N{PLUS-MINUS SIGN}0.01")
    strict = judge(results, segmentation_delta=0.003)["tasks"]["segmentation"]
    assert strict["verdict"] == "inconclusive"


def test_an_inconclusive_verdict_says_what_could_have_been_found(results):
    """With 80 % power, and what half of it would need."""
    rng = np.random.default_rng(0)
    dice = np.linspace(0.6, 0.8, 20)
    for arm in ("original", "duplicates", "synthetic"):
        for seed in range(3):
            shift = rng.normal(0, 0.02) + rng.normal(0, 0.03, 20)
            put(results / "other", arm, seed, scores(dice + shift))
    task = judge(results, classify=None, segment=results / "other")["tasks"]["segmentation"]
    reach = task["reach"]
    assert task["verdict"] == "inconclusive" and reach["power"] == 0.8
    low, high = task["interval"]
    assert (high - low) / 2 < reach["effect"] < 2 * (high - low)
    assert reach["seeds"] > 3 and (reach["images"] is None or reach["images"] > 20)
    assert f"80% power for {reach['effect']:.3f}, for half of it" in task["sentence"]
    assert f"{reach['seeds']} seeds" in task["sentence"]


def test_a_margin_must_be_exceeded_either_way(results):
    low = judge(results, segment=None)["tasks"]["classification"]["interval"][0]
    for margin, answer in ((low - 0.01, "helps"), (low + 0.01, "inconclusive")):
        task = judge(results, segment=None, margin=margin)["tasks"]["classification"]
        assert task["verdict"] == answer
        for seed in (0, 1):
            put(results / "worse", "original", seed, predictions(BASE, LABELS))
            put(results / "worse", "duplicates", seed, predictions([True] * 16, LABELS))
            put(results / "worse", "synthetic", seed, predictions(BASE, LABELS))
        task = judge(results, segment=None, classify=results / "worse", margin=margin)["tasks"]
        expected = "hurts" if answer == "helps" else answer
        assert task["classification"]["verdict"] == expected


def test_one_task_alone_needs_no_correction(results):
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["p"] == task["p_uncorrected"] and task["n_corrected_for"] == 1


def test_one_seed_decides_nothing(results):
    task = judge(results, seeds=(0,))["tasks"]["classification"]
    assert task["verdict"] == "inconclusive" and task["reach"] is None
    assert "one seed cannot tell" in task["sentence"]


def test_tables_and_settings_are_written(results):
    judge(results)
    arms = pd.read_csv(results / "verdict" / "arms.csv")
    assert list(arms.columns)[:5] == ["task", "metric", "arm", "seed", "value"]
    assert len(arms) == 2 * 3 * 2
    assert sorted(arms["seed"].unique()) == [0, 1]
    comparisons = pd.read_csv(results / "verdict" / "comparisons.csv")
    # Per task: to the control, two to original, two to every control; and NLL and Brier score.
    assert len(comparisons) == 2 * 5 + 2
    claims = comparisons.groupby("task")["claim"].value_counts()
    # The lead claim stands among those to every control too.
    assert claims["classification", "lead"] == claims["segmentation", "lead"] == 2
    tests = pd.read_csv(results / "verdict" / "tests.csv")
    # The deciding one, three for sensitivity, and one or two others.
    assert len(tests) == 5 * (4 + 1) + 5 * (4 + 2) + 2
    assert len(pd.read_csv(results / "verdict" / "groups.csv")) == 0
    assert read_json(results / "verdict" / "config.json")["run"] == "test"


def test_the_same_results_give_the_same_verdict(results):
    assert judge(results) == judge(results)


def test_arms_tested_on_other_images_are_refused(results):
    path = results / "classify" / "original" / "seed1" / "predictions.csv"
    table = pd.read_csv(path)
    write_csv(path, table.assign(id=table["id"].replace("t3", "t99")))
    with pytest.raises(VerdictError, match="original/seed1.*other test images"):
        judge(results)


def test_rows_in_another_order_are_matched_by_id(results):
    expected = judge(results)
    path = results / "segment" / "original" / "seed0" / "scores.csv"
    write_csv(path, pd.read_csv(path).sample(frac=1, random_state=0))
    assert judge(results) == expected


def test_missing_arms_and_seeds_are_named(results, tmp_path):
    with pytest.raises(VerdictError, match="found arms"):
        read_arms(tmp_path / "nowhere", "scores.csv")
    with pytest.raises(VerdictError, match=r"expected also \['classic'\]"):
        judge(results, classify_arms=("original", "classic", "synthetic"))
    with pytest.raises(VerdictError, match="treatment: found 'original'"):
        judge(results, treatment="original")
    (results / "segment" / "original" / "seed1" / "scores.csv").unlink()
    with pytest.raises(VerdictError, match="expected the same in every arm"):
        judge(results)
    with pytest.raises(VerdictError, match="at least one of them"):
        judge(results, classify=None, segment=None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": MODEL | {"weights": "none"}}, "model.weights: found 'none', expected 'hub, re"),
        ({"model": MODEL | {"name": "vgg16"}}, "model.name: found 'vgg16', expected 'resnet10t'"),
        ({"settings": {"steps": 50, "image_size": None}}, "settings.steps: found 50, expected 100"),
        ({"settings": {"steps": 100}}, None),
        ({"settings": {"steps": 100, "image_size": 224}}, "image_size: found 224, expected None"),
        ({"n_real": 39}, "n_real: found 39, expected 40"),
        ({"n_val": 8}, "n_val: found 8, expected 9"),
    ],
)
def test_arms_that_were_trained_in_another_way_are_refused(results, more, words):
    """Otherwise weights that were out of reach for one arm would pass for an effect of images."""
    table = scores(np.linspace(0.6, 0.9, 20))
    put(results / "segment", "synthetic", 1, table, **more)
    if words is None:
        judge(results)
        return
    with pytest.raises(VerdictError, match=f"1 of 6 trainings differ.*synthetic/seed1 .*{words}"):
        judge(results)


def test_another_arithmetic_is_allowed_and_said(results, caplog):
    table = scores(np.linspace(0.6, 0.9, 20))
    training = {"best_score": 0.5, "precision": "bfloat16"}
    put(results / "segment", "synthetic", 1, table, training=training)
    judge(results)
    assert "bfloat16" in caplog.text


PREDICTIONS, SCORES = (
    "classify/synthetic/seed1/predictions.csv",
    "segment/original/seed0/scores.csv",
)


def cell(column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[3, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            PREDICTIONS,
            lambda table: table.drop(columns="id"),
            "expected also id; run the classify stage",
        ),
        (PREDICTIONS, lambda table: table.drop(columns="prediction"), "expected also prediction"),
        (PREDICTIONS, lambda table: table.drop(columns="p_NV"), r"found classes \['NV'\]"),
        (PREDICTIONS, cell("id", "t2"), "1 ids stand twice, such as 't2'"),
        (PREDICTIONS, cell("prediction", "WART"), r"found classes \['WART'\].*\['MEL', 'NV'\]"),
        (PREDICTIONS, cell("p_MEL", "x"), r"1 rows \(t3\) whose p_MEL, p_NV are not all numbers"),
        (PREDICTIONS, cell("p_MEL", "nan"), r"1 rows \(t3\)"),
        (PREDICTIONS, cell("p_MEL", -0.1), r"1 rows \(t3\)"),
        (SCORES, lambda table: table.drop(columns="dice"), "expected also dice"),
        (
            SCORES,
            cell("dice", ""),
            r"1 rows \(t3\) whose dice, iou are not all numbers from 0 to 1",
        ),
        (SCORES, cell("iou", "inf"), r"1 rows \(t3\)"),
    ],
)
def test_tables_that_no_training_writes_are_named(results, name, change, words):
    write_csv(results / name, change(pd.read_csv(results / name)))
    with pytest.raises(ValueError, match=f"(?s){name}: .*{words}"):
        judge(results)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b'a,b\n"'])
@pytest.mark.parametrize("name", [PREDICTIONS, "segment/original/seed0/metrics.json"])
def test_files_that_cannot_be_read_are_named(results, name, content):
    (results / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as"):
        judge(results)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_metrics_that_are_no_object_are_named(results, content):
    (results / "classify/original/seed0/metrics.json").write_text(content)
    with pytest.raises(ValueError, match="metrics.json: found a JSON .*, expected an object"):
        judge(results)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {"best_score": None}}, "'best_score': None"),
        ({"training": {"best_score": float("inf")}}, "'best_score': inf"),
        ({"n_synthetic": None}, "'n_synthetic': None"),
        ({"n_synthetic": -1}, "'n_synthetic': -1"),
        ({"n_synthetic": 1.5}, "'n_synthetic': 1.5"),
        ({"n_train": "many"}, "'n_train': 'many'"),
        ({"n_available": []}, r"'n_available': \[\]"),
        ({"n_available": {"synthetic": "x"}}, "'synthetic': 'x'"),
    ],
)
def test_metrics_that_no_training_writes_are_named(results, change, words):
    path = results / "classify/synthetic/seed0/metrics.json"
    path.write_text(json.dumps(read_json(path) | change))
    with pytest.raises(
        VerdictError, match=f"seed0/metrics.json: found {{{words}}}, expected whole"
    ):
        judge(results)


def test_an_arm_with_other_classes_is_named(results):
    path = results / PREDICTIONS
    write_csv(path, pd.read_csv(path).assign(p_DF=0.0))
    with pytest.raises(VerdictError, match=r"found columns \['p_MEL', 'p_NV', 'p_DF'\], expected"):
        judge(results)


def test_results_without_metrics_are_refused(results):
    path = results / "segment" / "synthetic" / "seed1" / "metrics.json"
    write_json(path, {"n_train": 40, "n_synthetic": 4})
    with pytest.raises(VerdictError, match="found no training"):
        judge(results)
    path.unlink()
    with pytest.raises(VerdictError, match="no such file"):
        judge(results)


def test_the_control_is_the_one_that_was_named(results):
    """Neither validation nor test scores choose it; the hardest of all is told beside it."""
    strong = predictions([True] * 11 + [False] + [True] * 4, LABELS)
    for seed in (0, 1):
        put(results / "classify", "oversampled", seed, strong, val=0.9)
    task = judge(results)["tasks"]["classification"]
    assert (task["control"], task["verdict"]) == ("duplicates", "helps")
    hardest = task["beats_every_control"]
    assert (hardest["verdict"], hardest["control"]) == (False, "oversampled")
    assert hardest["p"] > 0.05 and hardest["low"] < 0
    assert "not shown to beat every control (oversampled: p = 0." in task["sentence"]
    told = {
        family: [(each["arm"], each["control"], each["claim"]) for each in rows]
        for family, rows in task["comparisons"].items()
    }
    second = "secondary"
    assert told == {
        "control": [("synthetic", "duplicates", "lead")],
        "original": [("synthetic", "original", second), ("duplicates", "original", second),
                     ("oversampled", "original", second)],
        "every control": [("synthetic", "original", second), ("synthetic", "duplicates", "lead"),
                          ("synthetic", "oversampled", second)],
    }  # fmt: skip
    other = judge(results, control="oversampled", segment=None)["tasks"]["classification"]
    assert other["difference"] == pytest.approx(1 / 24)


def test_a_control_that_does_not_fit_is_refused(results):
    with pytest.raises(VerdictError, match="control: found 'classic', expected one of the arms w"):
        judge(results, control="classic")
    with pytest.raises(VerdictError, match="control: found 'synthetic'"):
        judge(results, control="synthetic")
    for seed in (0, 1):
        put(results / "classify", "synthetic-0.5x", seed, predictions(BASE, LABELS))
        put(results / "classify", "duplicates-0.5x", seed, predictions(BASE, LABELS))
    with pytest.raises(VerdictError, match="found 40 copies in 'duplicates', expected 20"):
        judge(results, treatment="synthetic-0.5x", segment=None)
    halves = {"treatment": "synthetic-0.5x", "control": "duplicates-0.5x", "segment": None}
    assert judge(results, **halves)["tasks"]["classification"]["difference"] == 0


def test_further_synthetic_arms_are_secondary_and_correct_nothing(results):
    alone = judge(results, segment=None)["tasks"]["classification"]
    for seed in (0, 1):
        for arm in ("synthetic-0.5x", "prefix"):
            put(results / "classify", arm, seed, predictions([True] * 16, LABELS))
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["p"] == alone["p"]
    assert [row["claim"] for row in task["comparisons"]["control"]] == [
        "lead", "secondary", "secondary",
    ]  # fmt: skip
    assert task["arms"]["synthetic-0.5x"]["n_synthetic"] == 20
    assert [task["arms"][a]["synthetic_set"] for a in ("prefix", "synthetic-0.5x")] == [
        "prefix",
        "synthetic",
    ]
    lead = judge(results, segment=None, treatment="prefix")["tasks"]["classification"]
    assert lead["treatment"] == "prefix"


def test_calibration_is_compared_by_hand(results):
    """Surer and right is better: every image has a probability of .9, of its class or not."""
    task = judge(results)["tasks"]["classification"]
    nll, brier = task["calibration"]
    assert (nll["metric"], brier["metric"]) == ("NLL", "Brier score")
    wrong = 6 / 16
    expected = -(1 - wrong) * np.log(0.9) - wrong * np.log(0.1)
    assert nll["means"] == pytest.approx([-np.log(0.9), expected])
    assert brier["means"] == pytest.approx([0.02, 0.02 * (1 - wrong) + 1.62 * wrong])
    assert brier["difference"] < 0 and brier["verdict"] == "helps"
    assert {nll["claim"], brier["claim"]} == {"secondary"}


def test_the_slope_over_doses_is_per_doubling(results):
    """Half the dose gains half as much; copies gain nothing."""
    dice = np.linspace(0.6, 0.8, 20)
    for seed in (0, 1):
        put(results / "dose", "original", seed, scores(dice))
        for arm, gain in (("synthetic-0.5x", 0.02), ("synthetic", 0.04)):
            put(results / "dose", arm, seed, scores(dice + gain))
        for arm in ("duplicates-0.5x", "duplicates"):
            put(results / "dose", arm, seed, scores(dice))
    task = judge(results, classify=None, segment=results / "dose")["tasks"]["segmentation"]
    ours, copies = task["doses"]
    assert (ours["set"], copies["set"]) == ("synthetic", "duplicates")
    assert ours["doses"] == {"synthetic": 1, "synthetic-0.5x": 0.5}
    assert ours["slope"] == pytest.approx(0.02) and copies["slope"] == pytest.approx(0)
    assert ours["over_duplicates"]["slope"] == pytest.approx(0.02)
    assert ours["interval"] == pytest.approx([0.02, 0.02])


def test_groups_have_thirty_images_and_simultaneous_intervals(tmp_path):
    labels = ["MEL"] * 40 + ["NV"] * 40 + ["MEL"] * 5
    table = predictions([True] * 85, labels)
    worse = predictions([k % 2 == 0 and k < 40 or k >= 40 for k in range(85)], labels)
    for seed in (0, 1):
        for arm in ("original", "duplicates"):
            put(tmp_path / "classify", arm, seed, table)
        put(tmp_path / "classify", "synthetic", seed, worse)
    found = judge(tmp_path, segment=None)["tasks"]["classification"]["groups"]
    melanoma, nevus = found["rows"]
    assert (melanoma["group"], melanoma["n"], melanoma["verdict"]) == ("MEL", 45, "harmed")
    # Recall of the class: 20 of 45 are missed.
    assert melanoma["difference"] == pytest.approx(-20 / 45)
    assert (nevus["difference"], nevus["verdict"]) == (0, "")
    assert found["worst"] == melanoma and found["confidence"] == pytest.approx(0.975)
    share = 20 / 45
    error = np.sqrt(share * (1 - share) / 44)
    reach = stats.t.ppf(1 - 0.05 / 4, 44) * error
    assert melanoma["interval"] == pytest.approx([-share - reach, -share + reach])
    table = pd.read_csv(tmp_path / "verdict" / "groups.csv")
    assert table["verdict"].fillna("").tolist() == ["harmed", ""]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> tuple[Path, list[str]]:
    """A manifest of 80 small phantoms, and their ids."""
    folder = tmp_path_factory.mktemp("phantoms")
    rows = []
    for spec in cohort(80, ("MEL", "NV"), seed=0):
        drawn = render(spec, 64)
        write_png(folder / f"{spec.id}.png", drawn.image)
        write_png(folder / f"{spec.id}_mask.png", drawn.mask)
        files = {"image": f"{spec.id}.png", "mask": f"{spec.id}_mask.png"}
        rows.append(dict.fromkeys(COLUMNS, "") | files | {"id": spec.id, "label": spec.label,
                    "split": "test", "width": 64, "height": 64})  # fmt: skip
    write_manifest(pd.DataFrame(rows), folder / "test.csv")
    return folder / "test.csv", [row["id"] for row in rows]


def test_groups_of_the_test_images_are_measured(results, phantoms):
    """Tone, size, hair and marks come from the images that the arms were tested on."""
    manifest, ids = phantoms
    for seed in (0, 1):
        for arm in ("original", "duplicates", "synthetic"):
            dice = np.full(len(ids), 0.8) - 0.1 * (arm == "synthetic")
            put(results / "seen", arm, seed, scores(dice).assign(id=ids))
    task = judge(results, classify=None, segment=results / "seen", test=manifest, workers=1)[
        "tasks"
    ]["segmentation"]
    rows = {(row["kind"], row["group"]): row for row in task["groups"]["rows"]}
    assert ("diagnosis", "MEL") in rows
    assert {kind for kind, _ in rows} >= {"diagnosis", "skin tone", "lesion size"}
    sizes = [row["n"] for (kind, _), row in rows.items() if kind == "skin tone"]
    assert min(sizes) >= 30
    assert {row["verdict"] for row in rows.values()} == {"harmed"}
    assert all(row["n"] < 30 for row in task["groups"]["too_small"])
    with pytest.raises(VerdictError, match="found no row for 20 of 20 test images"):
        judge(results, classify=None, test=manifest)


def test_each_task_has_its_own_arms(results):
    for seed in (0, 1):
        put(results / "classify", "weighted", seed, predictions(BASE, LABELS))
        put(results / "segment", "retired", seed, scores(np.linspace(0.6, 0.9, 20)))
    both = ("original", "duplicates", "synthetic")
    found = judge(results, classify_arms=(*both, "weighted"), segment_arms=both)["tasks"]
    assert set(found["classification"]["arms"]) == {*both, "weighted"}
    assert set(found["segmentation"]["arms"]) == set(both)


def test_other_metrics_may_decide(results):
    found = judge(results, classification_metric="macro F1", segmentation_metric="IoU")["tasks"]
    # Original: MEL 2 * 6 / (12 + 6), NV 2 * 4 / (4 + 10).
    mean = found["classification"]["arms"]["original"]["mean"]
    assert mean == pytest.approx((12 / 18 + 8 / 14) / 2)
    assert found["segmentation"]["metric"] == "IoU"
    plain = judge(results, classification_metric="accuracy")["tasks"]["classification"]
    assert plain["difference"] == pytest.approx(6 / 16)


def test_patients_are_the_unit_of_chance(results):
    for arm in ("original", "duplicates", "synthetic"):
        for seed in (0, 1):
            path = results / "classify" / arm / f"seed{seed}" / "predictions.csv"
            table = pd.read_csv(path)
            write_csv(path, table.assign(patient_id=["p1"] * 6 + ["p2"] * 6 + ["p3"] * 4))
    task = judge(results, segment=None)["tasks"]["classification"]
    assert task["n_clusters"] == 3
    assert task["verdict"] == "inconclusive"


def test_arms_and_seeds_of_an_earlier_run_are_passed_over(tmp_path):
    table = scores(np.array([0.5, 0.7]))
    for arm in ("original", "synthetic", "retired"):
        for seed in (10, 1, 2):
            put(tmp_path, arm, seed, table)
    found = read_arms(tmp_path, "scores.csv", ("original", "synthetic"), (2, 10))
    assert {arm: list(own.tables) for arm, own in found.items()} == {
        "original": [2, 10],
        "synthetic": [2, 10],
    }


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("metrics.json", '"training": {', '"training": 5, "x": {', "best_score"),
        ("metrics.json", '"n_real": 40', '"n_available": [1]', "n_available"),
        ("predictions.csv", ",NV,NV,0.1,0.9", ",NV,NV,0.9,0.1", "class of the highest"),
    ],
)
def test_results_edited_by_hand_are_named(results, name, old, new, fault):
    path = results / "classify" / "synthetic" / "seed0" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"seed0/{name}: .*{fault}"):
        judge(results)


def test_one_seed_is_not_read_from_two_folders(results):
    put(results / "classify", "original", 1, predictions([False] * 16, LABELS))
    twin = results / "classify" / "original" / "seed1"
    twin.rename(results / "classify" / "original" / "seed01")
    with pytest.raises(VerdictError, match="the same in every arm"):
        judge(results)


def put_external(folder: Path, **changes) -> Path:
    """Two external sets: in `near` as in the run's own test images, in `far` nothing gained."""
    place = folder / "external"
    dice = np.linspace(0.6, 0.9, 20)
    classified, segmented = [], []
    for seed in (0, 1):
        for arm in ("original", "duplicates", "synthetic"):
            gained = [True] * 16 if arm == "synthetic" else BASE
            for name, right in (("near", gained), ("far", BASE)):
                where = {"set": name, "arm": arm, "seed": seed}
                classified.append(predictions(right, LABELS).assign(**where))
            where["set"] = "near"
            segmented.append(scores(dice + 0.02 * (arm == "synthetic")).assign(**where))
    write_csv(place / "predictions.csv", pd.concat(classified).assign(**changes))
    write_csv(place / "scores.csv", pd.concat(segmented))
    return place


def test_external_sets_are_judged_by_the_same_rules(results):
    entries = judge(results, external=put_external(results))["tasks"]
    far, near = entries["classification"]["external"]
    own = entries["classification"]
    assert (near["set"], far["set"], near["n"]) == ("near", "far", 16)
    # The same predictions as on the run's own test images: the same answer, without Holm.
    assert near["difference"] == pytest.approx(own["difference"])
    assert near["interval"] == pytest.approx(own["interval"])
    assert (near["p"], near["verdict"]) == (pytest.approx(own["p_uncorrected"]), "helps")
    assert near["arms"] == pytest.approx({"original": 0.75, "duplicates": 0.75, "synthetic": 1})
    assert (far["difference"], far["verdict"], far["claim"]) == (0, "equivalent", "secondary")
    (dice,) = entries["segmentation"]["external"]
    assert (dice["set"], dice["difference"]) == ("near", pytest.approx(0.02))
    table = pd.read_csv(results / "verdict/external.csv")
    assert len(table) == 9 and table["mean"].max() == 1
    families = set(pd.read_csv(results / "verdict/comparisons.csv")["family"])
    assert {"external: near", "external: far"} <= families


def test_a_task_that_no_external_set_can_test_has_none_and_a_missing_table_is_an_error(results):
    place = put_external(results)
    head = pd.read_csv(place / "scores.csv")[:0]
    write_csv(place / "scores.csv", head)
    assert judge(results, external=place)["tasks"]["segmentation"]["external"] == []
    (place / "scores.csv").unlink()
    with pytest.raises(ValueError, match="run the external_test stage first"):
        judge(results, external=place)


def test_without_external_sets_nothing_is_said_of_them(results):
    assert judge(results)["tasks"]["classification"]["external"] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda t: t[t["arm"] != "duplicates"], "set far by arm duplicates, seeds .0, 1."),
        (lambda t: t[(t["seed"] == 0) | (t["set"] == "far")], "set near by arm .*seeds .1."),
        (lambda t: t[(t["id"] != "t3") | (t["arm"] != "synthetic")], "other test images"),
        (lambda t: t.drop(columns="set"), "set"),
    ],
)
def test_incomplete_external_results_are_refused(results, rows, message):
    place = put_external(results)
    table = pd.read_csv(place / "predictions.csv")
    write_csv(place / "predictions.csv", rows(table))
    with pytest.raises(ValueError, match=message):
        judge(results, external=place)


def test_seeds_of_one_generator_count_as_one_reader(results, tmp_path):
    """Four seeds whose gains depend on their generator alone are two readers, not four."""
    dice, gains = np.linspace(0.6, 0.8, 20), {3: 0.04, 0: 0.02, 7: 0.04, 5: 0.02}
    for seed, gain in gains.items():
        for arm in ("original", "duplicates", "synthetic"):
            table = scores(dice + gain * (arm == "synthetic"))
            put(tmp_path / "four", arm, seed, table)
    own = dict(segment=tmp_path / "four", classify=None)
    flat = judge(results, **own, seeds=tuple(gains))["tasks"]["segmentation"]
    nested = judge(results, **own, seeds=tuple(gains), generator_seeds=2)["tasks"]["segmentation"]
    assert nested["difference"] == pytest.approx(flat["difference"]) == pytest.approx(0.03)
    # Of the arm's two generators: 0.02 apart, halved as a variance of their mean.
    assert nested["variance"]["of_seeds"] == pytest.approx(0.02**2 / 2 / 2)
    assert flat["variance"]["of_seeds"] == pytest.approx(0.02**2 / 3 / 4)
    assert nested["variance"]["degrees_of_freedom"] == pytest.approx(1)
    assert nested["interval"][1] - nested["interval"][0] > 3 * np.ptp(flat["interval"])
    assert (nested["n_generators"], flat["n_generators"]) == (2, 1)
    assert "4 seeds of 2 generators" in nested["sentence"]
    assert "other generators trained on the same images" in nested["generalises"]
    assert "not to another generator" in flat["generalises"]
    assert nested["test"].replace("generators, by", "") != flat["test"]
    # What it would take is said in seeds, of as many generators as that needs.
    reach = nested["reach"]
    assert reach["seeds"] == 2 * reach["generators"]
    assert f"{reach['seeds']} seeds of {reach['generators']} generators" in nested["sentence"]
    with pytest.raises(ValueError, match="a multiple of it in number"):
        judge(results, **own, seeds=(3, 0, 7), generator_seeds=2)


def test_real_images_that_a_network_labelled_are_a_control(results):
    """A treatment that only ties them does not beat every control."""
    for seed in (0, 1):
        table = predictions([True] * 16, LABELS)
        put(results / "classify", "pseudo", seed, table, n_train=60, n_pseudo=20)
    task = judge(results, segment=None)["tasks"]["classification"]
    told = task["arms"]["pseudo"]
    assert (told["n_real"], told["n_pseudo"], told["n_synthetic"]) == (40, 20, 0)
    assert (task["verdict"], task["control"]) == ("helps", "duplicates")
    hardest = task["beats_every_control"]
    assert (hardest["verdict"], hardest["control"]) == (False, "pseudo")


def test_synthetic_images_alone_are_shown_and_compared_with_none(results):
    expected = judge(results)
    for seed in (0, 1):
        counts = {"n_train": 40, "n_real": 0, "n_synthetic": 40, "synthetic_set": "synthetic"}
        dice = np.linspace(0.1, 0.2, 20)
        table = predictions([True] * 16, LABELS)
        put(results / "classify", "synthetic_only", seed, table, **counts)
        put(results / "segment", "synthetic_only", seed, scores(dice), **counts)
    found = judge(results)
    for name, task in found["tasks"].items():
        told = task["arms"].pop("synthetic_only")
        assert (told["n_real"], told["n_synthetic"]) == (0, 40)
        assert told["mean"] == pytest.approx({"classification": 1, "segmentation": 0.15}[name])
    assert found == expected
    arms = pd.read_csv(results / "verdict" / "arms.csv")
    assert (arms["arm"] == "synthetic_only").sum() == 2 * 2
    for key in ("treatment", "control"):
        with pytest.raises(VerdictError, match=f"{key}: found 'synthetic_only', expected one of"):
            judge(results, **{key: "synthetic_only"})
    table = scores(np.linspace(0.1, 0.2, 20))
    put(results / "segment", "synthetic_only", 1, table, n_real=0, settings={"steps": 50})
    with pytest.raises(VerdictError, match="synthetic_only/seed1 .*settings.steps: found 50"):
        judge(results)
