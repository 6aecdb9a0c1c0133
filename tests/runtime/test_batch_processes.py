import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from didgen.runtime.batch_processes import memory_allows, process_count, share_out

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def makers(monkeypatch):
    """The functions that helpers call, under a name that their processes can import."""
    monkeypatch.syspath_prepend(HERE)
    return importlib.import_module("batch_makers")


def made_in(folder):
    return {path.name: path.read_text().split() for path in folder.iterdir() if path.name.isdigit()}


def test_helpers_share_the_batches_with_one_thread_each(tmp_path, makers):
    done = list(share_out(6, 2, makers.patient(tmp_path), makers.writer, tmp_path))
    assert sorted(done) == list(range(6))
    made = made_in(tmp_path)
    processes = {pid for pid, _ in made.values()}
    assert len(processes) == 2 and str(os.getpid()) in processes
    assert {threads for pid, threads in made.values() if pid != str(os.getpid())} == {"1"}


def test_alone_everything_is_made_here_in_order(tmp_path, makers):
    assert list(share_out(3, 1, makers.writer(tmp_path), makers.failing, tmp_path)) == [0, 1, 2]
    assert {pid for pid, _ in made_in(tmp_path).values()} == {str(os.getpid())}


def test_a_killed_helper_leaves_its_batch_to_the_others(tmp_path, makers, caplog):
    done = list(share_out(4, 2, makers.patient(tmp_path), makers.killed, tmp_path))
    assert sorted(done) == list(range(4)) and len(made_in(tmp_path)) == 4
    assert "killed, most likely for want of memory: the 1 batches" in caplog.text


def test_an_error_of_a_helper_is_raised_here(tmp_path, makers):
    def slow(batch):
        time.sleep(0.2)

    with pytest.raises(ValueError, match=f"found nothing in {tmp_path.name}"):
        list(share_out(300, 2, slow, makers.failing, tmp_path))


def test_helpers_end_with_a_killed_parent(tmp_path, makers):
    code = (
        "from pathlib import Path; import time\n"
        "from didgen.runtime.batch_processes import share_out\n"
        "from batch_makers import writer\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    list(share_out(10**6, 2, lambda batch: time.sleep(600), writer, folder))\n"
    )
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{HERE}"}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        wait_for(lambda: made_in(tmp_path))
        helper = int(next(iter(made_in(tmp_path).values()))[0])
        assert helper != parent.pid
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not Path(f"/proc/{helper}").exists())


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_no_more_processes_than_work_is_worth():
    assert process_count(8, 5, 10000, 200) == 5
    assert process_count(2, 5, 10000, 200) == 2
    assert process_count(8, 5, 650, 200) == 3
    assert process_count(8, 0, 0, 200) == 1


def test_memory_bounds_the_processes():
    # Stable Diffusion's 5.2 GB of weights in 24 GB: 24 / (1 + 2 * 5.2) is 2.1.
    assert memory_allows(5.2, 1.0) == 1
    assert memory_allows(0.05, 4.5) in (1, 2, 3, 4)
    assert memory_allows(0.0, 1e9) >= memory_allows(0.5, 1e9) >= 1
