"""What a stage may replace, what it may not, and what a kill at any moment leaves."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from didgen.runtime import outputs
from didgen.runtime.outputs import (
    MARKER,
    OutputError,
    check_output,
    check_output_file,
    output_folder,
)

ROOT = Path(__file__).resolve().parents[2]


def write(out, files, stage="stage", **given):
    with output_folder(out, stage, **given) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def tree(folder):
    """Every file below a folder with its text, but markers."""
    files = [p for p in Path(folder).rglob("*") if p.is_file() and p.name != MARKER]
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(files)}


def test_a_result_appears_whole_and_lists_its_files(tmp_path):
    out = tmp_path / "run/out"
    with output_folder(out, "stage") as folder:
        (folder / "a").write_text("1")
        (folder / "sub").mkdir()
        (folder / "sub/b").write_text("2")
        assert not out.exists()
    assert tree(tmp_path / "run") == {"out/a": "1", "out/sub/b": "2"}
    marker = json.loads((out / MARKER).read_text())
    assert (marker["stage"], marker["files"]) == ("stage", ["a", "sub/b"])


def test_a_new_result_replaces_the_old_one_as_a_whole(tmp_path):
    out = tmp_path / "out"
    write(out, {"a": "1", "images/b": "2"})
    out.chmod(0o700)
    write(out, {"a": "3"})
    assert tree(tmp_path) == {"out/a": "3"} and not (out / "images").exists()
    # Images of patients stay as private as they were.
    assert out.stat().st_mode & 0o777 == 0o700


def test_a_failure_leaves_the_old_result_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    write(out, {"a": "1"})
    with pytest.raises(RuntimeError), output_folder(out, "stage") as folder:
        (folder / "a").write_text("half")
        raise RuntimeError("failed")
    assert tree(tmp_path) == {"out/a": "1"} and len(list(tmp_path.iterdir())) == 1


def test_foreign_files_are_refused_before_the_work_begins(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    # The settings of a stage are no proof: users copy them.
    (out / "config.json").write_text("{}")
    refused = pytest.raises(OutputError, match=r"found files, but no \.didgen\.json")
    with refused, output_folder(out, "stage"):
        raise AssertionError("the work began")
    write(tmp_path / "other", {"a": "1"}, stage="another")
    with pytest.raises(OutputError, match="a result of `didgen another`, expected one of"):
        check_output(tmp_path / "other", "stage")
    assert tree(tmp_path) == {"out/config.json": "{}", "other/a": "1"}


def test_folders_made_beforehand_are_no_result(tmp_path):
    (tmp_path / "out/images/empty").mkdir(parents=True)
    write(tmp_path / "out", {"a": "1"})
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    # Workflow engines delete the files that they know before they repeat a job.
    (tmp_path / "out/a").unlink()
    write(tmp_path / "out", {"a": "2"})
    assert tree(tmp_path) == {"out/a": "2"}


@pytest.mark.parametrize(
    "marker",
    ["", "[]", "null", "{", '{"stage": "stage"}', '{"format": 2, "stage": "stage"}',
     '{"format": "1", "stage": "stage"}', '{"format": 1, "stage": "stage", "files": [1]}',
     '{"format": 1, "stage": "stage", "files": 1}', '{"format": 1, "stage": "s", "more": 1}',
     "\udcff"],
)  # fmt: skip
def test_a_damaged_or_newer_marker_is_refused(tmp_path, marker):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("1")
    (out / MARKER).write_bytes(marker.encode(errors="surrogateescape"))
    with pytest.raises(OutputError, match=r"\.didgen\.json: cannot be read"):
        check_output(out, "stage")


def test_a_marker_that_is_a_link_is_no_marker(tmp_path):
    write(tmp_path / "out", {"a": "1"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a").write_text("mine")
    (tmp_path / "mine" / MARKER).symlink_to(tmp_path / "out" / MARKER)
    with pytest.raises(OutputError, match="no plain file"):
        check_output(tmp_path / "mine", "stage")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a working directory in it."""
    (tmp_path / "users/me/projects/here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "users/me"))
    monkeypatch.chdir(tmp_path / "users/me/projects/here")
    return tmp_path / "users/me"


@pytest.mark.parametrize("out", [".", "..", "../..", "../../..", "/", "./x/.."])
def test_the_working_directory_and_all_above_are_never_replaced(home, out):
    with pytest.raises(OutputError, match="holds the working directory"):
        check_output(out, "stage")


def test_the_home_folder_is_never_replaced(home, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for out in (home, home.parent):
        with pytest.raises(OutputError, match="holds the home folder"):
            check_output(out, "stage")
    with pytest.raises(OutputError, match="found ~, expected the path of the home folder"):
        check_output("~/out", "stage")
    check_output(home / "out", "stage")


def test_a_repository_is_never_replaced(tmp_path):
    write(tmp_path / "out", {"a": "1"})
    (tmp_path / "out/.git").mkdir()
    with pytest.raises(OutputError, match="is a repository"):
        check_output(tmp_path / "out", "stage")
    check_output(tmp_path / "out/results", "stage")


def test_a_folder_that_is_or_holds_an_input_is_never_replaced(tmp_path):
    source = tmp_path / "out/images"
    source.mkdir(parents=True)
    (tmp_path / "link").symlink_to(source)
    for inputs in ([source], [tmp_path / "link"], [tmp_path / "out"], [source / "gone.csv"]):
        with pytest.raises(OutputError, match=r"is or holds .*, which stage reads"):
            check_output(tmp_path / "out", "stage", inputs)
    check_output(source / "results", "stage", [source])


def test_a_file_where_a_folder_is_expected_is_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="found a file, expected a folder"):
        check_output(tmp_path / "notes.txt", "stage")
    with pytest.raises(OutputError, match="cannot be written to"):
        write(tmp_path / "notes.txt/out", {"a": "1"})
    assert tree(tmp_path) == {"notes.txt": "mine"}


def test_a_link_to_itself_and_a_name_without_room_are_refused_before_the_work(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop: found a file, expected a folder"):
        check_output(tmp_path / "loop", "stage")
    # The folder of unfinished work has a longer name.
    with pytest.raises(OutputError, match=r"cannot be written to \(File name too long\)"):
        write(tmp_path / ("x" * 250), {"a": "1"})


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    with pytest.raises(OutputError, match="a disk is mounted"):
        check_output(tmp_path / "out", "stage")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="locked: cannot be written to"):
        write(tmp_path / "locked/out", {"a": "1"})


def test_a_link_to_another_disk_stays_a_link(tmp_path):
    (tmp_path / "disk/out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk/out")
    for text in ("1", "2"):
        write(tmp_path / "out", {"a": text})
        assert (tmp_path / "out").is_symlink() and tree(tmp_path / "disk") == {"out/a": text}


def test_a_link_to_a_folder_of_the_user_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a").write_text("mine")
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="mine: found files, but no"):
        write(tmp_path / "out", {"a": "1"})
    assert tree(tmp_path / "mine") == {"a": "mine"}


