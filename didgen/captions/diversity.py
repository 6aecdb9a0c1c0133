"""How varied a set of captions is: vocabulary, distinct n-grams, self-BLEU. Words, not tokens."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*")
MAX_ORDER = 4


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
    found = [gram for caption in captions for gram in n_grams(words_of(caption), order)]
    return len(set(found)) / len(found) if found else 0.0


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
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for gram, n in one.items():
            first, second = found.get(gram, (0, 0))
            found[gram] = (n, first) if n > first else (first, max(n, second))
    return found


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
