"""How varied captions are, and which are near-duplicates. Words, not tokens.

Of a set: vocabulary, distinct n-grams, self-BLEU. Of two captions: the content words they share.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
MAX_ORDER = 4
# Words that every caption may have and that say nothing about the image.
FILLERS = frozenset(["a", "an", "and", "at", "border", "in", "of", "on", "the", "tone", "with"])


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; "blue-gray" is one word."""
    return _WORD.findall(text.lower())


def n_grams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """All runs of `order` words, in order, repeats included."""
    return [tuple(words[k : k + order]) for k in range(len(words) - order + 1)]


def vocabulary_size(captions: Sequence[str]) -> int:
    """Number of different words."""
    return len({word for caption in captions for word in words_of(caption)})


def distinct_n(captions: Sequence[str], order: int) -> float:
    """Different n-grams over all n-grams of the whole set, in [0, 1]; 0 where there are none.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function".
    """
    grams = [gram for caption in captions for gram in n_grams(words_of(caption), order)]
    return len(set(grams)) / len(grams) if grams else 0.0


def bleu(candidate: str, references: Sequence[str], max_order: int = MAX_ORDER) -> float:
    """BLEU of one sentence against references, in [0, 1] (Papineni et al. 2002).

    Above single words one is added to both counts of each precision, as Lin and Och (2004) do for
    sentences; otherwise a sentence without a common 4-gram would always have 0.
    """
    words = [words_of(reference) for reference in references]
    most: list[Counter] = [Counter() for _ in range(max_order)]
    for reference in words:
        for order, highest in enumerate(most, start=1):
            highest |= Counter(n_grams(reference, order))
    own = words_of(candidate)
    counts = [Counter(n_grams(own, order)) for order in range(1, max_order + 1)]
    clipped = [(own_counts & limit).total() for own_counts, limit in zip(counts, most, strict=True)]
    totals = [own_counts.total() for own_counts in counts]
    return _bleu(len(own), clipped, totals, sorted(map(len, words)))


def _bleu(length: int, clipped: list[int], totals: list[int], lengths: list[int]) -> float:
    """BLEU from the matched and all n-grams of each order and the references' sorted lengths."""
    if not length or not lengths or not clipped[0]:
        return 0.0
    closest = min(lengths, key=lambda other: (abs(other - length), other))
    brevity = min(0.0, 1 - closest / length)
    logs = [
        np.log((hit + (order > 0)) / (total + (order > 0)))
        for order, (hit, total) in enumerate(zip(clipped, totals, strict=True))
    ]
    return float(np.exp(brevity + np.mean(logs)))


def self_bleu(captions: Sequence[str], max_order: int = MAX_ORDER) -> float:
    """Mean BLEU of each caption against all others, in [0, 1]; 1: all say the same (Zhu 2018).

    0 for fewer than two captions. One pass over all n-grams: of each the two largest counts are
    kept, so that the largest among all other captions is known for each.
    """
    if len(captions) < 2:
        return 0.0
    words = [words_of(caption) for caption in captions]
    counts = [[Counter(n_grams(one, order + 1)) for order in range(max_order)] for one in words]
    most = [_two_largest([one[order] for one in counts]) for order in range(max_order)]
    lengths = Counter(map(len, words))
    scores = []
    for own_words, own in zip(words, counts, strict=True):
        clipped = [
            sum(min(n, _among_others(n, limit[gram])) for gram, n in grams.items())
            for grams, limit in zip(own, most, strict=True)
        ]
        others = lengths - Counter([len(own_words)])
        totals = [grams.total() for grams in own]
        scores.append(_bleu(len(own_words), clipped, totals, sorted(others)))
    return float(np.mean(scores))


def _two_largest(counts: list[Counter]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Of each n-gram the largest and the second largest count in a caption."""
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for gram, n in one.items():
            first, second = largest.get(gram, (0, 0))
            largest[gram] = (n, first) if n > first else (first, max(n, second))
    return largest


def _among_others(own: int, largest: tuple[int, int]) -> int:
    """The largest count in the other captions: the second, where the first is one's own."""
    return largest[1] if own == largest[0] else largest[0]


def diversity(captions: Sequence[str]) -> dict[str, float]:
    """Counts, vocabulary, mean words, distinct-1 to -3 and self-BLEU of a set of captions."""
    lengths = [len(words_of(caption)) for caption in captions]
    return {
        "count": len(captions),
        "distinct_captions": len(set(captions)),
        "vocabulary": vocabulary_size(captions),
        "mean_words": float(np.mean(lengths)) if lengths else 0.0,
        **{f"distinct_{order}": distinct_n(captions, order) for order in (1, 2, 3)},
        "self_bleu": self_bleu(captions),
    }


def content_words(caption: str) -> Counter[str]:
    """The content words, with their counts."""
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
