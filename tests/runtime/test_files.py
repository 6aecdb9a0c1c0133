import errno
import gc
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.lib.format import open_memmap
from PIL import Image
from safetensors.numpy import save_file

from didgen.runtime.files import (
    OutOfSpace,
    atomic_directory,
    atomic_path,
    read_csv,
    read_json,
    remove_leftovers,
    reserve,
    sha256_file,
    write_csv,
    write_json,
    write_png,
)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of its own with 64 KB, nearly full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no full disk can be made: there is no mount command")
    if done.returncode:
        pytest.skip(f"no full disk can be made: {done.stderr.strip()}")
    try:
        (folder / "ballast").write_bytes(bytes(48 * 1024))
        yield folder
    finally:
        # A memory map that its exception's traceback still holds keeps the file system busy.
        gc.collect()
        subprocess.run(["umount", str(folder)], check=True)


NOISE = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def save_set(target):
    with atomic_directory(target) as folder:
        save_file({"weights": NOISE}, folder / "weights.safetensors")


def save_map(target):
    with atomic_path(target) as path:
        stored = open_memmap(path, "w+", np.uint8, NOISE.shape)
        reserve(path)
        stored[:] = NOISE


@pytest.mark.parametrize(
    "write",
    [
        lambda target: write_png(target, NOISE),
        lambda target: write_json(target, NOISE),
        save_set,
        save_map,
    ],
    ids=["png", "json", "safetensors", "memory map"],
)
def test_a_truly_full_disk_is_named_and_nothing_is_left(tiny_disk, write):
    with pytest.raises(OutOfSpace, match="no space left while writing .*/result; nothing was left"):
        write(tiny_disk / "result")
    assert [path.name for path in tiny_disk.iterdir()] == ["ballast"]


def test_a_file_with_holes_would_kill_the_process_on_a_full_disk(tiny_disk):
    # What `reserve` is for. If this ever passes, the function can go.
    code = (
        "import numpy as np, sys; from numpy.lib.format import open_memmap;"
        "open_memmap(sys.argv[1], 'w+', np.uint8, (49152,))[:] = 1"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_disk / "map.npy")])
    assert done.returncode < 0


def test_reserving_fills_the_holes_and_keeps_the_bytes(tmp_path):
    path = tmp_path / "map.npy"
    stored = open_memmap(path, "w+", np.uint8, (1 << 20,))
    stored[7] = 9
    stored.flush()
    reserve(path)
    assert os.stat(path).st_blocks * 512 >= 1 << 20
    kept = np.load(path)
    assert kept[7] == 9 and kept.sum() == 9
    (tmp_path / "empty").touch()
    reserve(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_size == 0


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("I/O error: No space left on device (os error 28)", True),
        ("Disk quota exceeded (os error 122)", True),
        ("I/O error: Permission denied (os error 13)", False),
        ("something (os error 280)", False),
    ],
)
def test_a_full_disk_is_recognized_in_the_text_of_other_errors(tmp_path, text, full):
    kind = OutOfSpace if full else RuntimeError
    with pytest.raises(kind), atomic_directory(tmp_path / "set"):
        raise RuntimeError(text)
    assert list(tmp_path.iterdir()) == []


def test_what_interrupted_writes_left_is_removed_and_nothing_else(tmp_path):
    kept = ["a.png", ".hidden", ".config.part", "b.part", ".parts"]
    for name in kept:
        (tmp_path / name).touch()
    below = tmp_path / "below/images"
    below.mkdir(parents=True)
    with atomic_path(below / "c.tar.gz") as file, atomic_directory(tmp_path / "state") as folder:
        (folder / "weights").touch()
        # As after a kill here.
        (below / (file.name + ".copy")).touch()
        remove_leftovers(tmp_path)
        assert not file.exists() and not folder.exists()
        file.touch()
        folder.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "below", "state"}
    assert {path.name for path in below.iterdir()} == {"c.tar.gz", file.name + ".copy"}


def test_no_folder_has_no_leftovers(tmp_path):
    remove_leftovers(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert read_json(target) == {"x": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path):
    target = tmp_path / "big.bin"
    told = pytest.raises(OutOfSpace, match=r"no space left while writing .*big\.bin.*run the same")
    with told, atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_directories_appear_whole_or_not_at_all(tmp_path):
    final = tmp_path / "set"
    with atomic_directory(final) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_directory(final) as folder:
        (folder / "b").write_text("2")
        raise RuntimeError("killed")
    assert [p.name for p in final.iterdir()] == ["a"]
    with atomic_directory(final) as folder:
        (folder / "c").write_text("3")
    assert [p.name for p in final.iterdir()] == ["c"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_json_takes_numpy_values_and_refuses_nan(tmp_path):
    write_json(tmp_path / "n.json", {"a": np.float32(0.5), "b": np.arange(2)})
    assert json.loads((tmp_path / "n.json").read_text()) == {"a": 0.5, "b": [0, 1]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "bad.json", {"a": float("nan")})
    assert not (tmp_path / "bad.json").exists()


def test_png_round_trip_and_checked_types(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    write_png(tmp_path / "i.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "i.png")), image)
    write_png(tmp_path / "m.png", np.eye(3, dtype=bool))
    assert np.unique(np.asarray(Image.open(tmp_path / "m.png"))).tolist() == [0, 255]
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "f.png", np.zeros((2, 2)))


def test_csv_and_checksum(tmp_path):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1]}))
    assert (tmp_path / "t.csv").read_bytes() == b"a\n1\n"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_json_is_read_from_plain_files_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path}: found no plain file, expected one of JSON"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


def test_rows_with_more_cells_than_the_header_are_named(tmp_path):
    """pandas would take their first cells for an index, and shift all others."""
    path = tmp_path / "captions.csv"
    path.write_text("id,caption\na,x,1\n")
    with pytest.raises(ValueError, match=r"captions.csv: found rows of more cells than column"):
        read_csv(path, "caption", ("id", "caption"))
    path.write_text("id,caption\n")
    assert read_csv(path, "caption", ("id", "caption")).empty
