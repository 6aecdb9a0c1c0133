"""Label fidelity on colored discs, whose classes a small network learns in a few steps."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from didgen.data.manifest import write_manifest
from didgen.runtime.files import read_json, write_png
from didgen.settings.classify import Settings as ClassifySettings
from didgen.stages import label_fidelity
from didgen.stages.label_fidelity import Config, _folds, _of_several_lesions, run

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


def judged(folder: Path, shown: dict[str, str], **changes) -> dict:
    same = {"MEL": "MEL", "NV": "NV"}
    usual = dict(
        classifier=JUDGE, folds=2, out=folder / "out",
        train=discs(folder, "real", 24, same), val=discs(folder, "val", 8, same),
        synthetic=discs(folder, "made", 8, shown),
    )  # fmt: skip
    run(Config(**(usual | changes)))
    return read_json(folder / "out" / "label_fidelity.json")


def test_a_class_that_is_never_shown_is_found_out(tmp_path):
    """Both labels ask for a class, but every image shows MEL."""
    found = judged(tmp_path, {"MEL": "MEL", "NV": "MEL"})
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


def test_judges_that_are_done_are_not_trained_again(tmp_path, monkeypatch):
    same, trained = {"MEL": "MEL", "NV": "NV"}, []
    whole = judged(tmp_path, same, state=tmp_path / "state")
    assert not list((tmp_path / "state").glob("*"))

    def counted(learned, shown, classes, config, out, fold, state):
        trained.append(fold)
        if stop and fold == 1:
            raise KeyboardInterrupt
        seen = {kind: frame["label"].tolist() for kind, frame in shown.items()}
        return SimpleNamespace(describe=lambda: whole["model"]), seen

    monkeypatch.setattr(label_fidelity, "_train_judge", counted)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path, same, state=tmp_path / "state")
    assert trained == [0, 1]
    (kept,) = (tmp_path / "state").glob("*/judgements.json")
    whole_file = kept.read_text()
    for damaged in ("{}", '{"model": {}, "seen": {"real": [], "synthetic": []}}', "[]"):
        kept.write_text(damaged)
        with pytest.raises(ValueError, match=r"judgements\.json"):
            judged(tmp_path, same, state=tmp_path / "state")
    kept.write_text(whole_file)
    stop = False
    found = judged(tmp_path, same, state=tmp_path / "state")
    assert trained == [0, 1, 1] and found["mean"] == {"real": 1, "synthetic": 1}
    # Other synthetic images have to be judged anew.
    judged(tmp_path, {"MEL": "MEL", "NV": "MEL"}, state=tmp_path / "state")
    assert trained == [0, 1, 1, 0, 1] and not list((tmp_path / "state").glob("*"))


def test_there_are_as_many_folds_as_the_rarest_class_has_lesions(caplog):
    rows = [("MEL", f"L{k}") for k in range(5)] + [("NV", f"N{k % 3}") for k in range(6)]
    real = pd.DataFrame(rows + [("DF", "D"), ("DF", "D")], columns=["label", "lesion_id"])
    real = real.assign(id=[str(k) for k in range(len(real))], patient_id="")
    several = _of_several_lesions(real)
    assert set(several["label"]) == {"MEL", "NV"} and "2 of 13 real images left out" in caplog.text
    classes, folds = _folds(several, SimpleNamespace(folds=7, seed=0))
    assert classes == ["MEL", "NV"] and sorted(set(folds)) == [0, 1, 2]
    assert "3 folds in place of 7: NV has 3 lesions" in caplog.text


def test_unknown_classes_are_refused(tmp_path):
    other = discs(tmp_path, "other", 2, {"MEL": "MEL", "NV": "NV"}, label="BCC")
    with pytest.raises(ValueError, match=r"none of 2 images .*; make images of those"):
        judged(tmp_path, {"MEL": "MEL", "NV": "NV"}, synthetic=other)
    with pytest.raises(ValueError, match=r"none of 2 images .*; the judges stop by them"):
        judged(tmp_path, {"MEL": "MEL", "NV": "NV"}, val=other)
