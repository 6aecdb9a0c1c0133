"""Write one clinical sentence per image, and the attributes that it says."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import AddedToken

from didgen.backbone.loading import load_tokenizer
from didgen.backbone.placeholder import PLACEHOLDERS
from didgen.captions.attributes import Attributes
from didgen.captions.audit import audit
from didgen.captions.client import ModelClient, open_client
from didgen.captions.condense import Condensed, Rewrite, condense, condense_statistics
from didgen.captions.diversity import diversity
from didgen.captions.llm import ChatResponse
from didgen.captions.llm_captions import (
    InvalidResponse,
    Parsed,
    describe,
    parse_sentence,
    sentence_request,
    shorter_request,
    word,
)
from didgen.captions.measure import ImageRow, image_rows, measure_files
from didgen.runtime.files import read_csv, write_csv, write_json, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.runtime.progress import track
from didgen.settings.caption import Config

LOGGER = logging.getLogger(__name__)
# Failures that statistics.json names; all are in the log.
NAMED_FAILURES = 20


class TooManyFailed(ValueError):
    """More images failed than the settings allow."""


def run(config: Config) -> None:
    """Write captions.csv, measured.csv, statistics.json, audit.json and config.json.

    Rows stand in the manifests' order. Of images that a model fails to describe, up to
    `max_failed`, the attributes are the measured ones.
    Raises: `ManifestError`, `ImageError`, `MeasurementError` (naming the image), `BackboneError`,
    `ModelError` or `TooManyFailed`.
    """
    models = (config.backbone, config.model, config.mmproj, config.text_model)
    read = paths_read(config, *models)
    # Also where it is yet to be made: what lies there would be replaced.
    read += [Path(config.cache)] if config.cache else []
    # A model's answers may lie in the folder, and must outlive a failure.
    with output_folder(config.out, "caption", read, key="answers") as out:
        _caption(config, out)


def _caption(config: Config, out: Path) -> None:
    images = [row for path in (config.train, config.val, config.test) for row in image_rows(path)]
    tokenizer = _tokenizer(config.backbone, config.revision)
    measured = measure_files(images, config.workers)
    answers = config.state or out / "answers"
    figures: dict[str, Any] = {}
    if config.captioner == "measure":
        rows = [{**row, "captioner": "measure", "claims": ""} for row in measured]
    else:
        rows, figures = _described(config, images, measured, answers)
    attributes = [Attributes.from_row(row) for row in rows]
    if config.sentence == "model":
        condensed, figures["sentences"] = _worded(config, attributes, tokenizer, answers)
    else:
        condensed = [condense(one, tokenizer) for one in attributes]
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


def read_captions(path: Path, ids: Iterable[str]) -> pd.Series:
    """The captions of the given images, indexed by id, in the given order.

    Raises: `ValueError` when the file is missing, lacks a column, repeats an id, or has no
    caption of an image.
    """
    return read_caption_rows(path, ids)["caption"]


def read_caption_rows(path: Path, ids: Iterable[str]) -> pd.DataFrame:
    """The rows of captions.csv of the given images, indexed by id, in the given order.

    Raises: as `read_captions`.
    """
    table = read_csv(path, "caption", ("id", "caption")).set_index("id", drop=False)
    wanted = list(ids)
    absent = [name for name in wanted if not table["caption"].get(name)]
    if absent:
        raise ValueError(
            f"{path}: no caption for {len(absent)} of {len(wanted)} images "
            f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}); run the caption stage "
            "again"
        )
    return table.loc[wanted]


def _tokenizer(backbone: str, revision: str | None) -> Any:
    """The backbone's tokenizer with the placeholder tokens, as prompts will meet it."""
    tokenizer = load_tokenizer(backbone, revision)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLACEHOLDERS])
    return tokenizer


