"""What was prepared, counted: splits, classes, sources with their licences, sizes, mask areas."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import pandas as pd

from didgen.data.manifest import SPLITS
from didgen.data.preparation import Prepared
from didgen.data.sources.catalog import provenance

LOGGER = logging.getLogger(__name__)
SHOWN_SIZES = 10
SMALL, ELONGATED = 32, 5


def summary(
    frame: pd.DataFrame, prepared: Sequence[Prepared], left_out: dict[str, int], source: str
) -> dict[str, Any]:
    """What `summary.json` says of the manifest `frame`, whose rows `prepared` are.

    left_out: how many images of the source, by reason, are not in it.
    """

    def distinct(column: str) -> int:
        return int(frame.loc[frame[column] != "", column].nunique())

    areas = _mask_areas(frame["split"], prepared)
    doubt = doubtful_masks(area for values in areas.values() for area in values)
    if doubt:
        LOGGER.warning("masks: %s", doubt)
    odd = [
        f"{name} ({shape[1]}x{shape[0]})"
        for name, shape in zip(frame["id"], (item.shape for item in prepared), strict=True)
        if min(shape) < SMALL or max(shape) > ELONGATED * min(shape)
    ]
    if odd:
        LOGGER.warning(
            "%d of %d images have a side of less than %d px, or one that is more than %d times the "
            "other: little of a lesion is left in them: %s%s; look at them, or leave them out",
            len(odd), len(frame), SMALL, ELONGATED, ", ".join(odd[:5]), ", ..." * (len(odd) > 5),
        )  # fmt: skip
    counts = frame.assign(label=frame["label"].replace("", "mask only"))
    counts = counts.groupby(["split", "label"]).size()
    changes = Counter(word for item in prepared for word in item.changes)
    for word, n in sorted(changes.items()):
        LOGGER.info("%d of %d images: %s", n, len(frame), word)
    return {
        "source": source,
        "n_images": len(frame),
        "n_source": len(frame) + sum(left_out.values()),
        "n_lesions": distinct("lesion_id"),
        "n_patients": distinct("patient_id"),
        "n_clusters": distinct("cluster"),
        "n_with_mask": int((frame["mask"] != "").sum()),
        "n_with_label": int((frame["label"] != "").sum()),
        "left_out": left_out,
        "changes": dict(sorted(changes.items())),
        "splits": {
            split: {label: int(n) for (s, label), n in counts.items() if s == split}
            for split in SPLITS
        },
        "sources": _sources(frame["source"]),
        "mask_area": areas,
        "original_sizes": _sizes(prepared),
    }


def _sources(names: pd.Series) -> list[dict[str, Any]]:
    """Name, licence, citation and number of images of each source; "" for the user's own."""
    rows = []
    for name, n in names.value_counts().items():
        known = provenance(name)
        licence, citation = (known.licence, known.citation) if known else ("", "")
        rows.append({"name": name, "licence": licence, "citation": citation, "n": int(n)})
    return rows


def doubtful_masks(areas: Iterable[float]) -> str:
    """A sentence if the masks together look inverted or empty of information, else "".

    areas: the lesion's share of each image, 0..1.
    """
    areas = list(areas)
    if not areas or median(areas) <= 0.5:
        return ""
    full = sum(area == 1 for area in areas)
    return (
        f"the median lesion covers {100 * median(areas):.0f} % of its image, and {full} of "
        f"{len(areas)} masks mark every pixel; lesions rarely cover half of an image: if 0 marks "
        "the lesion in these masks, invert them (255 is lesion, 0 is skin)"
    )


def _mask_areas(splits: pd.Series, prepared: Sequence[Prepared]) -> dict[str, list[float]]:
    areas = {split: [] for split in SPLITS}
    for split, item in zip(splits, prepared, strict=True):
        if item.mask_area is not None:
            areas[split].append(item.mask_area)
    return areas


def _sizes(prepared: Sequence[Prepared]) -> list[dict[str, int | None]]:
    """The most frequent sizes of the photographs before preparation, and how many have another."""
    counts = Counter(item.shape for item in prepared)
    # Equally frequent sizes in a fixed order, so that the file does not depend on the run.
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rows: list[dict[str, int | None]] = [
        {"width": w, "height": h, "n": n} for (h, w), n in ranked[:SHOWN_SIZES]
    ]
    other = sum(n for _, n in ranked[SHOWN_SIZES:])
    return rows + ([{"width": None, "height": None, "n": other}] if other else [])
