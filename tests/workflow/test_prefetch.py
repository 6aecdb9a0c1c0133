"""`snakemake prefetch`: on the login node, all that the nodes cannot fetch."""

import re
from pathlib import Path

import pytest
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


def settings(printed: str) -> dict:
    return yaml.safe_load(re.search(r"didgen prefetch --settings '(\{.*?\})'", printed)[1])


def test_archives_and_weights_are_fetched(tmp_path: Path, snakemake, jobs) -> None:
    rules, printed = planned(tmp_path, snakemake, jobs, classify={"weights": "hub"})
    assert rules == {"fetch", "weights", "prefetch"}
    asked = settings(printed)
    assert asked["backbone"] == "stabilityai/stable-diffusion-2-1-base"
    assert asked["networks"] == ["densenet121"] and asked["spaces"] == []


def test_built_in_images_and_a_file_of_weights_need_no_download(
    tmp_path: Path, snakemake, jobs
) -> None:
    data = {"source": "phantoms", "splits": "grouped"}
    classify = {"weights": "densenet121.safetensors"}
    rules, printed = planned(tmp_path, snakemake, jobs, data=data, classify=classify)
    assert rules == {"weights", "prefetch"}
    assert '"networks": []' in printed


@pytest.mark.parametrize(
    ("fidelity", "spaces"),
    [
        (
            {
                "spaces": ["inception", "dinov2"],
                "inception_weights": "hub",
                "dinov2_weights": "hub",
                "lpips_weights": "hub",
            },
            ["inception", "dinov2", "lpips"],
        ),
        # A file is there; a space that is not compared needs nothing.
        (
            {
                "spaces": ["inception"],
                "inception_weights": "inception.safetensors",
                "dinov2_weights": "hub",
            },
            [],
        ),
        ({"lpips_weights": "hub"}, ["lpips"]),
    ],
)
def test_networks_of_fidelity_are_fetched_where_they_are_asked_of_the_hub(
    tmp_path: Path, snakemake, jobs, fidelity: dict, spaces: list[str]
) -> None:
    _, printed = planned(tmp_path, snakemake, jobs, fidelity=fidelity)
    assert settings(printed)["spaces"] == spaces


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