def test_files_that_the_stage_did_not_write_are_carried_over(tmp_path, caplog):
    out, mine = tmp_path / "out", tmp_path / "mine"
    write(out, {"images/a": "1", "images/b": "2", "log": "3"})
    mine.mkdir()
    (mine / "x").write_text("x")
    (out / "notes.txt").write_text("mine")
    (out / "images/own").write_text("own")
    (out / "deep/er").mkdir(parents=True)
    (out / "deep/er/z").write_text("z")
    (out / "linked").symlink_to(mine)
    write(out, {"images/a": "4", "deep": "5", "images/own": "6"})
    assert tree(out) == {
        "images/a": "4", "deep": "5", "images/own": "6", "notes.txt": "mine",
        "kept-1/images/own": "own", "kept-1/deep/er/z": "z",
    }  # fmt: skip
    assert (out / "linked").is_symlink() and tree(mine) == {"x": "x"}
    assert "kept 4 files that are not of this result" in caplog.text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_marker_cannot_name_files_elsewhere(tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    write(out, {"a": "1"})
    mine.mkdir()
    (mine / "x").write_text("x")
    (out / "images").symlink_to(mine)
    marker = json.loads((out / MARKER).read_text())
    marker["files"] += ["../mine/x", str(mine / "x"), "images/x", "images"]
    (out / MARKER).write_text(json.dumps(marker))
    write(out, {"a": "2"})
    assert tree(mine) == {"x": "x"} and tree(out) == {"a": "2"}


def test_unfinished_work_of_the_same_key_is_continued(tmp_path):
    out = tmp_path / "out"
    for number in ("1", "2"):
        with pytest.raises(KeyboardInterrupt), output_folder(out, "stage", key="k") as folder:
            (folder / number).write_text(number)
            raise KeyboardInterrupt
    with output_folder(out, "stage", key="k") as folder:
        assert tree(folder) == {".lock": "", "1": "1", "2": "2"}
    assert tree(tmp_path) == {"out/1": "1", "out/2": "2"}
    # And of a finished one.
    with output_folder(out, "stage", key="k") as folder:
        assert tree(folder) == {".lock": "", **tree(out)} and len(tree(out)) == 2
    with output_folder(out, "stage", key="other") as folder:
        assert tree(folder) == {".lock": ""}
        (folder / "3").write_text("3")
    assert tree(tmp_path) == {"out/3": "3"}


def test_unfinished_work_of_another_stage_is_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "out", "a", key="k") as work:
        (work / "answers").write_text("paid")
        raise KeyboardInterrupt
    for key in ("k", "other", None):
        with pytest.raises(OutputError, match="found unfinished work of `didgen a`; finish it"):
            write(tmp_path / "out", {"x": "1"}, stage="b", key=key)
    write(tmp_path / "out", {"x": "1"}, stage="a", key="k")
    assert tree(tmp_path) == {"out/answers": "paid", "out/x": "1"}


