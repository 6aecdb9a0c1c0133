import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from didgen.captions.isolated import IsolatedModel
from didgen.captions.llm import ChatRequest, ChatResponse, Failure, ModelError

TARGET = "fragile_model:FragileModel"


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """Make a supervised fragile model; its requests are logged in tmp_path/log."""
    shutil.copy(Path(__file__).with_name("fragile_model.py"), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(settings=None, **options):
        options = {"batch_size": 1, "retries": 1, "timeout": 60, **options}
        model = IsolatedModel(TARGET, {"log": str(tmp_path / "log"), **(settings or {})}, **options)
        made.append(model)
        return model

    yield make
    for model in made:
        model.close()


def ask(model, *texts):
    """The results of requests with these texts, in order."""
    return [result for _, result in sorted(model.complete(ChatRequest("", text) for text in texts))]


def upper(*texts):
    return [ChatResponse(text.upper(), 3, 2, 0.1) for text in texts]


def test_a_crash_costs_only_its_own_request(fragile, tmp_path):
    model = fragile()
    results = ask(model, "a", "abort", "b", "segfault", "c", "exit", "d")
    assert [results[k] for k in (0, 2, 4, 6)] == upper("a", "b", "c", "d")
    assert "SIGABRT" in results[1].reason
    assert "SIGSEGV" in results[3].reason
    assert "exit code 3" in results[5].reason
    # Each was tried once more.
    assert model.crashes == 6
    asked = (tmp_path / "log").read_text().split()
    assert [asked.count(text) for text in ("a", "abort", "segfault", "d")] == [1, 2, 2, 1]


def test_a_request_that_crashes_once_is_answered_at_the_second_try(fragile):
    model = fragile()
    assert ask(model, "a", "once", "b") == upper("a", "once", "b")
    assert model.crashes == 1


def test_a_batch_is_asked_one_by_one_after_a_crash(fragile, tmp_path):
    model = fragile(batch_size=3, retries=0)
    results = ask(model, "a", "abort", "b", "c")
    assert [results[k] for k in (0, 2, 3)] == upper("a", "b", "c")
    assert isinstance(results[1], Failure)
    assert (tmp_path / "log").read_text().split() == ["a", "abort", "a", "abort", "b", "c"]


def test_a_hanging_request_is_ended_and_failed(fragile):
    model = fragile(timeout=6, retries=0)
    started = time.monotonic()
    results = ask(model, "a", "hang", "b")
    assert [results[0], results[2]] == upper("a", "b")
    assert "no answer in 6 s" in results[1].reason
    assert time.monotonic() - started < 120


def test_what_the_model_raises_is_the_requests_own_failure(fragile):
    model = fragile(batch_size=2)
    results = ask(model, "a", "raise", "fail", "b")
    assert (results[0], results[3]) == tuple(upper("a", "b"))
    assert results[1] == Failure("RuntimeError: out of memory")
    assert results[2] == Failure("cut off")
    assert model.crashes == 0


def test_a_model_that_cannot_be_loaded_is_an_error(fragile):
    with pytest.raises(ModelError, match="no such file"):
        ask(fragile({"refuse": True}), "a")
    with pytest.raises(ModelError, match="while loading.*SIGABRT.*GGML_ASSERT"):
        ask(fragile({"die": True}), "a")
    with pytest.raises(ModelError, match="sees no images"):
        ask(fragile(), "a", "useless")


def test_nothing_is_loaded_before_the_first_request(fragile):
    model = fragile({"die": True})
    assert ask(model) == []


def test_it_can_be_loaded_ahead_of_the_first_request(fragile):
    model = fragile()
    model.start()
    process = model._process.pid
    assert ask(model, "a") == upper("a")
    assert model._process.pid == process


def test_a_batch_has_the_time_of_all_its_requests(fragile):
    model = fragile(batch_size=3, timeout=4, retries=0)
    model.start()
    assert ask(model, "wait2", "wait2", "wait2") == upper("wait2", "wait2", "wait2")
    assert model.crashes == 0


def test_closing_ends_the_process_and_removes_its_log(fragile):
    model = fragile()
    ask(model, "a")
    process, folder = model._process.pid, Path(model._folder.name)
    model.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    assert not folder.exists()


def test_the_process_ends_when_its_parent_is_killed(fragile, tmp_path):
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from didgen.captions.llm import ChatRequest\n"
        "from didgen.captions.isolated import IsolatedModel\n"
        "if __name__ == '__main__':\n"
        f"    model = IsolatedModel({TARGET!r}, {{'log': {str(tmp_path / 'log')!r}}}, 1, 1, 60)\n"
        "    for _ in model.complete(ChatRequest('', text) for text in ('a', 'hang')):\n"
        "        print(model._process.pid, flush=True)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)


def is_running(process):
    """Where nobody reaps orphans, a zombie stays; it holds nothing."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
