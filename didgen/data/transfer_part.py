"""The first bytes of a file whose transfer has not ended, and what they are bytes of."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """The unfinished file and what the server said of the whole: its size and its version."""

    path: Path

    @property
    def note(self) -> Path:
        """Where that is kept."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        """The bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def known(self) -> dict:
        """Keys `size` (bytes of the whole or None), `etag` and `modified` (text or None)."""
        try:
            known = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        return known if isinstance(known, dict) else {}

    def begin(self, known: dict) -> None:
        """Start anew. The old bytes go first: they must never stand beside a new version's note."""
        self.discard()
        self.note.write_text(json.dumps(known), encoding="utf-8")

    def discard(self) -> None:
        """Remove both."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
