"""The verdict's section: every answer in plain words, every comparison, groups and doses."""

import json
from pathlib import Path

import pytest

from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import verdict
from didgen.report.sections.verdict import dose_chart
from didgen.settings.report import Settings


def page_of(run: Path) -> str:
    return str(render("demo", [verdict.section(run, Settings())]))


def edited(run: Path, task: str = "classification", **changes: object) -> Path:
    """The run, some keys of a task's verdict changed."""
    path = run / "verdict.json"
    told = json.loads(path.read_text())
    told["tasks"][task] |= changes
    path.write_text(json.dumps(told))
    return run


def plain(run: Path, place: int = 0) -> str:
    return " ".join(verdict.section(run, Settings()).content["tasks"][place]["plain"])


def numbers(mean: float, made: int = 0) -> dict:
    return {"mean": mean, "sd": 0.01, "per_seed": [mean] * 3, "n_synthetic": made}


EVERY = {"verdict": True, "control": "classic", "p": 0.01, "low": 0.01}
ARMS = {"original": numbers(0.581), "classic": numbers(0.58), "synthetic": numbers(0.612, 40)}


def test_a_verdict_that_helps_in_plain_words(own_run):
    edited(own_run, arms=ARMS, verdict="helps", interval=[0.004, 0.058], difference=0.031)
    edited(own_run, beats_every_control=EVERY, n_test=1512, n_clusters=1195, n_seeds=5)
    told = plain(own_run)
    assert (
        "1\N{NARROW NO-BREAK SPACE}512 real images of 1\N{NARROW NO-BREAK SPACE}195 lesions" in told
    )
    assert "each was done 5 times" in told
    assert "rose by 3.1 percentage points, from 58.1 % to 61.2 %" in told
    assert "any true change from +0.4 to +5.8 percentage points (95 % confidence" in told
    assert (
        "helped. They did better than every other use" in told and "(original and classic)" in told
    )
    edited(own_run, beats_every_control=EVERY | {"verdict": False}, interval=[0.004, 0.015])
    told = plain(own_run)
    assert "is not shown: classic comes too close. But the gain is below 2.0 percentage" in told


def test_the_other_answers_in_plain_words(own_run):
    reach = {"effect": 0.05, "power": 0.8, "seeds": 21, "images": None, "lesions": None}
    edited(own_run, arms=ARMS, verdict="inconclusive", reach=reach)
    told = plain(own_run)
    assert (
        "cannot tell. It would have found a true change of 5.0 percentage points in 80 of" in told
    )
    assert told.count("takes each training 21 times.") == 1
    edited(own_run, reach=reach | {"images": 6000})
    assert "each training 21 times or tests on 6000 images." in plain(own_run)
    edited(own_run, reach=reach | {"seeds": None})
    assert "both more trainings and more test images" in plain(own_run)
    edited(own_run, reach=None, n_seeds=1)
    assert "each was done once" in plain(own_run) and "Set at least two seeds" in plain(own_run)
    edited(own_run, verdict="hurts")
    assert "did harm" in plain(own_run)
    edited(own_run, verdict="equivalent")
    assert "no difference that matters: any change is below 2.0 percentage points" in plain(own_run)


def test_scores_of_segmentation_are_not_in_percent(own_run):
    assert "Dice (how much of the lesion" in plain(own_run, 1)
    assert "percent" not in plain(own_run, 1)


def test_groups_and_calibration_have_tables(own_run):
    row = {
        "kind": "skin tone",
        "group": "dark",
        "n": 34,
        "n_clusters": 30,
        "control": 0.7,
        "treatment": 0.5,
        "difference": -0.2,
        "interval": [-0.3, -0.1],
        "verdict": "harmed",
    }
    other = row | {"group": "light", "difference": 0.01, "interval": [-0.1, 0.1], "verdict": ""}
    groups = {"rows": [row, other], "worst": row, "confidence": 0.975,
              "too_small": [{"kind": "ink", "group": "seen", "n": 4}]}  # fmt: skip
    edited(own_run, groups=groups)
    task = verdict.section(own_run, Settings()).content["tasks"][0]
    table = task["groups"]
    assert [row.kind for row in table.rows] == ["leading", ""]
    assert table.rows[0].heading == "skin tone: dark"
    assert table.rows[0].cells[-1].text == "harmed"
    assert "97.5 % each" in table.note and "ink seen (4)" in table.note
    assert [row.heading for row in task["calibration"].rows] == ["NLL", "Brier score"]
    assert "Groups of test images" in page_of(own_run)


