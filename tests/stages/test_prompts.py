"""New prompts: written by a language model, or recombined, and read by the stage of images."""

import json

import pandas as pd
import pytest

from didgen.captions.llm import ChatResponse
from didgen.data.manifest import read_manifest
from didgen.stages import images, prompts


class Imitator:
    """A language model that repeats the first example with other hair and artifacts."""

    @staticmethod
    def identify(**settings):
        return "imitator"

    def __init__(self, **settings):
        pass

    def complete(self, requests):
        for k, request in enumerate(requests):
            example = json.loads(request.text.splitlines()[1])
            yield (
                k,
                ChatResponse(
                    json.dumps(example | {"hair": "dense", "artifacts": ["ink", "ruler"]})
                ),
            )

    def close(self):
        pass


@pytest.fixture
def config(mini_run, tmp_path, monkeypatch):
    """A run whose captions an OpenAI server is said to have made; the imitator stands for it."""
    monkeypatch.setattr("didgen.captions.client.load_captioner", lambda name: Imitator)
    told = tmp_path / "captioner.json"
    told.write_text(json.dumps({"captioner": "openai", "model": "m", "out": "elsewhere"}))
    return prompts.Config(
        train=mini_run.train, captions=mini_run.captions, captioner=told,
        backbone=mini_run.backbone, per_class=3, classes=("MEL", "NV"), out=tmp_path / "prompts",
    )  # fmt: skip


def requests(mini_run, tmp_path, **settings):
    return images._requests(
        images.Config(train=mini_run.train, captions=mini_run.captions, model=mini_run.backbone,
                      out=tmp_path / "images", **settings)
    )  # fmt: skip


def test_prompts_are_written_and_sampled_from(config, mini_run, tmp_path):
    prompts.run(config)
    table = pd.read_csv(config.out / "prompts.csv", dtype=str, keep_default_na=False)
    assert table["label"].tolist() == ["MEL"] * 3 + ["NV"] * 3
    written = table[table["origin"] == "language model"]
    assert len(written) >= 4
    assert written["caption"].str.endswith("with dense hair, a ruler and ink.").sum() == 0
    assert written["caption"].str.endswith("with dense hair, ink and a ruler.").all()
    figures = json.loads((config.out / "statistics.json").read_text())
    assert figures["MEL"]["made"] == 3 and figures["MEL"]["diversity"]["count"] == 3
    made = requests(
        mini_run, tmp_path, classes=("MEL", "NV"), per_class=3, prompts="llm",
        prompts_file=config.out / "prompts.csv",
    )  # fmt: skip
    assert [one.caption for one in made] == table["caption"].tolist()
    train = set(read_manifest(mini_run.train)["id"])
    assert all(one.parent_ids and set(one.parent_ids) <= train for one in made)


def test_the_same_seed_writes_the_same_prompts_without_asking(config, monkeypatch):
    prompts.run(config)
    first = (config.out / "prompts.csv").read_bytes()
    monkeypatch.setattr(Imitator, "complete", None)
    prompts.run(config)
    assert (config.out / "prompts.csv").read_bytes() == first


def test_images_are_asked_for_with_recombined_prompts(mini_run, tmp_path):
    made = requests(mini_run, tmp_path, classes=("MEL",), per_class=4, prompts="recombined")
    old = requests(mini_run, tmp_path, classes=("MEL",), per_class=4)
    assert [one.seed for one in made] == [one.seed for one in old]
    captions = pd.read_csv(mini_run.captions, dtype=str)["caption"]
    new = [one for one in made if len(one.parent_ids) == 2]
    assert new and not {one.caption for one in new} & set(captions)
    assert all("melanoma" in one.caption for one in made)


def test_what_cannot_be_asked_for_is_refused(config, mini_run, tmp_path):
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"captioner": "measure"}))
    with pytest.raises(ValueError, match="no language model"):
        prompts.run(config.model_copy(update={"captioner": measured}))
    for content in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"captioner": "gpt"}'):
        measured.write_bytes(content)
        with pytest.raises(ValueError, match="measured.json: no settings of the caption stage"):
            prompts.run(config.model_copy(update={"captioner": measured}))
    with pytest.raises(ValueError, match="no such file"):
        prompts.run(config.model_copy(update={"captioner": tmp_path / "absent.json"}))
    with pytest.raises(ValueError, match=r"classes asks for \['SCC'\]"):
        prompts.class_captions(mini_run.train, mini_run.captions, ("SCC",))
    with pytest.raises(ValueError, match="prompts.csv of the prompts stage"):
        requests(mini_run, tmp_path, classes=("MEL",), prompts="llm")
    prompts.run(config)
    with pytest.raises(ValueError, match="3 prompts of MEL, but 5 images"):
        prompts.read_prompts(config.out / "prompts.csv", "MEL", 5)
