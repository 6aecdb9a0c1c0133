"""Leaks: which images are related, which of them stood in two splits, and what was done."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.report.numbers import listed, plural, whole
from didgen.report.reading import broken, finite, json_file
from didgen.report.tables import Cell, Row, Table

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "exact": "exact duplicate",
    "near": "near-duplicate",
    "lesion": "same lesion",
    "patient": "same patient",
}
CROSSING = "in two splits"
POLICIES = {
    "drop": "one of the related images is left out (on_leak: drop)",
    "error": "the preparation stops (on_leak: error)",
    "warn": "they stay where they are, with a warning (on_leak: warn)",
}


def leaks(folder: Path, frame: "pd.DataFrame") -> dict[str, Any]:
    """What leaks.json tells (None where there is none), and what the manifest itself shows.

    `folder` is the run's data folder. Raises: BrokenResult where leaks.json tells something else.
    """
    path = folder / "leaks.json"
    told = json_file(path)
    return {"check": _check(frame), "search": None if told is None else _search(path, told, frame)}


def _check(frame: "pd.DataFrame") -> str:
    """One sentence on what stands in two splits of the prepared data."""
    told = []
    for column, noun in (
        ("sha256", "identical file"),
        ("lesion_id", "lesion"),
        ("patient_id", "patient"),
    ):
        known = frame[frame[column] != ""]
        if known.empty:
            told.append(f"{noun}s are not known")
            continue
        crossing = int((known.groupby(column)["split"].nunique() > 1).sum())
        told.append(f"{plural(crossing, noun) if crossing else f'no {noun}'} in two splits")
    return f"In the prepared data: {listed(told)}."


def _search(path: Path, told: dict[str, Any], frame: "pd.DataFrame") -> dict[str, Any]:
    dropped = told.get("dropped", [])
    if not isinstance(dropped, list) or not all(isinstance(name, str) for name in dropped):
        raise broken(path, "something else under 'dropped'", "a list of ids")
    place = dict(zip(frame["id"], frame["split"], strict=True))
    pairs = [_pair(path, pair, place, set(dropped)) for pair in _objects(path, told)]
    pairs.sort(key=lambda pair: (pair["outcome"] != CROSSING, list(KINDS).index(pair["kind"])))
    n_pairs = _count(path, told, "n_pairs") if "n_pairs" in told else len(pairs)
    left = sum(pair["outcome"] == CROSSING for pair in pairs)
    return {
        "facts": _facts(path, told),
        "finder": str(told.get("finder") or ""),
        "policy": POLICIES.get(told.get("policy"), str(told.get("policy") or "")),
        "done": _done(path, told, len(dropped), left),
        "left": left,
        "table": _table(path, told, pairs, n_pairs) if n_pairs else None,
        "pairs": pairs,
        "n_pairs": n_pairs,
        "dropped": dropped,
    }


def _objects(path: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = told.get("pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise broken(path, "something else under 'pairs'", "a list of objects")
    return pairs


def _pair(
    path: Path, pair: dict[str, Any], place: dict[str, str], dropped: set[str]
) -> dict[str, Any]:
    """A pair for the table, with where its two images stand in the end."""
    words = {key: pair.get(key) for key in ("a", "b", "kind")}
    if not all(isinstance(word, str) for word in words.values()) or words["kind"] not in KINDS:
        expected = f"ids under a and b, one of {', '.join(KINDS)} under kind"
        raise broken(path, f"the pair {words}", expected)
    a, b = words["a"], words["b"]
    if a in dropped or b in dropped:
        outcome = "both left out" if {a, b} <= dropped else f"{a if a in dropped else b} left out"
    elif a not in place or b not in place:
        outcome = "not both in this run"
    else:
        outcome = f"both in {place[a]}" if place[a] == place[b] else CROSSING
    return words | {
        "relation": KINDS[words["kind"]],
        "distance": None if pair.get("distance") is None else finite(path, pair, "distance"),
        "split_a": str(pair.get("split_a") or ""),
        "split_b": str(pair.get("split_b") or ""),
        "outcome": outcome,
    }


def _count(path: Path, owner: dict[str, Any], key: str) -> int:
    value = owner.get(key)
    if type(value) is not int or value < 0:
        raise broken(path, f"{value!r} under '{key}'", "a count")
    return value


def _facts(path: Path, told: dict[str, Any]) -> str:
    images, groups = _count(path, told, "n_images"), _count(path, told, "n_groups")
    return f"{plural(images, 'image')} in {plural(groups, 'group')} of related images"


def _done(path: Path, told: dict[str, Any], n_dropped: int, left: int) -> str:
    """What was found across the splits and what became of it, in a sentence or two."""
    crossing = _count(path, told, "n_crossing")
    if crossing == 0:
        return "No two related images stood in two splits."
    found = f"{plural(crossing, 'pair')} of related images stood in two splits before. "
    if n_dropped:
        found += f"{plural(n_dropped, 'image')} {_were(n_dropped)} left out because of it. "
    if left:
        return found + (
            f"{plural(left, 'pair')} of those listed still {'stands' if left == 1 else 'stand'} in "
            "two splits: scores on the held-out splits may look better than they are."
        )
    return found + "None of the pairs listed stands in two splits any more."


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _table(path: Path, told: dict[str, Any], pairs: list[dict[str, Any]], n_pairs: int) -> Table:
    """Pairs by kind: all that were found, those listed, those that stood in two splits."""
    clusters = told.get("clusters", {})
    if not isinstance(clusters, dict):
        raise broken(path, f"{clusters!r} under 'clusters'", "counts by kind")
    rows = []
    for kind, name in KINDS.items():
        listed_ones = [pair for pair in pairs if pair["kind"] == kind]
        crossed = [pair for pair in listed_ones if pair["split_a"] != pair["split_b"]]
        every = _count(path, clusters, kind) if kind in clusters else None
        if listed_ones or every:
            cells = (every, len(listed_ones), len(crossed))
            rows.append(Row(name, tuple(Cell(value=cell, places=0) for cell in cells)))
    note = "The last two columns count the pairs listed."
    if len(pairs) < n_pairs:
        note = (
            f"The last two columns count the {plural(len(pairs), 'pair')} listed, "
            f"of {whole(n_pairs)}."
        )
    columns = ("all pairs", "listed", "in two splits before")
    return Table("Pairs of related images", "relation", columns, tuple(rows), note)
