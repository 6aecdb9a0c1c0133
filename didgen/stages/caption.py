"""Write one clinical sentence an image, and the attributes that it says."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.settings.caption import Config

if TYPE_CHECKING:
    import pandas as pd

    from didgen.captions.condense import Condensed
    from didgen.stages.measuring import Job

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write captions.csv, measured.csv, statistics.json, audit.json and config.json.

    Rows stand in the manifests' order. Of images that a model fails to describe, up to
    `max_failed`, the attributes are the measured ones.
    Raises: `ManifestError`, `ImageError`, `MeasurementError` (naming the image), `BackboneError`,
    `ModelError` or `TooManyFailed`.
    """
    from didgen.runtime.outputs import output_folder, paths_read

    models = (config.backbone, config.model, config.mmproj, config.text_model)
    read = paths_read(config, config.cache, *models)
    # A model's answers may lie in the folder, and must outlive a failure.
    with output_folder(config.out, "caption", read, key="answers") as out:
        _caption(config, out)


def _caption(config: Config, out: Path) -> None:
    import pandas as pd

    from didgen.captions.condense import condense_statistics
    from didgen.runtime.files import write_csv, write_json, write_text
    from didgen.stages.measuring import jobs, measure_all

    items = [job for name in ("train", "val", "test") for job in jobs(getattr(config, name))]
    tokenizer = _tokenizer(config.backbone, config.revision)
    measured = measure_all(items, config.workers)
    answers = _answers(config, out)
    rows, figures = _described(config, items, measured, answers)
    condensed, worded = _sentences(config, rows, tokenizer, answers)
    figures |= worded
    table = pd.DataFrame(
        {"id": row["id"], "caption": one.caption, **row}
        for row, one in zip(rows, condensed, strict=True)
    )
    measured_table = pd.DataFrame(measured)
    tokens = condense_statistics(condensed, tokenizer)
    LOGGER.info(
        "%d captions, at most %d of %d tokens, %d trimmed; by: %s",
        len(table), tokens.max_tokens, tokens.limit, tokens.trimmed,
        table["captioner"].value_counts().to_dict(),
    )  # fmt: skip
    write_json(out / "audit.json", _audit(config, table, measured_table))
    write_json(out / "statistics.json", _statistics(table, tokens.as_json(), figures))
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    write_csv(out / "measured.csv", measured_table)
    write_csv(out / "captions.csv", table)


def read_captions(path: Path, ids: Iterable[str]) -> "pd.Series":
    """The captions of the given images, indexed by id, in the given order.

    Raises: `ValueError` when the file is missing, lacks a column, repeats an id or lacks an image.
    """
    import pandas as pd

    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the caption stage first")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"id", "caption"} <= set(table.columns):
        raise ValueError(f"{path}: found columns {list(table.columns)}, expected id and caption")
    if not table["id"].is_unique:
        raise ValueError(f"{path}: an id stands twice; run the caption stage again")
    captions = table.set_index("id")["caption"]
    wanted = list(ids)
    absent = [name for name in wanted if name not in captions.index]
    if absent:
        raise ValueError(
            f"{path}: no caption for {len(absent)} of {len(wanted)} images "
            f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}); run the caption stage "
            "again"
        )
    return captions[wanted]


def _tokenizer(backbone: str, revision: str | None) -> Any:
    """The backbone's tokenizer with the placeholder tokens, as prompts will meet it."""
    from transformers import AddedToken

    from didgen.backbone.loading import load_tokenizer
    from didgen.backbone.placeholder import PLACEHOLDERS

    tokenizer = load_tokenizer(backbone, revision)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLACEHOLDERS])
    return tokenizer


def _answers(config: Config, out: Path) -> Path:
    """The folder that keeps a model's answers."""
    if config.cache:
        return Path(config.cache)
    return config.state or out / "answers"


def _described(
    config: Config, items: list["Job"], measured: list[dict[str, str]], answers: Path
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The attributes of each image as they are to be said, who said so, and a model's figures."""
    if config.captioner == "measure":
        return [{**row, "captioner": "measure", "claims": ""} for row in measured], {}
    from didgen.stages.asking import describe_all
    from didgen.stages.measuring import attribute_columns

    found, figures = describe_all(config, items, answers)
    rows = []
    for row in measured:
        one = found[row["id"]]
        if one.attributes is None:
            rows.append({**row, "captioner": "measure", "claims": one.raw})
            continue
        said = {"id": row["id"], "mask_source": "not used", **attribute_columns(one.attributes)}
        rows.append({**said, "captioner": config.captioner, "claims": one.raw})
    return rows, figures


def _sentences(
    config: Config, rows: list[dict[str, str]], tokenizer: Any, answers: Path
) -> tuple[list["Condensed"], dict[str, Any]]:
    """One sentence a row that fits tokenizer and prefix, and a model's figures of them."""
    from didgen.captions.condense import condense
    from didgen.captions.layout import attributes_of

    attributes = [attributes_of(row) for row in rows]
    if config.sentence == "vocabulary":
        return [condense(one, tokenizer) for one in attributes], {}
    from didgen.stages.asking import word_all

    return word_all(config, attributes, tokenizer, answers)


def _audit(config: Config, table: "pd.DataFrame", measured: "pd.DataFrame") -> dict[str, Any]:
    """How the model's claims agree with the measured attributes; nothing where none claimed."""
    from didgen.captions.audit import audit

    claimed = table[table["captioner"] != "measure"]
    if claimed.empty:
        return {"captioner": config.captioner, "count": 0}
    same = measured[measured["id"].isin(claimed["id"])]
    return {"captioner": config.captioner, **audit(claimed, same)}


def _statistics(
    table: "pd.DataFrame", tokens: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """Counts of every attribute's values, of captioners and mask sources; tokens; diversity."""
    from didgen.captions.attributes import Attributes
    from didgen.captions.diversity import diversity

    values = {
        field: table[field].str.split("; ").explode().replace("", "not stated").value_counts()
        for field in Attributes.model_fields
    }
    return {
        "count": len(table),
        "distinct_captions": int(table["caption"].nunique()),
        "captioner": table["captioner"].value_counts().to_dict(),
        "mask_source": table["mask_source"].value_counts().to_dict(),
        "tokens": tokens,
        "diversity": diversity(table["caption"].tolist()),
        "values": {field: counts.to_dict() for field, counts in values.items()},
        **({"model": figures} if figures else {}),
    }
