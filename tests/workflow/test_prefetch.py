"""`snakemake prefetch`: on the login node, all that the nodes cannot fetch."""

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
    settings = re.search(r"didgen prefetch --settings '(\{.*?\})'", printed)[1]
    asked = yaml.safe_load(settings)
    assert asked["backbone"] == "stabilityai/stable-diffusion-2-1-base"
    assert asked["networks"] == ["densenet121"]


def test_built_in_images_and_a_file_of_weights_need_no_download(
    tmp_path: Path, snakemake, jobs
) -> None:
    data = {"source": "phantoms", "splits": "grouped"}
    classify = {"weights": "densenet121.safetensors"}
    rules, printed = planned(tmp_path, snakemake, jobs, data=data, classify=classify)
    assert rules == {"weights", "prefetch"}
    assert '"networks": []' in printed
