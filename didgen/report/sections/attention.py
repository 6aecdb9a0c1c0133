"""Attention: where the model looks for `<lesion>` and `<skin>` in images it was not tuned on."""

from pathlib import Path
from typing import Any

from didgen.report.figures import histogram
from didgen.report.numbers import mean_sd
from didgen.report.page import Options, Section
from didgen.report.pictures import embed
from didgen.report.reading import broken, finite, json_file
from didgen.report.sections.pairs import evenly

TITLE = "Attention maps"


def section(run_dir: Path, options: Options) -> Section:
    """Embed `panels` panels, spread evenly from the highest to the lowest IoU."""
    path = run_dir / "maps" / "maps.json"
    maps = json_file(path)
    if maps is None:
        missing = ("No attention maps were recorded in this run.",)
        return Section("attention", TITLE, None, missing)
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
    picture = embed(path.parent / str(image["panel"]), alt, side, options.picture_quality)
    name = str(image.get("id", ""))
    return {"id": name, "iou": iou, "annotated": annotated, "picture": picture}
