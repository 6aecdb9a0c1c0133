"""Fidelity: how close synthetic images are to real ones, how various, and whether they show the
class that was asked for."""

from pathlib import Path
from typing import Any

from didgen.data.classes import CLASSES
from didgen.report.numbers import digits, interval, plural
from didgen.report.page import Options, Section
from didgen.report.reading import broken, finite, json_file, lead_sets
from didgen.report.tables import Cell, Row, Table

TITLE = "Fidelity, diversity and labels"
SETS = {"images": "Class-conditional images", "pairs": "Lesion-mask pairs"}
# Which way is better, said once beside each name.
BETTER = {"precision": "\N{UPWARDS ARROW}", "recall": "\N{UPWARDS ARROW}",
          "density": "\N{UPWARDS ARROW}", "coverage": "\N{UPWARDS ARROW}"}  # fmt: skip
REFERENCES = {
    "test": "real test images, which the generator never saw",
    "train": "real training images, which the generator was trained on: copies of them look good",
}


def section(run_dir: Path, options: Options) -> Section:
    """Read fidelity/fidelity.json and label_fidelity/label_fidelity.json."""
    missing = []
    place = lead_sets(run_dir)
    path = place / "fidelity" / "fidelity.json"
    fidelity = json_file(path)
    if fidelity is None:
        missing.append("Synthetic and real images were not compared: there is no fidelity.json.")
    elif not fidelity.get("sets"):
        missing.append("Too few images to compare synthetic and real ones: make more.")
    judged_path = place / "label_fidelity" / "label_fidelity.json"
    judged = json_file(judged_path)
    if judged is None:
        missing.append("Nobody judged the classes of synthetic images: no label_fidelity.json.")
    if fidelity is None and judged is None:
        return Section("fidelity", TITLE, None, tuple(missing))
    content = {
        "reference": "" if fidelity is None else _reference(fidelity),
        "sets": [] if fidelity is None else _sets(path, fidelity),
        "labels": None if judged is None else _labels(judged_path, judged),
    }
    return Section("fidelity", TITLE, content, tuple(missing))


def _reference(fidelity: dict[str, Any]) -> str:
    reference = str(fidelity.get("reference", ""))
    return REFERENCES.get(reference, f"real images: {reference}")


def _sets(path: Path, fidelity: dict[str, Any]) -> list[dict[str, Any]]:
    sets = fidelity.get("sets")
    if not isinstance(sets, dict) or not all(isinstance(own, dict) for own in sets.values()):
        raise broken(path, f"{sets!r} under 'sets'", "one object a set")
    level = f"{100 * finite(path, fidelity, 'confidence'):g} %"
    entries = []
    for name, own in sets.items():
        counts = [own.get(key) for key in ("n_real", "n_synthetic")]
        if not all(isinstance(count, int) for count in counts):
            raise broken(path, f"{counts!r} images of '{name}'", "n_real and n_synthetic")
        spaces = own.get("spaces", {})
        entries.append(
            {
                "name": SETS.get(name, name),
                "counts": f"{plural(counts[1], 'synthetic image')} against "
                f"{plural(counts[0], 'real image')}",
                "classes": _classes(own),
                "tables": [_space_table(path, space, level) for space in spaces.values()],
                "refused": {
                    measure: str(why)
                    for part in (*spaces.values(), own.get("pairs") or {})
                    for measure, why in (part.get("refused") or {}).items()
                },
                "diversity": _diversity(path, own.get("pairs"), level),
            }
        )
    return entries


def _classes(own: dict[str, Any]) -> str:
    counts = own.get("classes") or {}
    if not counts:
        return "Classes are not matched."
    words = ", ".join(f"{code} {count}" for code, count in counts.items())
    return f"In both sets, of each class: {words}."


