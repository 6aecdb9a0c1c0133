"""Runs whose pairs are of another method: it is trained, and no backbone that nothing uses."""

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
    configure(unfinished, data=data, pairs={"method": "warp", "count": 4})
    done = snakemake(unfinished, "all", "weights")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (unfinished / RUN / "report" / "index.html").exists()
    stages = received(unfinished)
    assert not {"finetune", "maps", "images", "prompts", "classify", "label_fidelity"} & set(stages)
    assert stages["train"]["method"] == stages["pairs"]["method"] == "warp"
    assert stages["pairs"]["model"] == str(RUN / "methods" / "warp")
    assert stages["weights"]["tokenizer_only"]


def test_images_of_the_backbone_go_with_pairs_of_another_method(
    unfinished: Path, snakemake, jobs
) -> None:
    """Such a method learns from the classes that the fine-tuning leaves out, too."""
    finetune = {"backbone": "tiny", "steps": 3, "classes": ["MEL", "NV"]}
    images = {"per_class": 2, "classes": ["MEL"]}
    configure(unfinished, finetune=finetune, images=images, pairs={"method": "warp", "count": 4})
    done = snakemake(unfinished, "augment", "maps")
    assert done.returncode == 0, done.stdout[-3000:]
    stages = received(unfinished)
    assert stages["images"]["model"] == str(RUN / "finetune")
    assert stages["pairs"]["model"] == str(RUN / "methods" / "warp")
    assert stages["pairs"]["classes"] is None
    done = snakemake(unfinished, "-n")
    assert {"report", "label_fidelity"} <= set(jobs(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "gpus"), [("warp", 0), ("didgen", 1)])
def test_a_method_without_a_network_takes_no_gpu(
    unfinished: Path, snakemake, monkeypatch, method: str, gpus: int
) -> None:
    tools = unfinished / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    configure(unfinished, pairs={"method": method, "count": 4})
    # Of a job with a message Snakemake does not print the resources.
    rules = unfinished / "rules" / "generation.smk"
    rules.write_text(re.sub(r" +message:\n.*\n", "", rules.read_text()))
    done = snakemake(unfinished, "pairs", "-n")
    (job,) = re.findall(r"^rule pairs_job:\n(?: +.*\n)+", done.stdout, re.MULTILINE)
    assert f"gpu={gpus}," in job
