"""Leases among made-up GPUs: a stand-in for `nvidia-smi` names them, so no GPU is needed."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from didgen.runtime import devices
from didgen.runtime.devices import TooFewGpus, UnsafeLockFolder, lease_gpus, visible_gpus

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from didgen.runtime.devices import lease_gpus
taken = lease_gpus(int(sys.argv[1]))
print(",".join(taken), os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(600)
"""


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Let the machine have so many GPUs, and locks of its own."""
    monkeypatch.setenv(devices.FOLDER, str(tmp_path / "locks"))
    for name in (devices.VISIBLE, "DIDGEN_GPUS_LEASED", "LOCAL_RANK", "CUDA_DEVICE_ORDER"):
        # Set, then deleted: what a test sets is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(devices, "_HELD", [])
    monkeypatch.setattr(devices, "_POLL", 0.05)

    def have(count):
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        lines = "".join(f"echo GPU-{number:04d}\n" for number in range(count))
        tool.write_text("#!/bin/sh\n" + (lines or "exit 9\n"))
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        devices._host_gpus.cache_clear()

    yield have
    for lock in devices._HELD:
        lock.release()
    devices._host_gpus.cache_clear()


@pytest.fixture
def job():
    """Start a process that takes GPUs and keeps them; its lease can be awaited."""
    started = []

    def start(count, visible=None):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        # Another job, no child of this one.
        environment.pop("DIDGEN_GPUS_LEASED", None)
        environment.pop(devices.VISIBLE, None)
        if visible is not None:
            environment[devices.VISIBLE] = visible
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def taken(process):
    names, visible = process.stdout.readline().split()
    assert names == visible
    return names.split(",")


def test_two_jobs_never_share_a_gpu_and_a_third_waits(gpus, job):
    gpus(2)
    first, second = job(1), job(1)
    held = taken(first), taken(second)
    assert sorted(held) == [["GPU-0000"], ["GPU-0001"]]
    third = job(1)
    time.sleep(0.5)
    assert third.poll() is None
    first.kill()  # as by the kernel, for want of memory: nothing is cleaned up
    assert taken(third) == held[0]


def test_several_are_taken_at_once_or_not_at_all(gpus, job, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    gpus(3)
    other = job(1)
    assert taken(other) == ["GPU-0000"]
    assert lease_gpus(2) == ["GPU-0001", "GPU-0002"]
    assert os.environ[devices.VISIBLE] == "GPU-0001,GPU-0002"
    waiting = job(2)
    time.sleep(1)
    other.kill()
    other.wait()
    # The waiting job holds no half: a small one passes it.
    assert taken(job(1)) == ["GPU-0000"]
    assert waiting.poll() is None


def test_all_gpus_of_a_machine_are_waited_for(gpus, job, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    gpus(2)
    other = job(1)
    taken(other)
    visible_gpus()
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: (other.kill(), other.wait()))
    assert len(lease_gpus(2)) == 2
    assert "waiting for 2 of 2 visible GPUs" in caplog.text


def test_a_scheduler_s_choice_is_kept(gpus, job, monkeypatch):
    gpus(4)
    monkeypatch.setenv(devices.VISIBLE, "2,3")
    assert visible_gpus() == {"2": "GPU-0002", "3": "GPU-0003"}
    assert lease_gpus() == ["2"] and os.environ[devices.VISIBLE] == "2"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    # The same GPU under another name is still taken.
    assert taken(job(1, "GPU-0002,GPU-0001")) == ["GPU-0001"]
    assert taken(job(1, "2,3")) == ["3"]


def test_where_there_is_no_choice_nothing_is_waited_for(gpus, job, monkeypatch, caplog):
    gpus(2)
    taken(job(1, "1"))
    monkeypatch.setenv(devices.VISIBLE, "1")
    assert lease_gpus() == ["1"]
    assert "GPU 1 is in use by another job too" in caplog.text


def test_a_second_call_takes_no_more(gpus):
    gpus(3)
    assert lease_gpus(2) == lease_gpus() == lease_gpus(2)
    with pytest.raises(TooFewGpus, match="3 GPUs are asked for, but 2 were taken"):
        lease_gpus(3)


def test_numbered_processes_share_what_is_visible(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert lease_gpus() == ["GPU-0000", "GPU-0001"]
    assert devices.VISIBLE not in os.environ


def test_more_than_there_are_is_an_error(gpus):
    gpus(2)
    with pytest.raises(TooFewGpus, match="3 GPUs are asked for, but there are only 2 visible"):
        lease_gpus(3)


def test_without_gpus_nothing_is_leased(gpus, monkeypatch):
    gpus(0)
    assert lease_gpus(2) == [] and devices.VISIBLE not in os.environ
    gpus(1)
    for hidden in ("", "-1", "7", "GPU-9"):
        monkeypatch.setenv(devices.VISIBLE, hidden)
        assert lease_gpus() == []


@pytest.fixture
def temporary(gpus, tmp_path, monkeypatch):
    """The system's temporary folder, with nothing in it, and no folder named for the locks."""
    monkeypatch.delenv(devices.FOLDER)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(devices.tempfile, "tempdir", str(tmp_path / "tmp"))
    gpus(2)
    return tmp_path / "tmp" / f"didgen-gpus-{os.getuid()}"


def test_locks_lie_in_a_private_folder_of_the_user(temporary, monkeypatch):
    assert lease_gpus() == ["GPU-0000"]
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in temporary.iterdir())


def test_a_planted_link_is_not_followed(temporary, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    temporary.symlink_to(theirs)
    with pytest.raises(UnsafeLockFolder, match="found a link or a file"):
        lease_gpus()
    assert not list(theirs.iterdir()) and theirs.stat().st_mode & 0o777 == 0o700
    temporary.unlink()
    temporary.touch()
    with pytest.raises(UnsafeLockFolder, match="found a link or a file"):
        lease_gpus()


def test_a_planted_link_in_place_of_a_lock_is_not_followed(temporary, tmp_path):
    lease_gpus()
    (tmp_path / "mine").write_text("mine")
    for lock in temporary.iterdir():
        lock.unlink()
        lock.symlink_to(tmp_path / "mine")
    for name in ("DIDGEN_GPUS_LEASED", devices.VISIBLE):
        os.environ.pop(name)
    with pytest.raises(OSError):
        lease_gpus()
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o777, 0o750])
def test_a_folder_that_others_can_enter_is_refused(temporary, mode):
    temporary.mkdir()
    temporary.chmod(mode)
    with pytest.raises(UnsafeLockFolder, match=f"mode {mode:o}, expected {os.getuid()} and 700"):
        lease_gpus()
    assert temporary.stat().st_mode & 0o777 == mode


def test_a_folder_of_another_user_is_refused(temporary, monkeypatch):
    temporary.mkdir(mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    temporary.rename(temporary.with_name(f"didgen-gpus-{owner + 1}"))
    with pytest.raises(UnsafeLockFolder, match=f"found owner {owner}"):
        lease_gpus()


def test_a_named_folder_may_be_shared_with_other_users(temporary, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv(devices.FOLDER, str(shared))
    assert lease_gpus() == ["GPU-0000"] and not temporary.exists()
    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert all(path.stat().st_mode & 0o777 == 0o666 for path in shared.iterdir())


def test_the_device_of_a_stage_is_a_leased_one(gpus, monkeypatch):
    import torch

    from didgen.runtime.precision import default_device

    gpus(2)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == torch.device("cuda", 0)
    assert os.environ[devices.VISIBLE] == "GPU-0000"
