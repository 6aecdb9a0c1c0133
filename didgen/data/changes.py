"""Which files lie in the user's folders, and whether they have changed.

No file is opened but the table, so that a folder of a hundred thousand images takes about two
seconds. Of the standard library alone: the workflow needs it wherever it is launched.
"""

import csv
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from didgen.data.sources.catalog import needed_archives

NAMED = ("image", "mask")
_ADDED_BY_SYSTEMS = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Walk(NamedTuple):
    """Paths below a folder. files: of regular files; special: of pipes, sockets, devices and broken
    links; unreadable: of folders whose files are unknown, each with the reason.
    """

    files: list[str]
    special: list[str]
    unreadable: dict[str, str]


def walk(folder: Path | str) -> Walk:
    """Everything below a folder, links followed, except hidden files and those that systems add.

    A link to a folder that it lies in is not followed. Two names of one folder make it unreadable:
    its images would have two classes.
    """
    walked = Walk([], [], {})
    # Folders are told apart by device and inode, whatever links lead to them.
    names: dict[tuple[int, int], str] = {}
    # Each folder with those above it; recursion could be too deep.
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(folder), frozenset())]
    while waiting:
        place, above = waiting.pop()
        try:
            status = os.stat(place)
            this = (status.st_dev, status.st_ino)
            if this in above:
                continue
            if this in names:
                walked.unreadable[place] = f"the same folder as {names[this]}"
                continue
            names[this] = place
            with os.scandir(place) as entries:
                visible = [entry for entry in entries if _visible(entry.name)]
        except (OSError, ValueError) as error:
            walked.unreadable[place] = getattr(error, "strerror", None) or str(error)
            continue
        folders = []
        for entry in visible:
            kind = _kind(entry)
            if kind == "folder":
                folders.append(entry.path)
            else:
                (walked.files if kind == "file" else walked.special).append(entry.path)
        waiting += [(path, above | {this}) for path in sorted(folders, reverse=True)]
    return walked


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in _ADDED_BY_SYSTEMS


def _kind(entry: os.DirEntry) -> str:
    # The directory itself knows most kinds; only links cost a look at the file.
    if entry.is_file(follow_symlinks=False):
        return "file"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "special"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "special"


def source_state(data: Mapping[str, Any]) -> str:
    """The state of the images that section `data` of a configuration names; "" for none."""
    if data["source"] == "table":
        return table_state(data["table"], data["columns"])
    return folder_state(data["folder"]) if data["folder"] else ""


def local_archives(data: Mapping[str, Any]) -> list[str]:
    """The archives that section `data` needs and that its mirror, a folder, has."""
    if not data["mirror"] or "://" in data["mirror"]:
        return []
    needed = needed_archives(official=data["splits"] == "official")
    paths = [Path(data["mirror"]) / archive.name for archive in needed]
    return [str(path) for path in paths if path.is_file()]


def folder_state(folder: Path | str) -> str:
    """The state of all files below a folder: one digest of their names, sizes and times of change.

    64 hexadecimal digits. What is missing or cannot be read has a state, too.
    """
    walked = walk(folder)
    return _digest(sorted([*walked.files, *walked.special, *walked.unreadable]), str(folder))


def table_state(table: Path | str, columns: Mapping[str, str] | None = None) -> str:
    """The state of a table and of the images and masks that it names, relative to its folder.

    columns: our column names to the table's, where they differ. A table that cannot be read has the
    state of its own file: those who read it say what is wrong with it.
    """
    table = Path(table)
    names = [table.name]
    theirs = {name: (columns or {}).get(name, name) for name in NAMED}
    try:
        # Opening a pipe would wait for ever.
        if table.is_file():
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


def _digest(files: Iterable[str], base: str) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):
            state = "missing"
        name = os.path.relpath(file, base)
        digest.update(f"{name}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