def test_slopes_are_told(own_run):
    slope = {"slope": 0.01, "interval": [0.002, 0.018], "p": 0.02}
    edited(own_run, doses=[slope | {"set": "synthetic"}, slope | {"set": "duplicates"}])
    told = verdict.section(own_run, Settings()).content["tasks"][0]["doses"]
    assert told == (
        "Each doubling of what is added changes balanced accuracy by +0.010 [0.002, 0.018] for "
        "images of synthetic and +0.010 [0.002, 0.018] for copies (95 % interval)."
    )


@pytest.mark.parametrize("value", [None, [], "x", -1])
def test_a_value_of_another_kind_is_an_error_that_names_the_file(own_run, value):
    path = own_run / "verdict.json"
    whole = json.loads(path.read_text())
    task = whole["tasks"]["classification"]
    for key in ("arms", "treatment", "verdict", "equivalence", "beats_every_control"):
        spoilt = {**whole, "tasks": {"classification": {**task, key: value}}}
        path.write_text(json.dumps(spoilt))
        with pytest.raises(BrokenResult, match="verdict.json: "):
            verdict.section(own_run, Settings())


def test_a_verdict_of_an_earlier_edition_asks_to_be_reached_again(own_run):
    path = own_run / "verdict.json"
    told = json.loads(path.read_text())
    del told["tasks"]["classification"]["equivalence"]
    path.write_text(json.dumps(told))
    with pytest.raises(BrokenResult, match="reach the verdict again"):
        verdict.section(own_run, Settings())


def comparison(
    arm: str, control: str, difference: float, answer: str, claim: str = "secondary"
) -> dict:
    return {
        "arm": arm, "control": control, "difference": difference,
        "interval": [difference - 0.02, difference + 0.02], "p": 0.04, "p_uncorrected": 0.0004,
        "claim": claim, "n_corrected_for": 2, "effect": {"name": "Cohen's g", "value": 0.12},
        "other_tests": {"McNemar": 0.03}, "sensitivity": {"paired by seed": 0.07},
        "verdict": answer,
    }  # fmt: skip


@pytest.fixture
def many_arms(own_run: Path) -> Path:
    path = own_run / "verdict.json"
    told = json.loads(path.read_text())
    task = told["tasks"]["classification"]
    sizes = {"n_real": 40, "n_duplicates": 0, "val_score": 0.6}
    for arm, made in (("original", 0), ("synthetic", 40), ("synthetic-0.5x", 20)):
        own = task["arms"].setdefault(arm, dict(task["arms"]["synthetic"]))
        own |= sizes | {"n_synthetic": made, "synthetic_set": "synthetic" if made else ""}
    task["arms"]["duplicates"] = dict(task["arms"]["original"]) | {"n_duplicates": 40}
    task["control"] = "duplicates"
    task["comparisons"] = {
        "control": [
            comparison("synthetic", "duplicates", 0.031, "helps", "lead"),
            comparison("synthetic-0.5x", "duplicates", -0.04, "hurts"),
        ],
        "original": [comparison("duplicates", "original", 0.001, "equivalent")],
        "every control": [comparison("synthetic", "original", 0.052, "helps")],
    }
    path.write_text(json.dumps(told))
    return own_run


def test_every_comparison_is_printed_whatever_it_says(many_arms):
    page = page_of(many_arms)
    assert "+0.031 [0.011, 0.051]" in page
    assert "−0.040 [−0.060, −0.020]" in page
    for words in ("synthetic-0.5x against duplicates", "duplicates against original", "hurts"):
        assert words in page
    assert "corrected by Holm for 2 tasks; all other claims are secondary" in page
    assert "paired by seed" in page and "McNemar" in page
    assert "how much is added" in page


