import errno
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.data.files import (
    OutOfSpace,
    atomic_directory,
    atomic_path,
    read_json,
    sha256_file,
    write_csv,
    write_json,
    write_png,
)


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
