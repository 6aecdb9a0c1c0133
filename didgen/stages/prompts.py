"""Write new prompts for sampling with the language model that wrote the captions."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.settings.prompts import Config

if TYPE_CHECKING:
    import pandas as pd

    from didgen.captions.recombine import ClassCaptions
    from didgen.settings.caption import Settings as CaptionSettings

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write `prompts.csv`, `statistics.json` and `config.json`.

    Answers are kept: an interrupted run asks nothing twice.
    Raises: `ValueError` where captions were measured, or a class has none; `ModelError`.
    """
    from didgen.runtime.outputs import output_folder, paths_read

    # The model's answers may lie in the folder, and must outlive a failure.
    with output_folder(config.out, "prompts", paths_read(config), key="answers") as out:
        _write(config, out)


def _write(config: Config, out: Path) -> None:
    import pandas as pd

    from didgen.backbone.loading import load_tokenizer
    from didgen.runtime.files import write_csv, write_json, write_text
    from didgen.stages.asking import interview

    model = model_of(config.captioner)
    tokenizer = load_tokenizer(config.backbone)
    classes = class_captions(config.train, config.captions, config.classes)
    kept = Path(model.cache) if model.cache else config.state or out / "answers"
    rows: list[dict[str, str]] = []
    figures: dict[str, Any] = {}
    with interview(model, kept, text=True) as asked:
        for captions in classes:
            more, figures[captions.label] = _write_class(config, captions, tokenizer, asked.ask)
            rows.extend(more)
    table = pd.DataFrame(rows)
    write_json(out / "statistics.json", figures)
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    write_csv(out / "prompts.csv", table)


def _write_class(
    config: Config, captions: "ClassCaptions", tokenizer: Any, ask: Any
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The rows of one class, and what became of the questions."""
    from dataclasses import asdict

    from didgen.captions.diversity import diversity
    from didgen.captions.few_shot import write_prompts
    from didgen.stages.measuring import attribute_columns

    prompts, counts = write_prompts(
        captions, config.per_class, tokenizer, config.seed, ask, config.examples,
        config.temperature, config.tries, config.max_overlap,
    )  # fmt: skip
    told = asdict(counts)
    LOGGER.info("%s: %d prompts; %s", captions.label, len(prompts), told)
    rows = [
        {
            "label": captions.label,
            "number": str(number),
            "caption": prompt.caption,
            "origin": prompt.origin,
            "parent_ids": "; ".join(prompt.parent_ids),
            **attribute_columns(prompt.attributes),
        }
        for number, prompt in enumerate(prompts)
    ]
    return rows, told | {"diversity": diversity([prompt.caption for prompt in prompts])}


def model_of(path: Path) -> "CaptionSettings":
    """The caption stage's settings. Raises: `ValueError` where captions were measured."""
    import json

    from didgen.settings.caption import Settings as CaptionSettings

    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected config.json of the caption stage")
    given = json.loads(path.read_text(encoding="utf-8"))
    known = {key: given[key] for key in CaptionSettings.model_fields if key in given}
    settings = CaptionSettings(**known)
    if settings.captioner == "measure":
        raise ValueError(
            f"{path}: found captioner: measure, which is no language model; set caption.captioner, "
            "or images.prompts: recombined, which needs none"
        )
    return settings


def class_captions(
    train: Path, captions: Path, classes: tuple[str, ...] | None
) -> list["ClassCaptions"]:
    """The training captions of each class, in the order given; null: all classes, sorted.

    Raises: `ValueError` for a class without training images, or a caption without attributes.
    """
    from didgen.captions.layout import attributes_of
    from didgen.captions.recombine import ClassCaptions
    from didgen.data.manifest import read_manifest

    frame = read_manifest(train)
    present = sorted({label for label in frame["label"] if label})
    absent = sorted(set(classes or ()) - set(present))
    if absent:
        raise ValueError(f"classes asks for {absent}, but training images have {present} alone")
    table = _rows_of(captions, frame["id"])
    found = []
    for code in classes if classes is not None else present:
        ids = frame.loc[frame["label"] == code, "id"]
        parents = {name: attributes_of(row) for name, row in table.loc[ids].iterrows()}
        found.append(ClassCaptions.of(code, parents))
    return found


def _rows_of(captions: Path, ids: "pd.Series") -> "pd.DataFrame":
    """Rows of captions.csv by id. Raises: `ValueError` as `read_captions`."""
    import pandas as pd

    from didgen.stages.caption import read_captions

    read_captions(captions, ids)
    return pd.read_csv(captions, dtype=str, keep_default_na=False).set_index("id")


def read_prompts(path: Path | None, code: str, count: int) -> list[tuple[tuple[str, ...], str]]:
    """The first `count` prompts of a class: parent ids and caption of each.

    Raises: `ValueError` when the file is missing or has fewer.
    """
    import pandas as pd

    if path is None or not Path(path).is_file():
        raise ValueError(f"{path}: no such file; expected prompts.csv of the prompts stage")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"label", "caption", "parent_ids"} <= set(table.columns):
        raise ValueError(
            f"{path}: found columns {list(table.columns)}; run the prompts stage again"
        )
    rows = table[table["label"] == code]
    if len(rows) < count:
        raise ValueError(
            f"{path}: {len(rows)} prompts of {code}, but {count} images are to be made; run the "
            "prompts stage with as many"
        )
    parents = rows["parent_ids"].str.split("; ").map(tuple)
    return list(zip(parents, rows["caption"], strict=True))[:count]
