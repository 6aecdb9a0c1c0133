"""Every comparison of the verdict as tables, and the curve over how many images were added."""

from pathlib import Path
from typing import Any

from didgen.report.figures import Chart, Line, line_chart
from didgen.report.numbers import interval, told_p
from didgen.report.reading import broken, finite
from didgen.report.tables import Cell, Row, Table

FAMILIES = {
    "best control": "Synthetic arms against the best control",
    "original": "All arms against the original images alone",
    "every control": "Synthetic arms against every control",
}
ANSWERS = ("helps", "no evidence", "hurts")
COPIES = "duplicates"


def comparison_tables(path: Path, metric: str, told: Any, level: str) -> list[Table]:
    """One table a family of comparisons; none where the verdict tells none.

    Raises: BrokenResult where it tells something else.
    """
    if told is None:
        return []
    if not isinstance(told, dict):
        raise broken(path, f"{told!r} under 'comparisons'", "lists of comparisons")
    tables = []
    for family, caption in FAMILIES.items():
        found = told.get(family, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise broken(path, f"something else under '{family}'", "a list of comparisons")
        # With one control all families say the same.
        if not found or (family != "best control" and _same(found, told.get("best control"))):
            continue
        decides = family == "best control"
        rows = tuple(_row(path, each, decides and k == 0) for k, each in enumerate(found))
        others = list(dict.fromkeys(name for each in found for name in each.get("other_tests", {})))
        columns = (
            f"difference in {metric} [{level} %]",
            "p",
            f"p, Holm for {found[0].get('n_corrected_for', len(found))}",
            "effect size",
            *others,
            "verdict",
        )
        effect = found[0].get("effect") or {}
        note = f"Effect size: {effect.get('name', 'not named')}. "
        note += (
            "The first row decides; the other rows of this table are held to the same correction."
            if decides
            else "Corrected among themselves; they decide nothing."
        )
        tables.append(Table(caption, "arm, control", columns, rows, note))
    return tables


def over_original(path: Path, metric: str, told: Any, level: str) -> dict[str, dict[str, Cell]]:
    """Columns for a table of arms: the difference to the original images, and its p; maybe none.

    Raises: BrokenResult for a comparison without its interval.
    """
    found = told.get("original", []) if isinstance(told, dict) else []
    if not found:
        return {}
    rows = {str(each.get("arm")): _row(path, each, False).cells for each in found}
    names = (
        f"{metric}, difference to original [{level} %]",
        f"p, Holm for {found[0].get('n_corrected_for', len(found))}",
    )
    # The uncorrected p stands between them.
    return {
        name: {arm: cells[place] for arm, cells in rows.items()}
        for name, place in zip(names, (0, 2), strict=True)
    }


def _same(found: list[dict[str, Any]], other: Any) -> bool:
    names = [[(each.get("arm"), each.get("control")) for each in rows] for rows in (found, other)]
    return names[0] == names[1]


def _row(path: Path, each: dict[str, Any], leading: bool) -> Row:
    ends = each.get("interval")
    if not isinstance(ends, list) or len(ends) != 2 or each.get("verdict") not in ANSWERS:
        raise broken(path, "a comparison without its interval or verdict", "both")
    low, high = (finite(path, {"interval": end}, "interval") for end in ends)
    effect = (each.get("effect") or {}).get("value")
    others = each.get("other_tests", {})
    cells = (
        Cell(text=interval(finite(path, each, "difference"), low, high, sign=True)),
        Cell(text=told_p(finite(path, each, "p_uncorrected"))),
        Cell(text=told_p(finite(path, each, "p"))),
        Cell() if effect is None else Cell(value=float(effect), places=2, sign=True),
        *(Cell(text=told_p(finite(path, others, name))) for name in others),
        Cell(text=str(each["verdict"])),
    )
    return Row(
        f"{each.get('arm')} against {each.get('control')}", cells, "leading" if leading else ""
    )


def dose_chart(key: str, task: str, metric: str, arms: dict[str, Any]) -> Chart | None:
    """The metric over added images per real one, a line a synthetic set; None with one dose only.

    Each seed is a faint line; the original images alone are the point at 0.
    """
    doses: dict[str, list[tuple[float, list[float]]]] = {}
    for numbers in arms.values():
        added = numbers.get("n_synthetic") or numbers.get("n_duplicates")
        if added and numbers.get("n_real"):
            name = numbers.get("synthetic_set") or COPIES
            doses.setdefault(str(name), []).append((added / numbers["n_real"], numbers["per_seed"]))
    start = [(0.0, arms["original"]["per_seed"])] if "original" in arms else []
    lines: list[Line] = []
    for series, (name, found) in enumerate(sorted(doses.items(), key=lambda d: d[0] == COPIES)):
        if len(found) < 2 and name != COPIES:
            continue
        points = sorted(start + found, key=lambda point: point[0])
        x = [dose for dose, _ in points]
        lines += [
            Line("", x, list(one), series, faint=True)
            for one in zip(*(values for _, values in points), strict=True)
        ]
        lines.append(Line(name, x, [sum(v) / len(v) for _, v in points], series))
    if not any(line.name not in ("", COPIES) for line in lines):
        return None
    return line_chart(
        key,
        f"{task}: how much is added",
        lines,
        "added images per real image",
        metric,
        note="Thick: mean over seeds; faint: each seed. At 0, the original images alone.",
    )
