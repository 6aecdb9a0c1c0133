"""Methods: what each system took, what it made and how close that came, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.report.cost import jobs
from didgen.report.page import Options, Section
from didgen.report.pictures import embed, mask_outline
from didgen.report.reading import broken, json_file, sets_of_methods, synthetic_set
from didgen.report.sections.pairs import evenly
from didgen.report.tables import Cell, Row, Table
from didgen.settings.methods import BUDGET, DIDGEN, METHODS

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Methods"
# Pairs that every method is shown with.
SHOWN_MASKS = 6
Made = dict[str, "pd.DataFrame"]


def section(run_dir: Path, options: Options) -> Section:
    """Read the budgets, sets and scores of all methods, and show their images side by side."""
    folders = sets_of_methods(run_dir)
    missing: list[str] = []
    made: dict[str, Made] = {}
    for name, folder in folders.items():
        made[name] = {}
        for kind in sorted(METHODS[name].makes):
            frame, absent = synthetic_set(folder, kind)
            missing += [f"{name}: {sentence}" for sentence in absent]
            if frame is not None and len(frame):
                made[name][kind] = frame
    trained = {name: "finetune" if name == DIDGEN else "model" for name in folders}
    # A method without a training of its own left none.
    budgets = {
        name: json_file(folder / trained[name] / BUDGET) or {} for name, folder in folders.items()
    }
    content = {
        "tables": [_effort(run_dir, budgets, made), *_quality(folders, made)],
        "departures": {
            name: [str(each) for each in budget.get("departures") or ()]
            for name, budget in budgets.items()
            if budget.get("departures")
        },
        "classes": _by_class(made, options),
        "masks": _by_mask(made, options),
    }
    return Section("methods", TITLE, content, tuple(missing))


def _effort(run_dir: Path, budgets: dict[str, dict[str, Any]], made: dict[str, Made]) -> Table:
    """Per method: parameters trained, steps, images seen, minutes of training and of sampling."""
    spent: dict[str, float] = {}
    for job in jobs(run_dir):
        spent[job.stage] = spent.get(job.stage, 0.0) + job.seconds
    rows = []
    for name, sets in made.items():
        ending = "" if name == DIDGEN else f", {name}"
        training = spent.get("finetune" if name == DIDGEN else f"train{ending}")
        sampling = sum(spent.get(f"{kind}{ending}", 0.0) for kind in sets)
        count = sum(map(len, sets.values()))
        budget = budgets[name]
        cells = [_whole(budget, key) for key in ("parameters", "steps", "images")]
        cells.append(Cell() if training is None else Cell(value=training / 60, places=1))
        cells.append(Cell(value=count, places=0))
        cells.append(Cell(value=sampling / count, places=2) if sampling and count else Cell())
        rows.append(Row(name, tuple(cells)))
    return Table(
        "What each method took",
        "method",
        (
            "trained parameters",
            "steps",
            "images seen",
            "training, min",
            "images made",
            "seconds per image",
        ),  # fmt: skip
        tuple(rows),
        "A dash: no training of its own. Seconds are those of the jobs' last attempts.",
    )


def _whole(budget: dict[str, Any], key: str) -> Cell:
    value = budget.get(key)
    return Cell(value=float(value), places=0) if isinstance(value, int) and value else Cell()


def _quality(folders: dict[str, Path], made: dict[str, Made]) -> list[Table]:
    """How close images are to real ones, whether they show their class, whether masks fit them."""
    rows, kernel, floor = [], "", "floor of real images"
    for name, folder in folders.items():
        cells = []
        path = folder / "fidelity" / "fidelity.json"
        sets = (json_file(path) or {}).get("sets")
        for kind in ("images", "pairs"):
            measured = _kernel(path, sets, kind)
            kernel = measured[0] or kernel
            cells += measured[1:]
        judged = (json_file(folder / "label_fidelity" / "label_fidelity.json") or {}).get("mean")
        cells.append(_number(judged, "synthetic"))
        means = (json_file(folder / "filter" / "summary.json") or {}).get("means")
        everything = means.get("all") if isinstance(means, dict) else None
        cells.append(_number(everything, "segmenter_iou"))
        rows.append(Row(name, tuple(cells)))
    columns = (
        *("images", floor, "pairs", floor),
        *("class seen as asked", "IoU of mask and segmenter"),
    )
    note = (
        f"Distance to real images: {kernel or 'not measured'}, lower is better, and the same "
        "distance between halves of the real images. The segmenter was trained on real images."
    )
    return [Table("What each method made", "method", columns, tuple(rows), note)]


def _kernel(path: Path, sets: Any, kind: str) -> tuple[str, Cell, Cell]:
    """Name and value of a set's kernel distance, and that between as many real images."""
    own = sets.get(kind) if isinstance(sets, dict) else None
    if not isinstance(own, dict):
        return "", Cell(), Cell()
    try:
        for space in own["spaces"].values():
            for name, each in space["measures"].items():
                if "kernel" in name or name == "KID":
                    of = each["matched"]
                    cells = [Cell(value=float(of[side]["mean"])) for side in ("synthetic", "real")]
                    return name, cells[0], cells[1]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise broken(path, f"no kernel distance ({error!r})", "a value for each set") from error
    return "", Cell(), Cell()


def _number(owner: Any, key: str) -> Cell:
    value = owner.get(key) if isinstance(owner, dict) else None
    return Cell(value=float(value)) if isinstance(value, int | float) else Cell()


def _by_class(made: dict[str, Made], options: Options) -> list[dict[str, Any]]:
    """Images of each class by each method; the first of each, nobody picked them."""
    sets = {name: own["images"] for name, own in made.items() if "images" in own}
    if len(sets) < 2:
        return []
    codes = [code for code in CLASSES if any((f["label"] == code).any() for f in sets.values())]
    rows = []
    for name, frame in sets.items():
        cells = []
        for code in codes:
            own = frame[frame["label"] == code].sort_values("id")
            cells.append(_picture(own.iloc[0], name, options) if len(own) else None)
        rows.append({"method": name, "cells": cells})
    return [{"columns": [CLASSES[code].name for code in codes], "rows": rows}]


def _by_mask(made: dict[str, Made], options: Options) -> list[dict[str, Any]]:
    """Pairs for the same masks by each method, with the outline of each pair's own mask."""
    sets = {name: own["pairs"].set_index("id") for name, own in made.items() if "pairs" in own}
    if len(sets) < 2:
        return []
    common = sorted(set.intersection(*(set(frame.index) for frame in sets.values())))
    names = [common[index] for index in evenly(len(common), SHOWN_MASKS)]
    rows = [
        {
            "method": method,
            "cells": [_picture(frame.loc[name], method, options) for name in names],
        }
        for method, frame in sets.items()
    ]
    return [{"columns": names, "rows": rows}] if names else []


def _picture(row: Any, method: str, options: Options) -> dict[str, Any]:
    label = CLASSES[row["label"]].name.lower() if row["label"] else "no class"
    alt = f"Synthetic image by {method}, {label}"
    drawn = embed(Path(row["image"]), alt, options.picture_side, options.picture_quality)
    mask = row.get("mask", "")
    return {"picture": drawn, "own": mask_outline(Path(mask)) if mask else None}
