"""Write new prompts for sampling with the language model that wrote the captions."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from didgen.backbone.loading import load_tokenizer
from didgen.captions.attributes import Attributes
from didgen.captions.client import open_client
from didgen.captions.diversity import diversity
from didgen.captions.few_shot import Send, write_prompts
from didgen.captions.recombine import ClassCaptions
from didgen.data.manifest import read_manifest
from didgen.runtime.files import read_csv, write_csv, write_json, write_text
from didgen.runtime.outputs import check_output, output_folder, paths_read
from didgen.settings.caption import Settings as CaptionSettings
from didgen.settings.prompts import Config
from didgen.stages.caption import read_caption_rows

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `prompts.csv`, `statistics.json` and `config.json`.

    Responses are kept: an interrupted run sends no request twice.
    Raises: `ValueError` where captions were measured, or a class has none; `ModelError`.
    """
    read = paths_read(config)
    check_output(config.out, "prompts", read)
    model = model_of(config.captioner)
    read += [Path(model.cache)] if model.cache else []
    # The model's answers may lie in the folder, and must outlive a failure.
    with output_folder(config.out, "prompts", read, key="answers") as out:
        _write(config, model, out)


def _write(config: Config, model: CaptionSettings, out: Path) -> None:
    tokenizer = load_tokenizer(config.backbone)
    classes = class_captions(config.train, config.captions, config.classes)
    rows: list[dict[str, str]] = []
    figures: dict[str, Any] = {}
    with open_client(model, config.state or out / "answers", text=True) as client:
        for captions in classes:
            more, figures[captions.label] = _write_class(config, captions, tokenizer, client.send)
            rows.extend(more)
    write_json(out / "statistics.json", figures)
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    write_csv(out / "prompts.csv", pd.DataFrame(rows))


def _write_class(
    config: Config, captions: ClassCaptions, tokenizer: Any, send: Send
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The rows of one class, and what became of the requests."""
    prompts, counts = write_prompts(
        captions, config.per_class, tokenizer, config.seed, send, config
    )
    figures = asdict(counts)
    LOGGER.info("%s: %d prompts; %s", captions.label, len(prompts), figures)
    rows = [
        {
            "label": captions.label,
            "number": str(number),
            "caption": prompt.caption,
            "origin": prompt.origin,
            "parent_ids": "; ".join(prompt.parent_ids),
            **prompt.attributes.to_row(),
        }
        for number, prompt in enumerate(prompts)
    ]
    return rows, figures | {"diversity": diversity([prompt.caption for prompt in prompts])}


def model_of(path: Path) -> CaptionSettings:
    """The caption stage's settings. Raises: `ValueError` where captions were measured."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected config.json of the caption stage")
    try:
        saved = json.loads(path.read_bytes())
        known = CaptionSettings.model_fields.keys() & saved.keys()
        settings = CaptionSettings(**{key: saved[key] for key in known})
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(
            f"{path}: no settings of the caption stage, or of another version; run that stage again"
        ) from None
    if settings.captioner == "measure":
        raise ValueError(
            f"{path}: found captioner: measure, which is no language model; set caption.captioner, "
            "or images.prompts: recombined, which needs none"
        )
    return settings


def class_captions(
    train: Path, captions: Path, classes: tuple[str, ...] | None
) -> list[ClassCaptions]:
    """The training captions of each class, in the order given; null: all classes, sorted.

    Raises: `ValueError` for a class without training images, or a caption without attributes.
    """
    frame = read_manifest(train)
    present = sorted({label for label in frame["label"] if label})
    absent = sorted(set(classes or ()) - set(present))
    if absent:
        raise ValueError(f"classes asks for {absent}, but training images have {present} alone")
    rows = read_caption_rows(captions, frame["id"])
    return [
        ClassCaptions.of(
            code,
            {
                name: Attributes.from_row(row)
                for name, row in rows.loc[frame.loc[frame["label"] == code, "id"]].iterrows()
            },
        )
        for code in (classes if classes is not None else present)
    ]


def read_prompts(path: Path | None, code: str, count: int) -> list[tuple[tuple[str, ...], str]]:
    """The first `count` prompts of a class: parent ids and caption of each.

    Raises: `ValueError` when the file is missing or has fewer.
    """
    if path is None:
        raise ValueError("found no file of prompts, expected prompts.csv of the prompts stage")
    table = read_csv(path, "prompts", ("label", "caption", "parent_ids"))
    rows = table[table["label"] == code]
    if len(rows) < count:
        raise ValueError(
            f"{path}: {len(rows)} prompts of {code}, but {count} images are to be made; run the "
            "prompts stage with as many"
        )
    parents = rows["parent_ids"].str.split("; ").map(tuple)
    return list(zip(parents, rows["caption"], strict=True))[:count]
