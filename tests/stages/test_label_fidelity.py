"""Label fidelity on colored discs, whose classes a small network learns in a few steps."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from didgen.data.manifest import write_manifest
from didgen.runtime.files import read_json, write_json, write_png
from didgen.settings.classify import Settings as ClassifySettings
from didgen.stages import label_fidelity, label_judges
from didgen.stages.label_judges import _folds, _of_several_lesions

SAME = {"MEL": "MEL", "NV": "NV"}
COLORS = {"MEL": (220, 30, 30), "NV": (30, 200, 30)}
JUDGE = ClassifySettings(
    model="resnet10t", steps=30, batch_size=8, eval_every=10, learning_rate=3e-3,
    precision="float32",
)  # fmt: skip


def discs(folder: Path, name: str, n: int, shown: dict[str, str], **columns: str) -> Path:
    """Discs in the color of `shown[label]`, labels in turn; two images a lesion."""
    rng = np.random.default_rng(len(name))
    rows, cols = np.mgrid[:32, :32]
    table = []
    for k in range(n):
        label, own = ("MEL", "NV")[k % 2], f"{name}_{k}"
        image = rng.integers(150, 200, (32, 32, 3)).astype(np.uint8)
        disc = (rows - 16) ** 2 + (cols - 16) ** 2 < rng.uniform(8, 12) ** 2
        image[disc] = COLORS[shown[label]]
        write_png(folder / "images" / f"{own}.png", image)
        table.append({
            "id": own, "image": f"images/{own}.png", "mask": "", "label": label, "split": "train",
            "lesion_id": f"{name}_{k // 4}_{k % 2}", "patient_id": "", "source": "test",
            "width": 32, "height": 32, "sha256": "",
        })  # fmt: skip
    write_manifest(pd.DataFrame(table).assign(**columns), folder / f"{name}.csv")
    return folder / f"{name}.csv"


def train_judges(folder: Path, **changes) -> Path:
    """Judges of 24 real images in two folds."""
    usual = dict(
        classifier=JUDGE, folds=2, out=folder / "judges",
        train=discs(folder, "real", 24, SAME), val=discs(folder, "val", 8, SAME),
    )  # fmt: skip
    label_judges.run(label_judges.Config(**(usual | changes)))
    return folder / "judges"


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_judges(tmp_path_factory.mktemp("real"))


def judged(folder: Path, judges: Path, synthetic: Path) -> dict:
    label_fidelity.run(
        label_fidelity.Config(synthetic=synthetic, judges=judges, out=folder / "out")
    )
    return read_json(folder / "out" / "label_fidelity.json")


def test_a_class_that_is_never_shown_is_found_out(judges, tmp_path):
    """Both labels ask for a class, but every image shows MEL."""
    made = discs(tmp_path, "made", 8, {"MEL": "MEL", "NV": "MEL"})
    found = judged(tmp_path, judges, made)
    assert found["mean"]["real"] > 0.9
    assert found["classes"]["MEL"]["synthetic"]["share"] > 0.9
    assert found["classes"]["NV"]["synthetic"]["share"] < 0.1
    assert found["classes"]["NV"]["real"]["share"] > 0.9
    assert found["seen"]["synthetic"][1][0] > 0.9
    real = found["classes"]["MEL"]["real"]
    assert (real["n"], real["n_independent"]) == (12, 6)
    table = pd.read_csv(tmp_path / "out" / "judgements.csv")
    sizes = table.groupby("kind").size()
    assert (sizes["real"], sizes["synthetic"]) == (24, 2 * 8)
    # A lesion is never judged by two classifiers: one of them was trained on it.
    assert (table[table["kind"] == "real"].groupby("lesion")["fold"].nunique() == 1).all()


def test_a_set_without_a_class_and_one_with_a_class_that_nobody_learned(judges, tmp_path, caplog):
    """Both are judged by what they share with the real images, and what is left out is counted."""
    made = discs(tmp_path, "made", 9, SAME)
    table = pd.read_csv(made, dtype=str, keep_default_na=False)
    table.loc[table["label"] == "NV", "label"] = "BCC"
    table.to_csv(made, index=False)
    caplog.set_level("INFO")
    found = judged(tmp_path, judges, made)
    assert list(found["classes"]) == ["MEL"] and found["classes"]["MEL"]["synthetic"]["n"] == 5
    assert found["seen"]["classes"] == ["MEL", "NV"] and found["seen"]["synthetic"][1] == [0, 0]
    assert "4 of 9 images left out: no real image has their class" in caplog.text


def test_judges_see_the_same_from_their_files_as_in_memory(judges, tmp_path):
    """The real images as a set: of each fold those that its judge has not learned from."""
    found = judged(tmp_path, judges, judges.parent / "real.csv")
    table = pd.read_csv(tmp_path / "out" / "judgements.csv")
    kinds = [table[table["kind"] == kind] for kind in ("real", "synthetic")]
    both = kinds[0].merge(kinds[1], on=["id", "fold"], suffixes=("", "_again"))
    assert len(both) == 24 and (both["seen"] == both["seen_again"]).all()
    told = read_json(judges / "judges.json")
    assert (found["model"], found["folds"]) == (told["model"], 2)


def test_judges_that_are_done_are_not_trained_again(tmp_path, monkeypatch):
    train, trained = label_judges.train, []
    more = {"classifier": JUDGE.model_copy(update={"steps": 2}), "state": tmp_path / "state"}

    def counted(*arguments, **keywords):
        trained.append(arguments[6])
        if stop and len(trained) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **keywords)

    monkeypatch.setattr(label_judges, "train", counted)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        train_judges(tmp_path, **more)
    assert trained == [0, 1] and not (tmp_path / "judges").exists()
    (kept,) = (tmp_path / "state").glob("*/judge.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"delete .*judge\.safetensors to train this judge anew"):
        train_judges(tmp_path, **more)
    kept.write_bytes(whole)
    stop = False
    train_judges(tmp_path, **more)
    assert trained == [0, 1, 1] and not list((tmp_path / "state").glob("*"))
    resumed = read_json(tmp_path / "judges" / "judges.json")
    # The state of finished judges is gone: all are trained anew, to the same bytes.
    train_judges(tmp_path, **more)
    assert trained == [0, 1, 1, 0, 1]
    assert read_json(tmp_path / "judges" / "judges.json") == resumed


def test_incomplete_and_damaged_judges_are_refused(judges, tmp_path):
    made = discs(tmp_path, "made", 2, SAME)

    def refused(folder: Path, match: str) -> None:
        with pytest.raises(ValueError, match=match):
            judged(tmp_path, folder, made)

    refused(tmp_path / "none", r"judges\.json: no such file; run the label_judges stage first")
    copy = tmp_path / "copy"
    shutil.copytree(judges, copy)
    told = read_json(copy / "judges.json")
    for text in ("[]", "{}", "no"):
        (copy / "judges.json").write_text(text)
        refused(copy, r"judges\.json: ")
    write_json(copy / "judges.json", told | {"classes": ["MEL", "BCC"]})
    refused(copy, r"fold0\.safetensors: found a judge of MEL, NV, expected one of MEL, BCC")
    write_json(copy / "judges.json", told)
    path = copy / "fold1.safetensors"
    weights = load_file(path)
    save_file({name: value + 1 for name, value in weights.items()}, path)
    refused(copy, r"fold1\.safetensors: found another SHA-256")
    path.unlink()
    refused(copy, r"fold1\.safetensors: no such file")
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_than_the_judges_learned_from_are_refused(judges, tmp_path):
    made = discs(tmp_path, "made", 2, SAME)
    for path in (tmp_path / "images").iterdir():
        write_png(path, np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(ValueError, match="found images of 48x48 px, .* learned from 32x32 px"):
        judged(tmp_path, judges, made)


def test_there_are_as_many_folds_as_the_rarest_class_has_lesions(caplog):
    rows = [("MEL", f"L{k}") for k in range(5)] + [("NV", f"N{k % 3}") for k in range(6)]
    real = pd.DataFrame(rows + [("DF", "D"), ("DF", "D")], columns=["label", "lesion_id"])
    real = real.assign(id=[str(k) for k in range(len(real))], patient_id="")
    several = _of_several_lesions(real)
    assert set(several["label"]) == {"MEL", "NV"} and "2 of 13 real images left out" in caplog.text
    folds = _folds(several, SimpleNamespace(folds=7, seed=0))
    assert sorted(set(folds)) == [0, 1, 2]
    assert "3 folds in place of 7: NV has 3 lesions" in caplog.text


def test_unknown_classes_are_refused(judges, tmp_path):
    other = discs(tmp_path, "other", 2, SAME, label="BCC")
    with pytest.raises(ValueError, match=r"none of 2 images .*; make images of those"):
        judged(tmp_path, judges, other)
    with pytest.raises(ValueError, match=r"none of 2 images .*; the judges stop by them"):
        train_judges(tmp_path, val=other)
