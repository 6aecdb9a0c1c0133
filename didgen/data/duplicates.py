"""Exact copies and near-duplicates among all photographs of a run.

Copies: the perceptual hashes of two photographs differ in few bits, in any of eight orientations.
Same lesion: enough local features agree on one similarity (shift, turn and zoom), after Lowe 2004;
whom to compare is decided by single features that are nearly equal, which are sought by an inverted
file, so that the exact comparison grows with the number of photographs, not with that of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from didgen.data.fingerprints import HASH_SIDE, Fingerprint

# Gray values (0..255) that vary less than this show nothing that could be compared.
LEAST_CONTRAST = 2.0
IMAGES_AT_ONCE = 1024
FEATURES_A_CELL = 1600
Kind = Literal["exact", "near", "lesion", "patient"]


@dataclass(frozen=True)
class Pair:
    """Two related images by their numbers, a < b.

    distance: for near-duplicates 0..1, the share of hash bits that differ, or of the local features
    that find no counterpart; None for relations that are known from ids alone.
    """

    a: int
    b: int
    kind: Kind
    distance: float | None = None


@dataclass(frozen=True)
class DuplicateRule:
    """What counts as a near-duplicate.

    bits: most bits of 256 that may differ between copies. agreeing: least local features that agree
    on one similarity. candidates: photographs compared with each, those most alike in features.
    alike: least cosine of two descriptors that vote for a comparison. ratio: how much nearer than
    the second the nearest descriptor must be. tolerance: share of the shorter side by which a
    feature may miss its place.
    """

    bits: int = 32
    agreeing: int = 6
    candidates: int = 12
    alike: float = 0.92
    ratio: float = 0.85
    tolerance: float = 0.035

    def sentence(self) -> str:
        """The method in one sentence, for reports."""
        return (
            "Identical pixels; perceptual hashes of 256 bits, at most "
            f"{self.bits} of them different in any of eight orientations; or at least "
            f"{self.agreeing} SIFT features that agree on one shift, turn and zoom."
        )


def find_duplicates(prints: Sequence[Fingerprint], rule: DuplicateRule | None = None) -> list[Pair]:
    """Every pair of duplicates, each once, sorted; exact where the pixels are equal, else near."""
    rule = rule or DuplicateRule()
    pairs = {(p.a, p.b): p for p in exact_pairs([item.digest for item in prints])}
    for pair in [*_copies(prints, rule), *_same_views(prints, rule)]:
        equal = prints[pair.a].digest == prints[pair.b].digest
        exact = replace(pair, kind="exact", distance=0.0)
        pairs.setdefault((pair.a, pair.b), exact if equal else pair)
    return [pairs[key] for key in sorted(pairs)]


def exact_pairs(digests: Sequence[bytes]) -> list[Pair]:
    """Pairs of equal digests; of a set of n equal ones, the n - 1 pairs with its first."""
    first: dict[bytes, int] = {}
    pairs = []
    for number, digest in enumerate(digests):
        if digest in first:
            pairs.append(Pair(first[digest], number, "exact", 0.0))
        else:
            first[digest] = number
    return pairs


def cluster_names(pairs: Sequence[Pair], ids: Sequence[str]) -> list[str]:
    """A name for each image's cluster of duplicates: the id of its first image, "" when alone."""
    n = len(ids)
    links = coo_array(
        (np.ones(len(pairs)), ([p.a for p in pairs], [p.b for p in pairs])), shape=(n, n)
    )
    labels = connected_components(links, directed=False)[1]
    sizes = np.bincount(labels, minlength=1)
    first = {}
    for number, label in enumerate(labels):
        first.setdefault(label, ids[number])
    return [first[label] if sizes[label] > 1 else "" for label in labels]


def _copies(prints: Sequence[Fingerprint], rule: DuplicateRule, block: int = 128) -> list[Pair]:
    """Pairs whose hashes differ in at most `rule.bits` bits; flat images are left out."""
    numbers = [n for n, item in enumerate(prints) if item.contrast >= LEAST_CONTRAST]
    prints = [prints[n] for n in numbers]
    if len(prints) < 2:
        return []
    turned = np.stack([item.hashes for item in prints])  # (N, 8, 4)
    upright = np.ascontiguousarray(turned[:, 0].T)  # (4, N)
    pairs = []
    for start in range(0, len(prints), block):
        part = turned[start : start + block]
        least = np.full((len(part), len(prints)), np.iinfo(np.uint16).max, np.uint16)
        for turn in range(turned.shape[1]):
            differing = np.zeros_like(least)
            for word in range(len(upright)):
                differing += np.bitwise_count(part[:, turn, word, None] ^ upright[word])
            np.minimum(least, differing, out=least)
        for row, column in np.argwhere(least <= rule.bits).tolist():
            if start + row != column:
                share = least[row, column] / HASH_SIDE**2
                a, b = sorted((numbers[start + row], numbers[column]))
                pairs.append(Pair(a, b, "near", round(float(share), 4)))
    return pairs


def _same_views(prints: Sequence[Fingerprint], rule: DuplicateRule) -> list[Pair]:
    """Pairs in which enough local features agree on one similarity."""
    pairs = []
    for a, b in _candidates(prints, rule):
        count = agreeing_features(prints[a], prints[b], rule)
        if count >= rule.agreeing:
            fewest = min(len(prints[a].points), len(prints[b].points))
            pairs.append(Pair(a, b, "near", round(1.0 - count / fewest, 4)))
    return pairs


