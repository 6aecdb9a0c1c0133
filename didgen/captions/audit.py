"""Audit of a captioner: do its claims agree with what is measured in the same images?

Both tables have one row an image, as captions.csv has them: `id` and a column an attribute, lists
joined by "; ", "" for what is not stated. Measurement is a yardstick, not the truth: it is right on
drawn images (docs/dermprompt.md), and a disagreement on a photograph may be its own mistake.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# Audited attributes with their values, in order where they have one. The main color is the first.
ORDINAL = {
    "size": ("small", "medium", "large"),
    "skin_tone": ("very light", "light", "intermediate", "tan", "brown", "dark"),
    "hair": ("none", "some", "dense"),
}
AUDITED = ("size", "position", "main_color", "skin_tone", "hair", "shape", "symmetry", "border")
MAX_EXAMPLES = 12


class AuditError(ValueError):
    """Tables that cannot be compared."""


def audit(
    claimed: "pd.DataFrame", measured: "pd.DataFrame", max_examples: int = MAX_EXAMPLES
) -> dict[str, Any]:
    """Agreement of a captioner's claims with the measured attributes of the same images.

    Returns `count`; `attributes`: name -> the figures of `compare_attribute`; `examples`: images
    with the most contradictions first, each with its id and what was claimed and measured.
    Raises: AuditError when ids differ or repeat, or a column is missing.
    """
    claims, truth = _aligned(claimed, measured)
    compared = {name: compare_attribute(claims[name], truth[name], name) for name in AUDITED}
    return {
        "count": len(claims),
        "attributes": compared,
        "examples": contradictions(claims, truth, max_examples),
    }


def compare_attribute(claimed: "pd.Series", measured: "pd.Series", name: str) -> dict[str, Any]:
    """Agreement on one attribute, over the images where both state it.

    `n`: these images; `unclaimed`, `unmeasured`: images where the captioner, or the measurement,
    states nothing; `agreement`: share of equal words; `kappa`: Cohen's kappa; for ordinal
    attributes `weighted_kappa` with linear weights; `confusions`: the commonest unequal pairs as
    [measured, claimed, images]. None where it is not defined (no image, or one value only).
    """
    both = (claimed != "") & (measured != "")
    said, true = claimed[both].tolist(), measured[both].tolist()
    order = ORDINAL.get(name)
    scores: dict[str, Any] = {
        "n": len(said),
        "unclaimed": int((claimed == "").sum()),
        "unmeasured": int((measured == "").sum()),
        "agreement": float(np.mean([a == b for a, b in zip(said, true, strict=True)]))
        if said
        else None,
        "kappa": cohen_kappa(said, true),
        "confusions": _confusions(said, true),
    }
    if order is not None:
        scores["weighted_kappa"] = cohen_kappa(said, true, order)
    return scores


def cohen_kappa(
    claimed: list[str], measured: list[str], order: tuple[str, ...] | None = None
) -> float | None:
    """Cohen's kappa (Cohen 1960): agreement beyond chance, 1 perfect, 0 as by chance.

    `order`: all values from low to high; near misses then cost less (linear weights, Cohen 1968).
    None where it is not defined: no images, or both know a single value only.
    """
    from sklearn.metrics import cohen_kappa_score

    if not claimed or len(set(claimed) | set(measured)) < 2:
        return None
    if order is None:
        return float(cohen_kappa_score(claimed, measured))
    return float(cohen_kappa_score(claimed, measured, labels=list(order), weights="linear"))


def _confusions(said: list[str], true: list[str], most: int = 3) -> list[list[Any]]:
    from collections import Counter

    wrong = Counter(pair for pair in zip(true, said, strict=True) if pair[0] != pair[1])
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return [[*pair, count] for pair, count in ranked[:most]]


def contradictions(
    claimed: "pd.DataFrame", measured: "pd.DataFrame", most: int = MAX_EXAMPLES
) -> list[dict[str, Any]]:
    """The images whose claims contradict the measurement in most attributes, worst first.

    Each: `id` and `wrong`, attribute -> [claimed, measured]. Tables as `_aligned` gives them.
    """
    contradicted = []
    for name in claimed.index:
        pairs = {field: [claimed.at[name, field], measured.at[name, field]] for field in AUDITED}
        wrong = {
            field: pair for field, pair in pairs.items() if "" not in pair and pair[0] != pair[1]
        }
        if wrong:
            contradicted.append({"id": name, "wrong": wrong})
    # By id among equals: the same table gives the same examples in any order of its rows.
    return sorted(contradicted, key=lambda one: (-len(one["wrong"]), one["id"]))[:most]


def _aligned(
    claimed: "pd.DataFrame", measured: "pd.DataFrame"
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Both tables by id in one order, with the main color as a column of its own."""
    tables = [_by_id(claimed, "claimed"), _by_id(measured, "measured")]
    lone = tables[0].index.symmetric_difference(tables[1].index)
    if len(lone):
        raise AuditError(
            f"{len(lone)} images stand in only one of the two tables ({', '.join(lone[:5])}); "
            "expected the same images; leave failed ones out of both"
        )
    return tables[0], tables[1].loc[tables[0].index]


def _by_id(table: "pd.DataFrame", role: str) -> "pd.DataFrame":
    needed = {"id", "colors", *AUDITED} - {"main_color"}
    absent = sorted(needed - set(table.columns))
    if absent:
        raise AuditError(
            f"the {role} table lacks {', '.join(absent)}; expected a column an attribute, as the "
            "caption stage writes them"
        )
    table = table[list(needed)].fillna("").astype(str)
    if not table["id"].is_unique:
        repeated = int(table["id"].duplicated().sum())
        raise AuditError(f"the {role} table has {repeated} ids more than once; expected each once")
    return table.assign(main_color=table["colors"].str.split("; ").str[0]).set_index("id")
