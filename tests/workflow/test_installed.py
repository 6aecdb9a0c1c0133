"""The workflow without a checkout: from an installed wheel, and as a module of another workflow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_wheel_runs_the_smallest_configuration_all_the_way(tmp_path: Path, module) -> None:
    built, packages, folder = tmp_path / "built", tmp_path / "packages", tmp_path / "elsewhere"
    folder.mkdir()
    pip = ["pip", "--disable-pip-version-check"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(built)]
    done = module([*pip, *build], tmp_path)
    assert done.returncode == 0, done.stdout
    (wheel,) = built.glob("*.whl")
    done = module([*pip, "install", str(wheel), "--no-deps", "--target", str(packages)], tmp_path)
    assert done.returncode == 0, done.stdout
    smoke = ["didgen", "run", "--configfile", "config/smoke.yaml"]
    done = module(smoke, folder, timeout=3600, packages=packages)
    assert done.returncode == 0, done.stdout[-6000:]
    for part in ("workflow", "rules", "didgen", "config"):
        assert str(ROOT / part) not in done.stdout, "nothing of the checkout was used"
    run_dir = folder / "results" / "smoke"
    for name in ("report/index.html", "augment/metadata.csv", "finetune/model_index.json"):
        assert (run_dir / name).stat().st_size > 0
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert set(verdict["tasks"]) == {"classification", "segmentation"}
    for task in verdict["tasks"].values():
        assert task["sentence"]
        assert task["sentence"] in done.stdout
    page = (run_dir / "report" / "index.html").read_text()
    assert "<dt>SYN_" in page and "<dt>PAIR_" in page
    for stage in ("data", "caption", "finetune", "maps", "verdict", "report"):
        assert (run_dir / stage / "config.json").exists()
    again = module(smoke, folder, packages=packages)
    assert "Nothing to be done" in again.stdout


def test_an_installed_workflow_runs_with_its_package(
    installed: Path, tmp_path: Path, module
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = module(["didgen", "run"], folder, packages=installed)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "They help." in done.stdout
    assert (folder / "received.jsonl").exists(), "the stub stages of that package were run"


def test_another_workflow_uses_this_one_as_a_module(tmp_path: Path, fill, snakemake) -> None:
    """As snakedeploy writes it."""
    fill(tmp_path / "checkout")
    folder = tmp_path / "deployed"
    (folder / "workflow").mkdir(parents=True)
    (tmp_path / "checkout" / "config").rename(folder / "config")
    (folder / "workflow" / "Snakefile").write_text(
        'configfile: "config/config.yaml"\n\n\n'
        "module didgen:\n"
        f'    snakefile: "{tmp_path / "checkout" / "workflow" / "Snakefile"}"\n'
        "    config: config\n\n\n"
        "use rule * from didgen\n"
    )
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-4000:]
    assert (folder / "results" / "smoke" / "report" / "index.html").exists()
    assert (folder / "received.jsonl").exists(), "the stub stages of the checkout were run"


def test_without_the_package_it_says_what_is_missing(tmp_path: Path, fill) -> None:
    """Of a checkout whose package is gone, by an interpreter that has none."""
    fill(tmp_path)
    (tmp_path / "didgen").rename(tmp_path / "elsewhere")
    hidden = (
        "import importlib.util, sys; find = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *a: None if name == 'didgen' else find(name, *a);"
        "from snakemake.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", hidden, "-n"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "The package didgen is missing beside snakemake" in done.stdout + done.stderr
