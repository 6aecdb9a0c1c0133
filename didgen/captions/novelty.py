"""Near-duplicates among captions: how many content words two of them share."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from didgen.captions.diversity import words_of

# Words that every caption may have and that tell nothing of the image.
FILLERS = frozenset(["a", "an", "and", "at", "border", "in", "of", "on", "the", "tone", "with"])
MAX_OVERLAP = 0.9


def content_words(caption: str) -> Counter[str]:
    """The words that tell something, with their counts."""
    return Counter(word for word in words_of(caption) if word not in FILLERS)


def word_overlap(one: str, other: str) -> float:
    """Shared content words over all content words of both, repeats counted, in [0, 1].

    1 for two captions with the same content words in any order; also for two without any.
    """
    first, second = content_words(one), content_words(other)
    union = (first | second).total()
    return (first & second).total() / union if union else 1.0


class SeenCaptions:
    """Captions so far, and how close a further one comes to the closest of them."""

    def __init__(self, captions: Iterable[str] = ()) -> None:
        self._columns: dict[str, int] = {}
        self._counts = np.zeros((16, 64), dtype=np.uint16)
        self._size = 0
        for caption in captions:
            self.add(caption)

    def __len__(self) -> int:
        return self._size

    def closest(self, caption: str) -> float:
        """The largest `word_overlap` with a caption seen before; 0 without any."""
        if not self._size:
            return 0.0
        words = content_words(caption)
        known = {self._columns[word]: n for word, n in words.items() if word in self._columns}
        seen = self._counts[: self._size]
        columns = list(known)
        shared = np.minimum(seen[:, columns], list(known.values())).sum(axis=1)
        union = seen.sum(axis=1) + words.total() - shared
        return float(np.where(union > 0, shared / np.maximum(union, 1), 1.0).max())

    def add(self, caption: str) -> None:
        """Remember a caption."""
        words = content_words(caption)
        for word in words:
            self._columns.setdefault(word, len(self._columns))
        rows, columns = self._counts.shape
        more = (rows if self._size == rows else 0, max(0, len(self._columns) - columns))
        if any(more):
            wider = max(columns, 2 * len(self._columns)) if more[1] else columns
            grown = np.zeros((rows + more[0], wider), dtype=self._counts.dtype)
            grown[:rows, :columns] = self._counts
            self._counts = grown
        for word, n in words.items():
            self._counts[self._size, self._columns[word]] = n
        self._size += 1
