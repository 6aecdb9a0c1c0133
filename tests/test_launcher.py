"""`didgen run`: what is wrong is said before any job; what is right reaches snakemake."""

import os
import sys
from pathlib import Path

import pytest

from didgen import cli, launcher

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "config" / "smoke.yaml"


@pytest.fixture
def started(tmp_path: Path, monkeypatch) -> list[list[str]]:
    """The working folder is empty; commands that would take this process's place."""
    commands: list[list[str]] = []

    def execv(program: str, command: list[str]) -> None:
        assert program == sys.executable
        commands.append(command)
        raise SystemExit(0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", execv)
    return commands


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", *arguments])
    assert ended.value.code == 0


def test_options_and_targets_reach_snakemake_in_their_order(started) -> None:
    run("maps", "--cores", "2", "--configfile", str(SMOKE), "-n", "--config", "seed=1")
    snakefile = str(ROOT / "workflow" / "Snakefile")
    assert started == [
        [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "maps", "--cores", "2", "-n"]
        + ["--config", "seed=1", "--configfile", str(SMOKE)]
    ]


def test_a_target_may_follow_the_configuration(started) -> None:
    """Snakemake itself would take it for another configuration."""
    run("--configfile", str(SMOKE), "maps")
    assert started[0][-3:] == ["maps", "--configfile", str(SMOKE)]


def test_without_a_configuration_the_demo_runs(started, tmp_path: Path) -> None:
    run()
    assert started[0][-1] == str(ROOT / "config" / "config.yaml")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("run: own\n")
    run("-n")
    assert "--configfile" not in started[1], "snakemake finds it by itself"


def test_configurations_that_come_with_the_package_have_their_names(started, tmp_path) -> None:
    run("--configfile", "config/smoke.yaml")
    assert started[0][-1] == str(SMOKE)
    own = tmp_path / "config" / "smoke.yaml"
    own.parent.mkdir()
    own.write_text("run: own\n")
    run("--configfile", "config/smoke.yaml")
    assert started[1][-1] == str(own), "one's own comes first"


WRONG = {
    "missing": (None, "absent.yaml: cannot be read (No such file"),
    "UTF-16": ("run: a\n".encode("utf-16"), "save it as UTF-8"),
    "no YAML": (b"run: [a\nseed: 1\n", "neither YAML nor JSON"),
    "a list": (b"- run\n- seed\n", "found a list"),
    "empty": (b"", "found nothing"),
    "a section twice": (
        b"data: {size: 64}\nrun: a\ndata: {fit: pad}\n",
        "absent.yaml:3: `data` stands there and in line 1",
    ),
    "a key twice": (
        b"data:\n  size: 64\n  size: 128\n",
        "absent.yaml:3: `size` stands there and in line 2",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_is_no_configuration(started, tmp_path: Path, caplog, kind: str) -> None:
    text, expected = WRONG[kind]
    if text is not None:
        (tmp_path / "absent.yaml").write_bytes(text)
    assert cli.main(["run", "--configfile", "absent.yaml"]) == 2
    assert expected in caplog.text and not started


def test_an_unknown_target_is_named_beside_those_that_exist(started, caplog) -> None:
    assert cli.main(["run", "mapz", "--configfile", str(SMOKE)]) == 2
    assert "found the targets ['mapz']" in caplog.text and "maps" in caplog.text
    run("results/smoke/maps/maps.json", "--configfile", str(SMOKE))
    assert len(started) == 1


def test_a_folder_that_cannot_be_written(started, monkeypatch, caplog) -> None:
    monkeypatch.chdir("/proc")
    assert cli.main(["run", "-n"]) == 1
    assert "/proc: nothing can be written there" in caplog.text and not started


def test_another_working_folder_is_made(started, tmp_path: Path) -> None:
    run("--directory", "new/folder", "-n")
    assert (tmp_path / "new" / "folder").is_dir()


def test_an_unknown_option_is_refused(started, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--coers", "2"])
    assert ended.value.code == 2 and not started
    assert "--coers" in capsys.readouterr().err


def test_help_lists_targets_and_configurations(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    assert "config/isic2018.yaml" in text
    for name in ("all", "finetune", "images", "prefetch"):
        assert f"\n  {name} " in text


def test_every_target_can_be_built() -> None:
    assert {"all", "images", "pairs", "classify", "segment", "report"} <= launcher.targets().keys()
    assert all(launcher.targets().values())
    assert not {"images_job", "classify_job"} & launcher.targets().keys()
