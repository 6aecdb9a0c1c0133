"""`snakemake prefetch`: on the login node, all that the nodes cannot fetch."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def planned(tmp_path: Path, snakemake, jobs, **changes: object) -> tuple[set[str], str]:
    config = yaml.safe_load((ROOT / "config" / "isic2018.yaml").read_text())
    for section, values in changes.items():
        config[section] = config.get(section, {}) | values
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(tmp_path, "prefetch", "-n", "-p", "--configfile", "run.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    return set(jobs(done.stdout)), done.stdout


def test_archives_and_weights_are_fetched(tmp_path: Path, snakemake, jobs) -> None:
    rules, printed = planned(tmp_path, snakemake, jobs, classify={"weights": "hub"})
    assert rules == {"fetch", "weights", "prefetch"}
    settings = json.loads(re.search(r"didgen weights --settings '(\{.*?\})' --out", printed)[1])
    assert settings["finetune"]["backbone"] == "stabilityai/stable-diffusion-2-1-base"
    assert settings["classify"]["weights"] == "hub"


def test_built_in_images_need_no_archives(tmp_path: Path, snakemake, jobs) -> None:
    data = {"source": "phantoms", "splits": "grouped"}
    rules, _ = planned(tmp_path, snakemake, jobs, data=data)
    assert rules == {"weights", "prefetch"}


def test_another_cache_is_filled_anew(unfinished: Path, snakemake, jobs, monkeypatch) -> None:
    keys = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")
    for key in keys:
        monkeypatch.delenv(key, raising=False)
    done = snakemake(unfinished, "prefetch")
    assert done.returncode == 0, done.stdout[-3000:]
    assert jobs(snakemake(unfinished, "prefetch", "-n").stdout) == {}
    for key in keys:
        monkeypatch.setenv(key, str(unfinished / "elsewhere"))
        assert "weights" in jobs(snakemake(unfinished, "prefetch", "-n").stdout), key
        monkeypatch.delenv(key)