def _space_table(path: Path, space: dict[str, Any], level: str) -> Table:
    """One row a measure: all images, and at equal size beside two sets of real images."""
    rows, n = [], 0
    for name, each in space.get("measures", {}).items():
        low, high = _ends(path, each)
        # What is extrapolated to infinitely many images is of no size.
        matched = each.get("matched") or {}
        n = matched.get("n", n)
        arrow = BETTER.get(name, "\N{DOWNWARDS ARROW}")
        cells = [Cell(text=interval(finite(path, each, "value"), low, high))]
        for kind in ("synthetic", "real") if matched else ():
            of = matched.get(kind, {})
            cells.append(
                Cell(value=finite(path, of, "mean"), spread=finite(path, of, "sd"), places=3)
            )
        cells += [Cell()] * (3 - len(cells))
        rows.append(Row(f"{name} {arrow}", tuple(cells)))
    columns = (
        f"synthetic [{level}]",
        f"synthetic, {n} against {n}",
        f"real, {n} against {n}",
    )
    note = (
        f"{space.get('network', '')} ({space.get('weights', '')}); images "
        f"{space.get('preprocessing', '')}. Intervals: {space.get('interval', '')}. The last "
        "column is the floor: two sets of real images, at the size of the column before it."
    )
    return Table("Distance to real images", "measure", columns, tuple(rows), note)


def _ends(path: Path, each: dict[str, Any]) -> tuple[float, float]:
    ends = each.get("interval")
    if not isinstance(ends, list) or len(ends) != 2:
        raise broken(path, f"{ends!r} under 'interval'", "two numbers")
    low, high = (finite(path, {"interval": end}, "interval") for end in ends)
    return low, high


def _diversity(path: Path, pairs: Any, level: str) -> Table | None:
    if not isinstance(pairs, dict) or not pairs.get("measures"):
        return None
    kinds = list(dict.fromkeys(kind for each in pairs["measures"].values() for kind in each))
    rows = []
    for name, each in pairs["measures"].items():
        cells = []
        for kind in kinds:
            own = each.get(kind)
            if own is None:
                cells.append(Cell())
                continue
            low, high = _ends(path, own)
            cells.append(Cell(text=interval(finite(path, own, "mean"), low, high)))
        rows.append(Row(name, tuple(cells)))
    count = max((own.get("n_pairs", 0) for each in pairs["measures"].values()
                 for own in each.values()), default=0)  # fmt: skip
    note = (
        f"Mean over up to {plural(count, 'pair')} at {pairs.get('side', '?')} px, {level} "
        f"intervals; {pairs.get('drawn', '')}. Within a set, a lower MS-SSIM and a larger distance "
        "mean more variety; the real images show how much is natural. Pairs of a real and a "
        "synthetic image belong together by class only, so they say little about quality."
    )
    columns = tuple(f"among {k}" if k != "real and synthetic" else f"between {k}" for k in kinds)
    return Table("Likeness of two images", "measure", columns, tuple(rows), note)


def _labels(path: Path, judged: dict[str, Any]) -> dict[str, Any]:
    """The table of classes: asked and seen, diagnosed and seen."""
    classes = judged.get("classes")
    if not isinstance(classes, dict) or not classes:
        raise broken(path, f"{classes!r} under 'classes'", "one object a class")
    rows = []
    for code, kinds in classes.items():
        cells, shares = [], []
        for kind in ("synthetic", "real"):
            own = kinds.get(kind) if isinstance(kinds, dict) else None
            if not isinstance(own, dict):
                raise broken(path, f"{own!r} of {code}, {kind}", "a share with its interval")
            share, low, high = (finite(path, own, key) for key in ("share", "low", "high"))
            shares.append(share)
            cells += [Cell(value=own.get("n"), places=0), Cell(text=interval(share, low, high))]
        cells.append(Cell(value=shares[0] - shares[1], sign=True))
        name = f"{CLASSES[code].name} ({code})" if code in CLASSES else code
        rows.append(Row(name, tuple(cells)))
    mean = judged.get("mean", {})
    ours, real = finite(path, mean, "synthetic"), finite(path, mean, "real")
    total = (Cell(), Cell(text=digits(ours)), Cell(), Cell(text=digits(real)))
    rows.append(Row("mean", (*total, Cell(value=ours - real, sign=True)), "total"))
    level = f"{100 * finite(path, judged, 'confidence'):g} %"
    model = judged.get("model") or {}
    note = (
        f"Judges: {judged.get('folds', '?')} classifiers ({model.get('name', 'not named')}, "
        f"weights: {model.get('weights', 'not named')}) trained on real images alone. "
        f"{judged.get('note', '')}"
    )
    columns = (
        *("synthetic images", f"seen as asked [{level}]"),
        *("real images", f"seen as diagnosed [{level}]", "difference"),
    )
    caption = "How often judges see the class that was asked for"
    return {"table": Table(caption, "class", columns, tuple(rows), note)}
