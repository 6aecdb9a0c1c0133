"""Detection of near-duplicates against HAM10000's lesion ids, which it does not see.

Run: OMP_NUM_THREADS=1 python -m benchmarks.duplicates --mirror DIR [--images 1000]
DIR is a folder with the training archives of ISIC 2018, or a reduced mirror of them. Printed are
recall and precision over all pairs of photographs, and how many pairs of one lesion would cross
splits that are made of single images, of the finder's clusters, and of the lesions themselves.
"""

import argparse
import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from didgen.data.duplicates import DuplicateRule, cluster_names, find_duplicates
from didgen.data.preparation import PreparationPlan, identify_images
from didgen.data.sources.isic2018 import isic2018_records
from didgen.data.splits import grouped_split, related_groups

Pairs = set[tuple[int, int]]
# Rules by name; a part of the finder is switched off by a threshold that nothing meets.
RULES = {
    "perceptual hash alone": DuplicateRule(agreeing=10**6),
    "local features alone": DuplicateRule(bits=-1),
    "both: the default": DuplicateRule(),
}


def same_lesion(lesions: Sequence[str]) -> Pairs:
    """All pairs (a, b), a < b, of images of one lesion."""
    members = defaultdict(list)
    for number, lesion in enumerate(lesions):
        members[lesion].append(number)
    return {pair for group in members.values() for pair in itertools.combinations(group, 2)}


def recall_and_precision(matches: Pairs, true: Pairs) -> tuple[float, float]:
    """The share of the true pairs that was found, and that of the found ones that are true."""
    hits = len(matches & true)
    return hits / max(len(true), 1), hits / max(len(matches), 1)


def crossing(pairs: Iterable[tuple[int, int]], split: Sequence[str]) -> int:
    """How many pairs stand in two splits."""
    return sum(split[a] != split[b] for a, b in pairs)


def main() -> None:
    """Print the table of rules and the line of splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--images", type=int, help="only so many, those of one lesion together")
    options = parser.parse_args()
    records = [r for r in isic2018_records(options.mirror, official=False) if r.lesion_id]
    records = sorted(records, key=lambda r: (r.lesion_id, r.id))[: options.images]
    identified = identify_images(
        records, PreparationPlan(Path(), 128, "crop", hair_removal=False, fingerprints=True)
    )
    by_id = {record.id: record for record in records}
    kept = [by_id[item.row["id"]] for item in identified]
    true = same_lesion([record.lesion_id for record in kept])
    print(f"{len(kept)} photographs, {len(true)} pairs of one lesion")
    prints = [item.fingerprint for item in identified]
    for name, rule in RULES.items():
        began = time.process_time()
        pairs = find_duplicates(prints, rule)
        recall, precision = recall_and_precision({(p.a, p.b) for p in pairs}, true)
        print(f"{name:24s} recall {recall:.3f}   precision {precision:.3f}   "
              f"{time.process_time() - began:.0f} s")  # fmt: skip
    labels = [record.label for record in kept]
    clusters = cluster_names(pairs, [record.id for record in kept])
    for name, groups in (
        ("single images", np.arange(len(kept))),
        ("clusters", related_groups(clusters)),
        ("lesions", related_groups([record.lesion_id for record in kept])),
    ):
        split = grouped_split(labels, groups, 0.15, 0.25, seed=0)
        print(f"split by {name:15s} {crossing(true, split):5d} pairs of one lesion cross")


if __name__ == "__main__":
    main()