def test_one_control_needs_one_table_and_no_curve(own_run):
    page = page_of(own_run)
    assert page.count("synthetic against original") == 2  # of two tasks
    assert "how much is added" not in page


def test_arms_outside_the_comparisons_and_labels_of_a_model_are_told(many_arms):
    arms = json.loads((many_arms / "verdict.json").read_text())["tasks"]["classification"]["arms"]
    arms["synthetic_only"] = arms["synthetic"] | {"n_real": 0}
    arms["pseudo"] = arms["original"] | {"n_pseudo": 123}
    page = page_of(edited(many_arms, arms=arms))
    assert page.count("(compared with none)") == 1
    row = page[page.index('<th scope="row">synthetic_only') :]
    assert row.index("(compared with none)") < row.index("</tr>")
    row = page[page.index('<th scope="row">pseudo') :]
    assert row.index(">123<") < row.index("</tr>")


def test_broken_comparisons_are_named(many_arms):
    path = many_arms / "verdict.json"
    told = json.loads(path.read_text())
    del told["tasks"]["classification"]["comparisons"]["original"][0]["interval"]
    path.write_text(json.dumps(told))
    with pytest.raises(BrokenResult, match="under 'interval'"):
        verdict.section(many_arms, Settings())


def arm(dose: int, values: list[float], name: str = "synthetic", copies: int = 0) -> dict:
    made = {"n_real": 40, "n_synthetic": dose, "n_duplicates": copies, "per_seed": values}
    return made | {"synthetic_set": name if dose else ""}


def test_doses_are_drawn_in_rising_order_with_each_seed():
    arms = {
        "original": arm(0, [0.5, 0.6]),
        "synthetic-2x": arm(80, [0.7, 0.8]),
        "synthetic": arm(40, [0.6, 0.7]),
        "duplicates": arm(0, [0.5, 0.5], copies=40),
        "prefix": arm(40, [0.5, 0.5], "prefix"),
    }
    chart = dose_chart("k", "t", "Dice", arms)
    assert [name for name, _ in chart.legend] == ["synthetic", "duplicates"]
    assert "synthetic from 0.55 to 0.75" in chart.svg
    # Two seeds and the mean of each line.
    assert chart.svg.count("<polyline") == 6
    assert dose_chart("k", "t", "Dice", {k: arms[k] for k in ("original", "synthetic")}) is None


def test_other_data_sets_have_a_table_and_every_arm_s_scores(own_run):
    row = {
        "set": "ph2", "n": 200, "n_clusters": 180, "classes": ["MEL", "NV"], "arm": "synthetic",
        "control": "duplicates", "difference": 0.03, "interval": [0.01, 0.05], "p": 0.01,
        "verdict": "helps", "arms": {"original": 0.7, "duplicates": 0.71, "synthetic": 0.74},
    }  # fmt: skip
    edited(own_run, external=[row, row | {"set": "<clinic>", "verdict": "inconclusive"}])
    compared, everyone = verdict.section(own_run, Settings()).content["tasks"][0]["external"]
    assert [row.heading for row in compared.rows] == ["ph2", "<clinic>"]
    assert [cell.value for cell in compared.rows[0].cells[:4]] == [200, 180, 0.71, 0.74]
    assert compared.rows[0].cells[-1].text == "helps"
    assert "ph2: MEL and NV" in compared.note
    assert everyone.columns == ("ph2", "<clinic>")
    assert [row.heading for row in everyone.rows] == ["original", "duplicates", "synthetic"]
    assert "<clinic>" not in page_of(own_run) and "&lt;clinic&gt;" in page_of(own_run)


def test_several_generators_are_told(own_run):
    reach = {"effect": 0.05, "power": 0.8, "seeds": 20, "generators": 10, "images": None}
    edited(own_run, arms=ARMS, verdict="inconclusive", reach=reach, n_seeds=6, n_generators=3)
    told = plain(own_run)
    assert "each was done 6 times, with the images of 3 generators in turn." in told
    assert "takes each training 20 times, with 10 generators." in told
    assert "Generators: 3." in page_of(own_run)