def test_unfinished_work_of_another_key_is_begun_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "out", "stage", key="k"):
        raise KeyboardInterrupt
    for key in ("other", None):
        with pytest.raises(RuntimeError), output_folder(tmp_path / "out", "stage", key=key) as work:
            assert tree(work) == {".lock": ""}
            (work / "1").write_text("1")
            raise RuntimeError


def killed_at(step, out, files, key):
    """Write `out` in a process that is killed before its n-th change of the disk; whether it was.

    Forked, which is much quicker than a new interpreter for each step.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = iter(range(step))

    def counted(function):
        def call(*arguments, **named):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("rename", "replace", "unlink", "rmdir", "link", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    try:
        write(out, files, key=key)
    finally:
        os._exit(0)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_kill_at_any_step_loses_nothing_and_the_next_run_heals(tmp_path, key):
    old = {"a": "old", "b": "old", "sub/c": "old"}
    new = {"a": "new", "sub/c": "new"} | ({"b": "old"} if key else {})
    mine = {"notes": "mine", "deep/notes": "mine"}
    for step in range(100):
        folder = tmp_path / str(step)
        write(folder / "out", old, key=key)
        (folder / "out/deep").mkdir()
        for name in mine:
            (folder / "out" / name).write_text("mine")
        if not killed_at(step, folder / "out", new, key):
            break
        everything = [path.read_text() for path in folder.rglob("*") if path.name == "notes"]
        assert everything == ["mine", "mine"]
        # Snakemake makes the folders of outputs before it repeats a job.
        (folder / "out").mkdir(exist_ok=True)
        with pytest.raises(RuntimeError), output_folder(folder / "out", "stage", key=key):
            left = tree(folder / "out")
            left.pop(".lock", None)
            assert left in (old | mine, new | mine)
            raise RuntimeError
        write(folder / "out", new, key=key)
        assert tree(folder / "out") == new | mine
        assert [path.name for path in folder.iterdir()] == ["out"]
    assert step > 8


def test_a_second_process_waits_and_replaces_the_first_one_s_result(tmp_path, caplog):
    code = (
        "from didgen.runtime.outputs import output_folder; import sys\n"
        "with output_folder('out', 'stage') as folder:\n"
        "    (folder / 'a').write_text('first'); (folder / 'b').write_text('first')\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout.readline() == "held\n"
    seen = []

    def second():
        with output_folder(tmp_path / "out", "stage") as folder:
            seen.append(tree(tmp_path / "out"))
            (folder / "a").write_text("second")

    thread = threading.Thread(target=second, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert not seen and "another process is at work" in caplog.text
    first.communicate("\n")
    thread.join(30)
    assert seen == [{"a": "first", "b": "first"}] and first.returncode == 0
    assert tree(tmp_path) == {"out/a": "second"}


def test_many_at_once_leave_one_whole_result(tmp_path):
    code = (
        "from didgen.runtime.outputs import output_folder; import sys\n"
        "for _ in range(20):\n"
        "    with output_folder('out', 'stage') as folder:\n"
        "        for name in 'abc': (folder / name).write_text(sys.argv[1])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], cwd=tmp_path, env=environment)
        for number in range(3)
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(set(tree(tmp_path / "out").values())) == 1
    assert sorted(tree(tmp_path)) == ["out/a", "out/b", "out/c"]


def test_what_appears_at_the_output_during_the_work_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    refused = pytest.raises(OutputError, match="what was to be written there lies in")
    with refused, output_folder(out, "stage") as folder:
        (folder / "a").write_text("1")
        out.mkdir()
        (out / "mine").write_text("mine")
    assert tree(out) == {"mine": "mine"} and (tmp_path / ".out.unfinished/a").read_text() == "1"


def test_reserved_names_that_hold_something_else_are_refused(tmp_path):
    for name in (".a.unfinished", ".b.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    (tmp_path / ".c.unfinished").symlink_to(tmp_path / ".a.unfinished")
    for out in "abc":
        with pytest.raises(OutputError, match="this name is needed"):
            write(tmp_path / out, {"a": "1"})
    assert tree(tmp_path) == {".a.unfinished/mine": "mine", ".b.replaced/mine": "mine"}


def test_an_output_file_replaces_only_its_own_kind(tmp_path):
    def check(path):
        check_output_file(path, "a sum", lambda text: json.loads(text)["sum"] == 1)

    check(tmp_path / "none.json")
    (tmp_path / "own.json").write_text('{"sum": 1}')
    check(tmp_path / "own.json")
    texts = {"notes.txt": "mine", "c.json": '{"sum": 2}', "k.json": "{}", "l.json": "[]"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "b.json").write_bytes(b"\xff")
    # Nobody writes to it: to read it would be to wait for ever.
    os.mkfifo(tmp_path / "pipe")
    for name in (*texts, "b.json", "pipe"):
        with pytest.raises(OutputError, match=f"{name}: found something .* no file or a sum; noth"):
            check(tmp_path / name)
    for name, target in (("link", "gone"), ("loop", "loop"), ("linked.json", "own.json")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(OutputError, match=f"{name}: found a link to .*{target}, which would"):
            check(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: found a folder, expected the name of a file"):
        check(tmp_path / "folder")
    for above in ("notes.txt", "notes.txt/deep", "link"):
        with pytest.raises(OutputError, match="found a file or a broken link at .*, expected a f"):
            check(tmp_path / above / "a.json")


def test_the_log_says_nothing_without_foreign_files(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    for _ in range(2):
        write(tmp_path / "out", {"a": "1"})
    assert caplog.text == ""


def test_settings_name_what_a_stage_reads(tmp_path):
    from didgen.stages import augment, verdict

    config = augment.Config(images=(tmp_path / "a",), pairs=(tmp_path / "b",), out=tmp_path / "o")
    assert outputs.paths_read(config) == [tmp_path / "a", tmp_path / "b"]
    config = verdict.Config(run="r", classify=tmp_path, out=tmp_path / "v", tables=tmp_path / "t")
    assert outputs.paths_read(config) == [tmp_path]


def test_a_folder_that_another_process_renames_while_its_marker_is_read_is_no_fault(
    tmp_path, monkeypatch
):
    work, read = tmp_path / ".out.unfinished", outputs.read_json
    work.mkdir()
    (work / MARKER).write_text("{}")

    def renamed(path):
        if path.parent == work:
            shutil.rmtree(work)
            monkeypatch.setattr(outputs, "read_json", read)
        return read(path)

    monkeypatch.setattr(outputs, "read_json", renamed)
    write(tmp_path / "out", {"a": "1"})
    assert (tmp_path / "out/a").read_text() == "1"
