"""Runs with other methods: each is trained once, and its sets are arms of its name."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

RUN = Path("results") / "smoke"


def configure(copy: Path, **changes: dict) -> None:
    """Change sections of the copy's configuration, and train one network per arm."""
    path = copy / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text()) | {"seeds": [0], "shards": 1}
    for section, values in changes.items():
        config[section] = values
    path.write_text(yaml.safe_dump(config))


def received(copy: Path) -> dict[str, dict]:
    """The last settings that each stage received."""
    lines = map(json.loads, (copy / "received.jsonl").read_text().splitlines())
    return {line["stage"]: line["config"] for line in lines}


def test_without_images_nothing_needs_the_fine_tuned_backbone(unfinished: Path, snakemake) -> None:
    """Nor has the data to be of the backbone's size."""
    data = {"source": "phantoms", "phantoms": 56, "size": 96, "tasks": ["segmentation"]}
    verdict = {"treatment": "warp"}
    changes = {"data": data, "pairs": {"count": 4}, "methods": {"warp": {}}, "verdict": verdict}
    configure(unfinished, **changes, arms=["original", "duplicates"])
    done = snakemake(unfinished, "all", "weights")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (unfinished / RUN / "report" / "index.html").exists()
    stages = received(unfinished)
    unneeded = {"finetune", "maps", "images", "prompts", "classify"}
    assert not (unneeded | {"label_judges", "label_fidelity"}) & set(stages)
    assert stages["train"]["method"] == stages["pairs"]["method"] == "warp"
    assert stages["pairs"]["model"] == str(RUN / "methods" / "warp" / "model")
    assert stages["segment"]["synthetic"] == str(RUN / "methods/warp/augment/metadata.csv")
    assert stages["weights"]["tokenizer_only"]


def test_methods_stand_beside_the_own_sets_and_learn_from_the_same_images(
    unfinished: Path, snakemake, jobs
) -> None:
    finetune = {"backbone": "tiny", "steps": 3, "classes": ["MEL", "NV"]}
    images = {"per_class": 2, "classes": ["MEL"]}
    changes = {"finetune": finetune, "images": images, "pairs": {"count": 4}}
    configure(unfinished, **changes, methods={"warp": {}, "prefix": {}})
    done = snakemake(unfinished, "methods")
    assert done.returncode == 0, done.stdout[-3000:]
    stages = received(unfinished)
    assert stages["images"]["method"] == "prefix" and stages["images"]["prompts"] == "prefix"
    assert stages["images"]["model"] == str(RUN / "finetune")
    assert stages["train"]["finetune"]["classes"] == stages["pairs"]["classes"] == ["MEL", "NV"]
    done = snakemake(unfinished, "-n")
    left = jobs(done.stdout)
    assert {"report", "label_fidelity", "images_job", "pairs_job"} <= set(left)
    assert "train_job" not in left
    # Each set is judged, by the same judges.
    assert left["label_judges"] == 1 and left["label_fidelity"] == 2


def test_a_method_gets_the_backbone_and_the_masks_that_it_builds_on(
    unfinished: Path, snakemake
) -> None:
    """It is trained on top of the fine-tuned one, and makes images for the own pairs' masks."""
    configure(unfinished, pairs={"count": 4}, methods={"controlnet": {}, "zestguide": {}})
    done = snakemake(unfinished, "methods")
    assert done.returncode == 0, done.stdout[-3000:]
    lines = map(json.loads, (unfinished / "received.jsonl").read_text().splitlines())
    asked = [line for line in lines if line["config"].get("method") in ("controlnet", "zestguide")]
    made = {(line["stage"], line["config"]["method"]): line["config"] for line in asked}
    backbone, own = str(RUN / "finetune"), [str(RUN / "pairs" / "1-of-1")]
    assert made["train", "controlnet"]["backbone"] == backbone
    trained = made["pairs", "controlnet"]
    assert trained["backbone"] == backbone and trained["generated"] == own
    assert trained["model"] == str(RUN / "methods" / "controlnet" / "model")
    free = made["pairs", "zestguide"]
    assert (free["model"], free["backbone"], free["generated"]) == (backbone, None, own)
    assert ("train", "zestguide") not in made


@pytest.mark.slow
def test_a_method_without_a_network_takes_no_gpu(unfinished: Path, snakemake, monkeypatch) -> None:
    tools = unfinished / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    configure(unfinished, pairs={"count": 4}, methods={"warp": {}})
    # Of a job with a message Snakemake does not print the resources.
    rules = unfinished / "rules" / "generation.smk"
    rules.write_text(re.sub(r" +message:\n.*\n", "", rules.read_text()))
    done = snakemake(unfinished, "pairs", "-n")
    asked = re.findall(r"^rule pairs_job:\n(?: +.*\n)+", done.stdout, re.MULTILINE)
    assert {"methods/warp" in job: re.search(r"gpu=(\d)", job)[1] for job in asked} == {
        True: "0",
        False: "1",
    }
