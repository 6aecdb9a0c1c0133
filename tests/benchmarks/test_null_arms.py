"""The benchmark of null arms: what its sets hold, and how its count is judged."""

import numpy as np
import pandas as pd

from benchmarks import null_arms
from didgen.data.manifest import read_manifest


def rows(name: str, n: int) -> pd.DataFrame:
    return pd.DataFrame({
        "id": [f"{name}_{k}" for k in range(n)],
        "image": [f"images/{name}_{k}.png" for k in range(n)],
        "mask": [f"masks/{name}_{k}.png" for k in range(n)],
        "label": [null_arms.CLASSES[k % 3] for k in range(n)],
        "lesion_id": "l", "patient_id": "p", "source": "phantom", "split": "train",
    })  # fmt: skip


def test_null_sets_hold_nothing_new_and_the_informative_one_does():
    train, pool = rows("train", 6), rows("pool", 60)
    found = null_arms.synthetic_sets(train, pool, np.random.default_rng(0))
    assert {name: len(frame) for name, frame in found.items()} == dict.fromkeys(null_arms.SETS, 60)
    copies = found["copies"].merge(train, on="image", suffixes=("", "_real"))
    assert len(copies) == 60
    assert (copies["label"] == copies["label_real"]).all()
    assert copies["image"].value_counts().tolist() == [10] * 6
    true = pool.set_index("image")
    for name, agree in (("relabelled", 1 / 3), ("informative", 1)):
        frame = found[name]
        for column in ("label", "mask"):
            same = (frame[column].to_numpy() == true.loc[frame["image"], column].to_numpy()).mean()
            assert same <= agree + 0.2
            assert same == 1 or name == "relabelled"
    # Dealt out, not made up: the classes are as frequent as before.
    assert found["relabelled"]["label"].value_counts().nunique() == 1
    ids = pd.concat(found.values())["id"]
    assert ids.is_unique
    assert not set(ids) & set(train["id"])


def result(copies: str, informative: str) -> dict:
    told = {"copies": copies, "relabelled": "hurts", "informative": informative}
    return {"verdicts": {arm: {"verdict": answer} for arm, answer in told.items()}}


def test_one_false_alarm_in_twenty_is_allowed_and_two_are_not():
    quiet = [result("inconclusive", "helps")] * 19
    once = null_arms.summary([*quiet, result("helps", "inconclusive")])
    assert "null arm copies: 19 of 20 not called helpful (asked: at least 19): met" in once
    assert "null arm relabelled: 20 of 20 not called helpful" in once
    assert "informative arm: found to help in 19 of 20" in once
    assert "copies: 1 helps, 0 equivalent, 19 inconclusive, 0 hurts" in once
    twice = null_arms.summary([*quiet[1:], *[result("helps", "helps")] * 2])
    assert "null arm copies: 18 of 20 not called helpful (asked: at least 19): NOT met" in twice


def test_sets_that_repeat_images_are_manifests_whose_rows_share_no_file(tmp_path):
    sizes = {"real": 7, "added": 14, "val": 7, "test": 7}
    plan = null_arms.Plan(**sizes, task="classification", side=32, seeds=1, steps=1, out=tmp_path)
    paths = null_arms.draw(plan, 0, tmp_path)
    for name in null_arms.SETS:
        frame = read_manifest(paths[name], check_files=True)
        assert len(frame) == 14
        assert frame["image"].is_unique
