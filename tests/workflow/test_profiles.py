"""Profiles: GPUs are found, and each kind of site gets the requests that it understands."""

import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "workflow" / "profiles"
SITE_KEYS = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())["__variables__"]

# Minutes of rules that the profile names, and of one that it does not.
RULES = """
rule all:
    input: "fetched", "tuned", "mapped"

rule fetch:
    output: "fetched"
    resources: runtime=lambda wildcards, attempt: 720 * attempt
    shell: "touch {output}"

rule finetune:
    output: "tuned"
    shell: "touch {output}"

rule maps:
    output: "mapped"
    shell: "touch {output}"
"""


def program(folder: Path, name: str, prints: str) -> None:
    """A command in `folder` that only prints."""
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def profile(name: str, folder: Path | None = None, **site: object) -> dict:
    """A profile as snakemake reads it, with keys of the site changed."""
    path = PROFILES / name / "config.yaml"
    if site:
        content = yaml.safe_load(path.read_text())
        assert set(site) <= set(content["__variables__"])
        content["__variables__"] |= site
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    with path.open() as stream:
        return dict(ProfileConfigFileParser().parse(stream))


def requests(profile: dict, rule: str) -> dict[str, str]:
    """What the profile sets for a rule."""
    lines = [
        line.split(":", 1)[1] for line in profile["set-resources"] if line.startswith(f"{rule}:")
    ]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch) -> Path:
    """A folder of programs that comes first; SLURM's and NVIDIA's own are out of sight."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("nvidia-smi", "scontrol"):
        program(folder, name, "")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.mark.parametrize(
    ("listed", "visible", "gpus"),
    [
        ("GPU 0: NVIDIA A100 (UUID: a)\nGPU 1: NVIDIA A100 (UUID: b)", None, 2),
        ("GPU 0: NVIDIA A100 (UUID: a)\nGPU 1: NVIDIA A100 (UUID: b)", "1", 1),
        ("No devices were found", None, 1),
        ("", "", 1),
        ("", "0,1,2", 3),
    ],
)
def test_gpu_jobs_queue_for_the_gpus_found(commands, monkeypatch, listed, visible, gpus) -> None:
    program(commands, "nvidia-smi", listed)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert profile("default")["resources"] == [f"gpu={gpus}"]


@pytest.mark.parametrize(
    ("gpus", "cores", "threads"), [(4, 16, 4), (2, 64, 8), (8, 4, 1), (1, 16, None), (0, 16, None)]
)
def test_every_gpu_of_a_machine_has_its_share_of_the_cores(
    commands, monkeypatch, gpus: int, cores: int, threads: int | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    rules = ("images_job", "pairs_job", "maps")
    expected = [f"{rule}={threads}" for rule in rules] if threads else []
    assert profile("default").get("set-threads", []) == expected


def test_a_site_that_counts_gpus(commands, tmp_path: Path) -> None:
    found = profile("slurm", tmp_path, gpu_model="a100", finetune_gpus=4)
    assert requests(found, "finetune") == {
        "slurm_partition": "'gpu'",
        "runtime": "1440 * attempt",
        "nodes": "1",
        "gpu": "4",
        "gpu_model": "'a100'",
    }
    assert requests(found, "pairs_job")["gpu"] == "1"


def test_a_site_that_knows_gres_alone(commands, tmp_path: Path) -> None:
    found = requests(profile("slurm", tmp_path, gpu_request="gres", gpu_model="h100"), "maps")
    assert (found["gpu"], found["gres"]) == ("0", "'gpu:h100:1'")
    found = requests(profile("slurm", tmp_path, gpu_request="gres"), "maps")
    assert found["gres"] == "'gpu:1'"


def test_a_site_whose_gpus_are_not_counted(commands, tmp_path: Path) -> None:
    found = profile("slurm", tmp_path, gpu_request="partition", constraint="rtx3060")
    maps = requests(found, "maps")
    assert (maps["gpu"], maps["slurm_extra"]) == ("0", "'--exclusive'")
    assert maps["constraint"] == "'rtx3060'"


def test_captions_that_take_no_gpu_say_so(commands, tmp_path: Path) -> None:
    """The login node may have one, which the rule would then ask the nodes for."""
    for rule in ("caption", "prompts"):
        assert requests(profile("slurm"), rule) == {"gpu": "0"}
        assert requests(profile("slurm", tmp_path, caption_gpus=2), rule)["gpu"] == "2"


def test_no_job_asks_for_more_minutes_than_the_site_allows(
    commands, tmp_path: Path, snakemake
) -> None:
    profile("slurm", tmp_path, longest_job=300)
    (tmp_path / "Snakefile").write_text(RULES)
    flags = ("--snakefile", "Snakefile", "--workflow-profile", ".", "-n")
    done = snakemake(tmp_path, *flags)
    assert done.returncode == 0, done.stdout
    blocks = re.findall(r"^rule (\w+):.*?runtime=(\d+)", done.stdout, re.DOTALL | re.MULTILINE)
    assert dict(blocks) == {"all": "60", "fetch": "300", "finetune": "300", "maps": "120"}


@pytest.mark.parametrize(
    ("site", "found"),
    [
        ({"finetune_gpus": 4}, "found 4 GPUs"),
        ({"finetune_gpus": 4, "gpu_request": "gres", "gpu_model": "h100"}, "found 4 GPUs"),
        ({"finetune_gpus": 4, "gpu_request": "partition"}, None),
        ({"finetune_gpus": 2}, None),
    ],
)
def test_as_many_gpus_as_processes(commands, tmp_path: Path, snakemake, site, found) -> None:
    profile("slurm", tmp_path, **site)
    config = {"seeds": [0], "finetune": {"processes": 2}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    flags = ("--workflow-profile", ".", "--configfile", "two.yaml")
    done = snakemake(tmp_path, "data", "-n", *flags)
    assert (done.returncode == 0) == (found is None), done.stdout
    if found:
        assert found in done.stdout and "expected 2, one for each" in done.stdout
        assert "Traceback" not in done.stdout


def test_a_misspelt_way_to_ask_for_gpus_is_named(commands, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="found 'gress', expected gpus, gres or partition"):
        profile("slurm", tmp_path, gpu_request="gress")


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ("AccountingStorageType   = accounting_storage/none", "squeue"),
        ("AccountingStorageType   = accounting_storage/slurmdbd", "sacct"),
        ("", "sacct"),
    ],
)
def test_a_site_without_accounting_is_asked_by_squeue(commands, shown: str, status: str) -> None:
    program(commands, "scontrol", shown)
    assert profile("slurm")["slurm-status-command"] == status


def test_accounts_are_optional_and_any_word(commands, tmp_path: Path) -> None:
    assert not [x for x in profile("slurm")["default-resources"] if "account" in x]
    # `all` is a function in Python, and resources are evaluated as Python.
    found = profile("slurm", tmp_path, account="my-lab", cpu_partition="all")
    assert "slurm_account='my-lab'" in found["default-resources"]
    assert "slurm_partition='all'" in found["default-resources"]


def test_arrays_are_off_unless_the_site_wants_them(commands, tmp_path: Path) -> None:
    assert "slurm-array-jobs" not in profile("slurm")
    assert profile("slurm", tmp_path, array_rules="pairs_job")["slurm-array-jobs"] == "pairs_job"


def test_every_rule_on_a_gpu_has_its_time_in_the_site() -> None:
    """A rule that asks for a GPU and is not in `gpu_minutes` would go where there is none."""
    with_gpu = set()
    for path in (ROOT / "rules").glob("*.smk"):
        rules = re.split(r"^rule (\w+):", path.read_text(), flags=re.MULTILINE)
        blocks = dict(zip(rules[1::2], rules[2::2], strict=True))
        with_gpu |= {name for name, block in blocks.items() if re.search(r"\bgpu=", block)}
    assert with_gpu and with_gpu == set(SITE_KEYS["gpu_minutes"])
