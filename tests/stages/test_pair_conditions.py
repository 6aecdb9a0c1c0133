"""Requests for pairs: whose masks they follow, in words that fit, whatever the shard."""

import numpy as np
import pandas as pd
import pytest

from didgen.backbone import loading, prompts
from didgen.data.manifest import write_manifest
from didgen.runtime.files import write_csv, write_png
from didgen.settings.pairs import Config
from didgen.stages import pairs

SIDE = 64
COUNT = 9


def ellipse(row, column, a, b):
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return ((y - row) / a) ** 2 + ((x - column) / b) ** 2 < 1


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Six training images; one has a full mask, one a diagnosis that was not trained on."""
    monkeypatch.setattr(loading, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(prompts, "build_prompt", lambda caption, _: f"<lesion>: {caption}")
    rng = np.random.default_rng(0)
    rows, captions = [], []
    for k in range(6):
        mask = ellipse(32, 32, *rng.uniform(8, 24, 2))
        if k == 2:
            mask[:] = True
        write_png(tmp_path / f"masks/{k}.png", mask)
        write_png(tmp_path / f"images/{k}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        label = "NV" if k == 3 else "MEL"
        rows.append({
            "id": f"real_{k}", "image": f"images/{k}.png", "mask": f"masks/{k}.png",
            "label": label, "split": "train", "lesion_id": "", "patient_id": "", "source": "test",
            "width": SIDE, "height": SIDE, "sha256": "",
        })  # fmt: skip
        captions.append({
            "id": f"real_{k}", "caption": f"The caption of {k}.", "diagnosis": label, "size": "",
            "shape": "", "symmetry": "", "border": "sharp", "colors": "black",
            "position": "upper left", "skin_tone": "", "hair": "none", "artifacts": "",
        })  # fmt: skip
    write_manifest(pd.DataFrame(rows), tmp_path / "train.csv")
    write_csv(tmp_path / "captions.csv", pd.DataFrame(captions))

    def make(**changes):
        usual = {"train": tmp_path / "train.csv", "captions": tmp_path / "captions.csv"}
        usual |= {"model": tmp_path, "out": tmp_path / "out", "classes": ("MEL",)}
        return Config(**usual | {"count": COUNT, "seed": 5} | changes)

    return make


USABLE = {"real_0", "real_1", "real_4", "real_5"}


def test_training_masks_are_used_as_they_are(config):
    requests = pairs.PairRequests(config())
    assert {request.parent_ids[0] for request in requests} == USABLE
    first = requests[0]
    assert len(first.parent_ids) == 1 and first.caption.startswith("The caption of")
    same = [r for r in requests if r.parent_ids == first.parent_ids]
    assert len(same) >= 2 and all((r.mask == first.mask).all() for r in same)


@pytest.mark.parametrize("conditions", ["augmented", "sampled"])
def test_changed_masks_are_new_every_time_and_said_in_the_caption(config, conditions):
    requests = pairs.PairRequests(config(conditions=conditions))
    assert len({request.mask.tobytes() for request in requests}) == COUNT
    for request in requests:
        assert request.mask.any() and not request.mask.all()
        assert set(request.parent_ids) <= USABLE
        # The lesions lie in the center, whatever the captions.csv of their parents says.
        assert "upper left" not in request.caption and "melanoma, black" in request.caption
    if conditions == "sampled":
        assert any(len(request.parent_ids) == 2 for request in requests)


@pytest.mark.parametrize("conditions", ["augmented", "sampled"])
def test_a_condition_depends_on_its_name_and_the_seed_alone(config, conditions):
    requests = pairs.PairRequests(config(conditions=conditions))
    fewer = pairs.PairRequests(config(conditions=conditions, count=3))
    for short, long in zip(fewer, requests, strict=False):
        assert (short.id, short.caption, short.parent_ids) == (
            long.id, long.caption, long.parent_ids
        )  # fmt: skip
        assert (short.mask == long.mask).all()
    other = pairs.PairRequests(config(conditions=conditions, seed=6))
    assert any((a.mask != b.mask).any() for a, b in zip(requests, other, strict=True))


def test_a_shard_makes_its_own_masks_alone(config, monkeypatch):
    from didgen.methods.protocol import shard_of
    from didgen.stages import synthetic_set

    made, real = [], pairs._Conditions.make

    def make(self, row, name):
        made.append(name)
        return real(self, row, name)

    monkeypatch.setattr(pairs._Conditions, "make", make)
    requests = pairs.PairRequests(config(conditions="augmented"))
    assert len(requests) == COUNT and made == []
    (first, last) = shard_of(synthetic_set.fixed_batches(COUNT, 3), "1/2")
    assert [requests[number].id for number in (*first, *last)] == made
    assert made == [f"PAIR_{number:05d}" for number in (0, 1, 2, 6, 7, 8)]
    with pytest.raises(IndexError):
        requests[COUNT]


def test_the_parents_are_those_of_the_plain_masks(config):
    plain = pairs.PairRequests(config())
    changed = pairs.PairRequests(config(conditions="sampled"))
    assert [r.parent_ids[0] for r in plain] == [r.parent_ids[0] for r in changed]
    assert [r.seed for r in plain] == [r.seed for r in changed]


def test_too_few_shapes_to_learn_from_are_refused(config):
    with pytest.raises(ValueError, match="no training image has a mask"):
        pairs.PairRequests(config(classes=("BCC",)))
    with pytest.raises(ValueError, match="found 1 masks that lie wholly"):
        pairs.PairRequests(config(classes=("NV",), conditions="sampled"))