def _candidates(prints: Sequence[Fingerprint], rule: DuplicateRule) -> list[tuple[int, int]]:
    """The pairs worth a comparison: each photograph and those whose features are most like its."""
    counts = [len(item.points) for item in prints]
    if len(prints) < 2 or sum(counts) < 2:
        return []
    owners = np.repeat(np.arange(len(prints)), counts)
    features = np.concatenate([item.descriptors for item in prints])
    cells = _cells(features)
    inside = [np.flatnonzero(cells[:, 0] == cell) for cell in range(int(cells.max()) + 1)]
    chosen = set()
    for start in range(0, len(prints), IMAGES_AT_ONCE):
        stop = min(start + IMAGES_AT_ONCE, len(prints))
        alike = np.zeros((stop - start, len(prints)), np.float32)
        low, high = np.searchsorted(owners, (start, stop))
        for cell, members in enumerate(inside):
            queries = low + np.flatnonzero((cells[low:high] == cell).any(axis=1))
            if len(members) and len(queries):
                _add_votes(alike, features, owners, queries, members, start, rule.alike)
        rows = np.arange(stop - start)
        alike[rows, start + rows] = 0.0
        count = min(rule.candidates, len(prints) - 1)
        best = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        for row, columns in zip(rows.tolist(), best.tolist(), strict=True):
            a = start + row
            chosen.update((min(a, b), max(a, b)) for b in columns if alike[row, b] > 0)
    return sorted(chosen)


def _cells(features: np.ndarray) -> np.ndarray:
    """The two nearest of some cells of the space of descriptors, for each of them: (n, 2).

    Only descriptors that share a cell are compared: an inverted file (Sivic and Zisserman 2003).
    """
    from sklearn.cluster import MiniBatchKMeans

    sample = _rooted(features[:: max(1, len(features) // 50_000)])
    n_cells = max(2, min(len(features) // FEATURES_A_CELL, len(sample) // 8))
    if len(sample) < 16:
        return np.zeros((len(features), 2), int)
    learner = MiniBatchKMeans(
        n_cells, batch_size=4096, max_iter=10, n_init=1, init="random", random_state=0
    ).fit(sample)
    centers = learner.cluster_centers_
    half_norms = 0.5 * (centers * centers).sum(axis=1)
    nearest = np.empty((len(features), 2), int)
    for start in range(0, len(features), 20_000):
        part = slice(start, start + 20_000)
        closeness = _rooted(features[part]) @ centers.T - half_norms
        nearest[part] = np.argpartition(-closeness, 1, axis=1)[:, :2]
        # The members of a cell are those that are nearest to it, so the order counts.
        rows = np.arange(len(closeness))[:, None]
        order = np.argsort(-closeness[rows, nearest[part]], axis=1)
        nearest[part] = nearest[part][rows, order]
    return nearest


def _add_votes(
    alike: np.ndarray,
    features: np.ndarray,
    owners: np.ndarray,
    queries: np.ndarray,
    members: np.ndarray,
    start: int,
    threshold: float,
) -> None:
    """Let each query feature vote, in place, for the photographs of the members like it.

    alike: (images of a block, images). A feature that resembles many counts less for each.
    """
    theirs = _rooted(features[members]).T
    for first in range(0, len(queries), 2048):
        part = queries[first : first + 2048]
        likeness = _rooted(features[part]) @ theirs
        row, column = np.nonzero(likeness > threshold)
        share = np.sqrt(np.maximum(np.bincount(row, minlength=len(part)), 1))[row]
        votes = (likeness[row, column] - threshold) / share
        np.add.at(alike, (owners[part[row]] - start, owners[members[column]]), votes)


def _rooted(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT (Arandjelovic and Zisserman 2012): (n, 128) of unit length."""
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))


def agreeing_features(one: Fingerprint, other: Fingerprint, rule: DuplicateRule) -> int:
    """How many local features of two photographs agree on one shift, turn and zoom.

    A single matched feature gives a similarity, for it has a place, an orientation and a scale. So
    each match is tried in turn, and no random draw is needed.
    """
    if min(len(one.points), len(other.points)) < rule.agreeing:
        return 0
    first, second = _matches(_rooted(one.descriptors), _rooted(other.descriptors), rule.ratio)
    if len(first) < rule.agreeing:
        return 0
    p, q = one.points[first], other.points[second]
    zoom = np.log(q[:, 2] / p[:, 2])
    turn = q[:, 3] - p[:, 3]
    here, there = p[:, 0] + 1j * p[:, 1], q[:, 0] + 1j * q[:, 1]
    # Row: the match that gives the similarity; column: the match that may agree with it.
    factor = np.exp(zoom + 1j * turn)[:, None]
    expected = there[:, None] + factor * (here[None] - here[:, None])
    scale = np.maximum(1.0, np.exp(zoom))[:, None]
    agree = np.abs(expected - there[None]) < rule.tolerance * scale
    agree &= np.abs(zoom[None] - zoom[:, None]) < 0.5
    agree &= np.cos(turn[None] - turn[:, None]) > np.cos(np.pi / 6)
    best = agree[agree.sum(axis=1).argmax()]
    # Several orientations at one place count once.
    places = {tuple(np.round(point, 2)) for point in p[best, :2].tolist()}
    return min(len(places), len({tuple(np.round(point, 2)) for point in q[best, :2].tolist()}))


def _matches(one: np.ndarray, other: np.ndarray, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of features that are each other's nearest, and clearly nearer than the second."""
    apart = np.sqrt(np.maximum(2.0 - 2.0 * (one @ other.T), 0.0))
    nearest = apart.argmin(axis=1)
    rows = np.arange(len(one))
    mutual = apart.argmin(axis=0)[nearest] == rows
    if apart.shape[1] > 1:
        two = np.partition(apart, 1, axis=1)[:, :2]
        mutual &= two[:, 0] <= ratio * two[:, 1]
    return rows[mutual], nearest[mutual]
