"""Attention: where the model looks for `<lesion>` and `<skin>` in images it was not tuned on."""

from pathlib import Path
from typing import Any

from didgen.report.figures import Line, histogram, line_chart
from didgen.report.numbers import mean_sd
from didgen.report.page import Options, Section
from didgen.report.pictures import embed_named
from didgen.report.reading import broken, finite, json_file, sets_of_methods
from didgen.report.sections.pairs import evenly
from didgen.report.tables import Cell, Row, Table
from didgen.settings.methods import needs_fine_tuning

TITLE = "Attention maps"
# Measure -> its words and decimals.
MEASURES = {
    "iou": ("IoU", 3),
    "dice": ("Dice", 3),
    "boundary_iou": ("boundary IoU", 3),
    "hd95": ("95 % Hausdorff distance, px", 1),
}


def section(run_dir: Path, options: Options) -> Section:
    """Embed `panels` panels, spread evenly from the highest to the lowest IoU."""
    path = run_dir / "maps" / "maps.json"
    maps = json_file(path) if needs_fine_tuning(sets_of_methods(run_dir)) else None
    if maps is None:
        why = "No attention maps were recorded in this run."
        return Section("attention", TITLE, None, (why,))
    prompt = maps.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise broken(path, f"{prompt!r} under 'prompt'", "the prompt's text")
    images = maps.get("images")
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise broken(path, f"{type(images).__name__} under 'images'", "a list of objects")
    if not images:
        why = (
            f"Attention maps of no image were recorded: {maps.get('note', 'no reason was given')}."
        )
        return Section("attention", TITLE, None, (why,))
    ordered = sorted(images, key=lambda image: -finite(path, image, "lesion_iou"))
    values = [float(image["lesion_iou"]) for image in ordered]
    with_panel = [image for image in ordered if image.get("panel")]
    shown = [with_panel[index] for index in evenly(len(with_panel), options.panels)]
    missing = () if with_panel else ("No panels were drawn in this run.",)
    spread = maps.get("lesion_iou_std")
    charts = [histogram("maps-iou", "IoU of the <lesion> map, thresholded", values, "IoU")]
    annotated = [finite(path, row, "annotated_iou") for row in ordered if "annotated_iou" in row]
    if annotated:
        title = "IoU of the mask from cross- and self-attention"
        charts.append(histogram("maps-annotated-iou", title, annotated, "IoU"))
    content = {
        "prompt": prompt,
        # A prompt with the tokens in it is one and the same for every image; else it says whose.
        "neutral": prompt is not None and "<lesion>" in prompt,
        "resolution": maps.get("resolution"),
        "n": maps.get("n", len(images)),
        "annotated": finite(path, maps, "annotated_iou_mean")
        if "annotated_iou_mean" in maps
        else None,
        "mean": finite(path, maps, "lesion_iou_mean"),
        "sd": mean_sd(values)[1] if spread is None else finite(path, maps, "lesion_iou_std"),
        "annotated_sd": mean_sd(annotated)[1] if annotated else None,
        "charts": charts,
        "shown": [_panel(path, image, options) for image in shown],
        "n_panels": len(with_panel),
        "truth": _truth(path, maps),
        "extremes": [_extreme(path, row, options) for row in _extremes(path, maps, options)],
    }
    return Section("attention", TITLE, content, missing)


def _panel(path: Path, image: dict[str, Any], options: Options) -> dict[str, Any]:
    iou = float(image["lesion_iou"])
    annotated = finite(path, image, "annotated_iou") if "annotated_iou" in image else None
    alt = (
        f"Held-out image {image.get('id', '')}: the image, its <lesion> map, its <skin> map and "
        f"the true mask's outline; IoU {iou:.3f}"
    )
    # A panel is drawn at twice its images' size, and so it is embedded: its lines are fine.
    side = 2 * options.picture_side
    picture = embed_named(path.parent, str(image["panel"]), alt, side, options.picture_quality)
    name = str(image.get("id", ""))
    return {"id": name, "iou": iou, "annotated": annotated, "picture": picture}


def _truth(path: Path, maps: dict[str, Any]) -> dict[str, Any] | None:
    """The table of annotated masks against true ones and its curve; None without them."""
    truth = maps.get("truth")
    if truth is None:
        return None
    if not isinstance(truth, dict):
        raise broken(path, f"{truth!r} under 'truth'", "an object")
    rows = []
    for key, (words, places) in MEASURES.items():
        numbers = truth.get(key)
        if not isinstance(numbers, dict):
            raise broken(path, f"{numbers!r} under 'truth.{key}'", "an object")
        mean, sd, middle = (finite(path, numbers, name) for name in ("mean", "sd", "median"))
        cells = (
            Cell(value=mean, spread=sd, places=places),
            Cell(value=middle, places=places),
        )
        rows.append(Row(words, cells))
    note = (
        f"Compared at {truth.get('compared_at')}; the band of the boundary IoU is "
        f"{truth.get('boundary_band_px')} px wide. Masks that failed count, as empty ones: "
        f"{int(finite(path, truth, 'n_failed'))} of {int(finite(path, truth, 'n'))}."
    )
    title = "Annotated masks of real held-out images against the true ones"
    columns = ("mean ± sd", "median")
    return {
        "table": Table(title, "measure", columns, tuple(rows), note),
        "chart": _curve(path, truth),
    }


def _curve(path: Path, truth: dict[str, Any]) -> Any:
    points = truth.get("rejection_by_contrast") or []
    if not points:
        return None
    line = Line(
        "mean IoU with the true mask",
        [finite(path, point, "rejected") for point in points],
        [finite(path, point, "quality") for point in points],
    )
    note = "From left to right the images whose map has the lowest contrast are left out."
    title = "Does the contrast of the map know which masks are right?"
    return line_chart("maps-curve", title, [line], "share rejected", "mean IoU", note=note)


def _extremes(path: Path, maps: dict[str, Any], options: Options) -> list[dict[str, Any]]:
    rows = maps.get("truth_panels", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise broken(path, f"{rows!r} under 'truth_panels'", "a list of objects")
    return rows if options.panels else []


def _extreme(path: Path, row: dict[str, Any], options: Options) -> dict[str, Any]:
    kind, name = str(row.get("kind", "")), str(row.get("id", ""))
    scores = {key: finite(path, row, f"annotated_{key}") for key in MEASURES}
    alt = (
        f"Held-out image {name}, {kind}: the image, the true outline, the annotated outline and "
        f"where the masks differ; IoU {scores['iou']:.3f}"
    )
    side = 2 * options.picture_side
    picture = embed_named(path.parent, str(row.get("panel")), alt, side, options.picture_quality)
    return {"kind": kind, "id": name, "picture": picture, **scores}
