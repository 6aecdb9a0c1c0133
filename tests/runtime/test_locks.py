import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from didgen.runtime import locks
from didgen.runtime.locks import own_run, sole_writer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def other(tmp_path):
    """Start a process that holds a lock; it says so first."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", f"from didgen.runtime.locks import *\nimport time\n{code}"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def released():
    yield
    while locks._HELD:
        locks._HELD.pop().close()


def snakemake_lock(directory):
    file = directory / "locks" / "0.input.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("data/train.csv\n")
    return file


OWN = "assert own_run('.snakemake'); print('held', flush=True); time.sleep(600)"


def test_the_lock_of_a_killed_run_is_dropped(tmp_path, other):
    directory = tmp_path / ".snakemake"
    run = other(OWN)
    file = snakemake_lock(directory)
    assert not own_run(directory) and file.exists()
    locks._HELD.pop().close()
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert own_run(directory) and not file.exists()


def test_a_lock_of_unknown_origin_or_of_another_machine_is_kept(tmp_path, monkeypatch):
    file = snakemake_lock(tmp_path)
    for host in ("here", "elsewhere", "elsewhere"):
        monkeypatch.setattr(locks.socket, "gethostname", lambda host=host: host)
        assert own_run(tmp_path) and file.exists()
        locks._HELD.pop().close()
    file.unlink()  # as `snakemake --unlock` does
    assert own_run(tmp_path)
    locks._HELD.pop().close()
    snakemake_lock(tmp_path)
    assert own_run(tmp_path) and not file.exists()


def test_the_lock_of_a_run_that_came_second_is_kept_after_the_first_has_ended(tmp_path, other):
    directory = tmp_path / ".snakemake"
    first = other(OWN)
    second = other("own_run('.snakemake'); print('held', flush=True); time.sleep(600)")
    file = snakemake_lock(directory)
    first.kill()
    first.wait()
    assert not own_run(directory) and file.exists()
    locks._HELD.pop().close()
    second.kill()
    second.wait()
    assert own_run(directory) and not file.exists()


def test_a_second_writer_waits_for_the_end_of_the_first(tmp_path, other, caplog):
    first = other("with sole_writer('set'):\n    print('held', flush=True); time.sleep(600)")
    entered = threading.Event()

    def write():
        with sole_writer(tmp_path / "set"):
            entered.set()

    second = threading.Thread(target=write, daemon=True)
    second.start()
    time.sleep(0.3)
    assert not entered.is_set() and "another process is at work" in caplog.text
    first.kill()
    second.join(30)
    assert entered.is_set()


def test_writers_of_different_folders_do_not_meet(tmp_path):
    with sole_writer(tmp_path / "a"), sole_writer(tmp_path / "b"):
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
