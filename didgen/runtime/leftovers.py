"""Temporary files that a killed process left beside what it was writing."""

import re
import shutil
from pathlib import Path

# As `files` names them: `.name.xxxxxxxx.part.suffix`, and folders `.name.partxxxxxxxx`.
_LEFTOVER = re.compile(r"\..+\.(part[a-z0-9_]{8}|[a-z0-9_]{8}\.part(\.[^.]*)?)$")


def remove_leftovers(folder: Path | str, of: str = "") -> list[Path]:
    """Remove what interrupted atomic writes left directly in a folder; say what it was.

    `of`: the name of the file or folder that was being written; "": any. Only for what no other
    process is writing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = [path for path in sorted(folder.iterdir()) if _LEFTOVER.fullmatch(path.name)]
    if of:
        found = [path for path in found if path.name.startswith(f".{of[:40]}.")]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return found
