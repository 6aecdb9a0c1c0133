"""Whether the user's own files have changed: one digest of their names, sizes and times of change.

No file is opened but the table, so that a folder of a hundred thousand images is looked through in
about a second. Of the standard library alone: the workflow asks this wherever it is launched.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

NAMED = ("image", "mask")


def folder_state(folder: Path | str) -> str:
    """The state of all files below a folder, hidden ones left out, links followed.

    64 hexadecimal digits; what is missing has a state, too: no file at all.
    """
    return _digest(_files(str(folder)), str(folder))


def table_state(table: Path | str, columns: Mapping[str, str] | None = None) -> str:
    """The state of a table and of the images and masks that it names, relative to its folder.

    columns: our column names to the table's, where they differ. A table that cannot be read has the
    state of its own file: what is wrong with it is told by those who read it.
    """
    table = Path(table)
    names = [table.name]
    theirs = {name: (columns or {}).get(name, name) for name in NAMED}
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            rows = csv.DictReader(stream, delimiter=max(",\t;", key=head.count))
            rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
            for row in rows:
                names += [cell.strip() for key in theirs.values() if (cell := row.get(key))]
    except (OSError, UnicodeDecodeError, csv.Error):
        names = [table.name]
    return _digest(sorted({os.path.join(table.parent, name) for name in names}), str(table.parent))


def _files(folder: str) -> list[str]:
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        # A link back up would be walked for ever.
        folders[:] = [] if real in seen else [name for name in folders if name[0] != "."]
        if real not in seen:
            found += [os.path.join(place, name) for name in names if name[0] != "."]
        seen.add(real)
    return sorted(found)


def _digest(files: Iterable[str], base: str) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            state = os.stat(file)
            told = f"{state.st_size} {state.st_mtime_ns}"
        except OSError:
            told = "missing"
        digest.update(f"{os.path.relpath(file, base)}\0{told}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
