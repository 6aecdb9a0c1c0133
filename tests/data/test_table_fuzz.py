"""Tables as no one should write them: refused in words or prepared whole, and nothing else.

Each example is a table of a dozen good images with faults of every kind: of its cells, of its
columns, of its bytes and encoding, of the settings that describe it.
"""

import csv
import io
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from didgen.data.changes import table_state
from didgen.data.images import ImageError
from didgen.data.leaks import LeakError
from didgen.data.manifest import SPLITS, ManifestError, read_manifest
from didgen.data.sources.own import own_records
from didgen.data.sources.records import SourceError
from didgen.data.splits import SplitError
from didgen.runtime.files import read_json
from didgen.stages.data import Config, run

OURS = (SourceError, SplitError, LeakError, ManifestError, ImageError)
COUNT = 12
COLUMNS = ("id", "image", "mask", "label", "lesion_id", "patient_id", "split")
TEXT = st.text(max_size=12)
# What has broken other readers of tables.
HOSTILE = st.sampled_from(
    ["", " ", "\0", "a\0b", "..", ".", "/", "~", "../../x", "/etc/passwd", "C:\\x", "-", "--help",
     "\r", "\n", "\r\n", "\t", ",", ";", '"', '""', '"a', "'", "\\", "#", "{}", "{id}",
     "$(touch x)", "`x`", "NA", "nan", "None", "null", "1", "1e400", "-0", "0x1", "x" * 300,
     "x" * 140_000,
     "\u00e9", "e\u0301", "\u202e", "\ufeff", "\u200b", "\U0001f600", "\x1b[2J", "\x85", "\u2028",
     "=cmd()", "train", "TEST", "val", "mel", "MEL", "Nevus", "i00", "I00", "i01", "0.png",
     "./0.png", "0_mask.png", "1.png", "broken.png", "pipe.png", "folder"]
)  # fmt: skip
CELL = HOSTILE | TEXT


@st.composite
def tables(draw) -> tuple[bytes, int | None, dict]:
    """The table's bytes, how many rows it has where that is known, and the settings about it."""

    def one_in(n: int) -> bool:
        return draw(st.integers(1, n)) == n

    rows = [
        {
            "id": f"i{k:02d}",
            "image": f"{k}.png",
            "mask": f"{k}_mask.png",
            "label": ("MEL", "NV")[k % 2],
            "lesion_id": f"l{k}",
            "patient_id": f"p{k}",
            "split": "",
        }
        for k in range(COUNT)
    ]
    # Half of the tables have no fault of cells but in the columns where any text may stand.
    faulty = COLUMNS if draw(st.booleans()) else ("lesion_id", "patient_id")
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from(faulty))] = draw(CELL)
    if one_in(8):
        rows.append(draw(st.fixed_dictionaries({name: CELL for name in COLUMNS})))
    if one_in(4):
        split = draw(st.lists(st.sampled_from((*SPLITS, "")), min_size=3, max_size=3))
        for k, row in enumerate(rows):
            row["split"] = split[k % 3]
    names = {name: name for name in COLUMNS}
    if one_in(4):
        names[draw(st.sampled_from(COLUMNS))] = draw(CELL)
    options = {"columns": {ours: theirs for ours, theirs in names.items() if ours != theirs}}
    if one_in(8):
        options["columns"] |= draw(
            st.dictionaries(st.sampled_from(COLUMNS) | TEXT, CELL, max_size=1)
        )
    codes = st.sampled_from(["MEL", "NV", None]) | TEXT
    options["labels"] = draw(st.dictionaries(CELL, codes, max_size=2)) if one_in(4) else {}
    lines = [list(names.values()), *(list(row.values()) for row in rows)]
    # Columns that nobody reads.
    for name in draw(st.lists(CELL, max_size=2)):
        lines = [[*line, draw(CELL) if number else name] for number, line in enumerate(lines)]
    if draw(st.booleans()):
        keys = draw(st.permutations(range(len(lines[0]))))
        lines = [[line[key] for key in keys] for line in lines]
    separator = draw(st.sampled_from(",;\t"))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    known: int | None = len(rows)
    if not one_in(6):
        stream = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        # Python's writer leaves carriage returns bare; a fault of the table as any other.
        csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows(
            lines
        )
        text = stream.getvalue()
        known = None if quoting == csv.QUOTE_MINIMAL and "\r" in "".join(sum(lines, [])) else known
    else:
        text, known = end.join(separator.join(line) for line in lines) + end, None
    others = st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-7"])
    content = text.encode(draw(others) if one_in(6) else "utf-8", errors="replace")
    for _ in range(draw(st.integers(1, 3)) if one_in(6) else 0):
        place = draw(st.integers(0, len(content)))
        kept = draw(st.sampled_from([place, place + 1, len(content)]))
        content = content[:place] + draw(st.binary(max_size=3) | st.just(b'"')) + content[kept:]
        known = None
    return content, known, options


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    folder = root / "clinic"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lesion = np.pad(np.full((8, 8), 255, np.uint8), 4)
    for k in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(
            folder / f"{k}.png"
        )
        Image.fromarray(lesion).save(folder / f"{k}_mask.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe.png")
    return folder


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder with its size and time of change."""
    states = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def rows_of(text: str) -> int:
    """The rows of a table without quotes: its lines with text, but for the first."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return sum(bool(line.strip()) for line in lines) - 1


def test_a_table_is_refused_in_words_or_prepared_whole(clinic, monkeypatch):
    root = clinic.parent
    table, out = clinic / "own.csv", root / "out"
    monkeypatch.chdir(root)
    outcomes = Counter()

    @settings(
        max_examples=150, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(tables())
    def attempt(example):
        data, known, options = example
        table.write_bytes(data)
        before = content(root)
        assert len(table_state(table, options["columns"])) == 64
        try:
            records = own_records(table, **options)
        except OURS as error:
            assert type(error) in OURS and str(error).startswith((str(table), "data."))
            outcomes["refused"] += 1
            assert content(root) == before
            return
        if known is None and b'"' not in data:
            known = rows_of(data.decode("utf-8"))
        if known is not None:
            assert len(records) == known
            outcomes["rows counted"] += 1
        try:
            run(
                Config(
                    source="table",
                    table=str(table),
                    classes=("MEL", "NV"),
                    size=32,
                    near_duplicates=False,
                    workers=1,
                    out=out,
                    **options,
                )
            )
        except OURS as error:
            assert type(error) in OURS
            outcomes["refused later"] += 1
            assert not list(out.glob("*.csv"))
        else:
            outcomes["prepared"] += 1
            summary = read_json(out / "summary.json")
            written = sum(len(read_manifest(out / f"{split}.csv")) for split in SPLITS)
            assert summary["n_images"] == written
            assert (
                summary["n_source"] == written + sum(summary["left_out"].values()) == len(records)
            )
        finally:
            shutil.rmtree(out, ignore_errors=True)
        assert content(root) == before

    attempt()
    print(dict(outcomes))
    assert min(outcomes[name] for name in ("refused", "rows counted", "prepared")) >= 20, outcomes