def _described(
    config: Config, images: list[ImageRow], measured: list[dict[str, str]], answers: Path
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The attributes of each image by the model, else the measured ones; and the model's figures.

    Raises: `ModelError`; `TooManyFailed` as soon as more than `max_failed` of the images have.
    """
    described: dict[int, Parsed[Attributes]] = {}
    failed: dict[str, str] = {}
    with open_client(config, answers) as client:
        results = describe(images, client, config.image_side, config.retries + 1)
        for one in track(results, total=len(images), label="described"):
            described[one.index] = one
            if one.value is None:
                name = images[one.index].id
                LOGGER.warning("%s: no description: %s", name, one.failure)
                failed[name] = one.failure
                if len(failed) > config.max_failed * len(images):
                    raise _too_many(failed, len(described), len(images), config.max_failed)
    rows = []
    for k, row in enumerate(measured):
        attributes, claims = described[k].value, described[k].raw
        if attributes is None:
            rows.append({**row, "captioner": "measure", "claims": claims})
        else:
            own = {"id": row["id"], "mask_source": "not used", **attributes.to_row()}
            rows.append({**own, "captioner": config.captioner, "claims": claims})
    named = dict(sorted(failed.items())[:NAMED_FAILURES])
    figures = {"captioner": config.captioner, "failed": len(failed), "failures": named}
    return rows, figures | client.usage.as_json()


def _too_many(failed: dict[str, str], seen: int, total: int, allowed: float) -> TooManyFailed:
    name, why = next(iter(failed.items()))
    return TooManyFailed(
        f"{len(failed)} of the first {seen} of {total} images have no description (the first is "
        f"{name}: {why}); max_failed allows {allowed:g} of all images. Find the cause and run the "
        "same command again: answers are kept; or raise max_failed, and failed images get measured "
        "attributes"
    )


def _worded(
    config: Config, attributes: list[Attributes], tokenizer: Any, answers: Path
) -> tuple[list[Condensed], dict[str, Any]]:
    """One sentence each in the model's words, and figures; one too long is asked for again.

    Where the model gives none, it is made from the vocabulary: the log and the figures count these.
    Raises: `ModelError`; `ReservedWord` with `reserved_words: refuse`.
    """
    texts: dict[int, str] = {}
    failures: Counter[str] = Counter()
    condensed = []
    with open_client(config, answers, text=True) as client:
        results = word(attributes, client, config.retries + 1)
        for read in track(results, total=len(attributes), label="sentences"):
            if read.value is None:
                failures[read.failure] += 1
            else:
                texts[read.index] = read.value
        for index, known in enumerate(attributes):
            if index not in texts:
                condensed.append(condense(known, tokenizer))
                continue
            one = condense(
                texts[index], tokenizer, _rewrite(client, known), config.retries,
                config.reserved_words,
            )  # fmt: skip
            if not one.caption:
                failures["its sentence has not one word that fits"] += 1
                one = replace(condense(known, tokenizer), asked_again=one.asked_again)
            condensed.append(one)
    reasons = dict(failures.most_common(NAMED_FAILURES))
    if failures:
        LOGGER.warning(
            "%d of %d sentences are made from the vocabulary: %s", failures.total(),
            len(attributes), "; ".join(f"{why} ({n})" for why, n in reasons.items()),
        )  # fmt: skip
    figures = {"from_vocabulary": failures.total(), "failures": reasons}
    return condensed, figures | client.usage.as_json()


def _rewrite(client: ModelClient, attributes: Attributes) -> Rewrite:
    """Asks for another sentence of the same attributes; None where the model gives none."""

    def rewrite(text: str, fault: str) -> str | None:
        request = shorter_request(sentence_request(attributes), text, fault)
        ((_, result),) = client.send([request])
        try:
            return parse_sentence(result.text) if isinstance(result, ChatResponse) else None
        except InvalidResponse:
            return None

    return rewrite


def _audit(config: Config, table: pd.DataFrame, measured: pd.DataFrame) -> dict[str, Any]:
    """How the model's claims agree with the measured attributes; nothing where none claimed."""
    claimed = table[table["captioner"] != "measure"]
    if claimed.empty:
        return {"captioner": config.captioner, "count": 0}
    same = measured[measured["id"].isin(claimed["id"])]
    return {"captioner": config.captioner, **audit(claimed, same)}


def _statistics(
    table: pd.DataFrame, tokens: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """Counts of every attribute's values, of captioners and mask sources; tokens; diversity."""
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
