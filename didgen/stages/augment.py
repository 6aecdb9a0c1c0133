"""Gather the synthetic images and the kept pairs into one augmented data set."""

import logging
from pathlib import Path

import pandas as pd

from didgen.data.images import check_kind
from didgen.data.manifest import check_manifest, read_manifest
from didgen.runtime.files import place_file, read_csv, write_csv, write_json, write_text
from didgen.runtime.outputs import output_folder, paths_read
from didgen.settings.augment import Config
from didgen.stages.failures import all_failed, all_rejected

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write the augmented set; `datasets.load_dataset("imagefolder", data_dir=out)` opens it.

    `metadata.csv` is a manifest too, with the column `image` under the name `file_name`.
    Raises: `ManifestError` for a damaged set, `ImageError` for a file that is no image,
    `ValueError` when all images, or all pairs, failed or were rejected.
    """
    with output_folder(config.out, "augment", paths_read(config)) as out:
        _augment(config, out)


def _augment(config: Config, out: Path) -> None:
    if not (config.images or config.pairs):
        raise ValueError("found neither images nor pairs, expected --images, --pairs or both")
    images = [_gather(folder, out, "images") for folder in config.images]
    pairs = [_gather(folder, out, "pairs", config.scores) for folder in config.pairs]
    for kind, folders, made in (
        ("images", config.images, images),
        ("pairs", config.pairs, pairs),
    ):
        if folders and not any(map(len, made)):
            scores = config.scores if kind == "pairs" else None
            raise ValueError(all_rejected(scores) or all_failed(kind, folders))
    frame = pd.concat([part for part in (*images, *pairs) if len(part)], ignore_index=True)
    frame = frame.fillna("")
    frame = frame.sort_values("id", ignore_index=True)
    check_manifest(frame, str(config.out / "metadata.csv"))
    frame.insert(0, "file_name", frame.pop("image"))
    write_csv(out / "metadata.csv", frame)
    write_json(
        out / "summary.json",
        {
            "n_images": len(frame),
            "n_pairs": int((frame["mask"] != "").sum()),
            "classes": frame["label"].replace("", "mask only").value_counts().to_dict(),
            "checkpoints": sorted(set(frame["checkpoint"])),
        },
    )
    write_text(out / "config.json", config.model_dump_json(indent=2) + "\n")
    LOGGER.info("%d synthetic images, %d with a mask", len(frame), int((frame["mask"] != "").sum()))


def _gather(folder: Path, out: Path, kind: str, scores: Path | None = None) -> pd.DataFrame:
    """The rows of a set, its files placed in `out`; with `scores`, of the kept pairs alone."""
    table = folder / "metadata.csv"
    if not len(read_csv(table, kind)):
        return pd.DataFrame()
    frame = read_manifest(table)
    if scores is not None:
        frame = _kept(frame, scores, table)
    for column in ("image", "mask", "condition"):
        for name in frame.get(column, pd.Series(dtype=str)):
            if name:
                # A link in another's set may lead to any file, and this set may be published.
                check_kind(folder / name)
                place_file(folder / name, out / name)
    return frame


def _kept(frame: pd.DataFrame, scores: Path, table: Path) -> pd.DataFrame:
    """The rows that the filter keeps, with the scores that it added.

    Raises: `ValueError` for a pair that was not filtered, or was made anew since.
    """
    judged = read_csv(scores, "filter", ("id", "sha256", "kept")).set_index("id")
    filtered = judged["sha256"].reindex(frame["id"])
    unknown = frame.loc[(filtered != frame.set_index("id")["sha256"]).to_numpy(), "id"].tolist()
    if unknown:
        raise ValueError(
            f"{table}: {len(unknown)} of {len(frame)} pairs ({', '.join(unknown[:5])}) are not "
            f"those that {scores} judged; run the filter stage again"
        )
    words = sorted(set(judged["kept"]) - {"yes", "no"})
    if words:
        raise ValueError(
            f"{scores}: found {words} in the column kept, expected yes or no; correct the cells"
        )
    added = [name for name in judged if name not in {*frame, "kept", "reasons"}]
    frame = frame.join(judged[added], on="id")
    return frame[(judged["kept"].reindex(frame["id"]) == "yes").to_numpy()]
