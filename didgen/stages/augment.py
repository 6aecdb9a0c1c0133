"""Gather the synthetic images and the kept pairs into one augmented data set."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from didgen.settings.augment import Config

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write the augmented set; `datasets.load_dataset("imagefolder", data_dir=out)` opens it.

    Files of an earlier run that are not part of the set any more are removed. `metadata.csv` is a
    manifest too, with the column `image` under the name `file_name`.
    Raises: `ManifestError` for a damaged set, `ValueError` when nothing was synthesized at all.
    """
    import pandas as pd

    from didgen.data.manifest import check_manifest
    from didgen.runtime.files import remove_unlisted, write_csv, write_json, write_text

    parts = [_gather(folder, config.out) for folder in config.images]
    parts += [_gather(folder, config.out, config.scores) for folder in config.pairs]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise ValueError(
            "nothing was synthesized: images.per_class and pairs.count are both 0, or every sample "
            "failed (see failed.csv beside each set); raise one of them"
        )
    frame = pd.concat(parts, ignore_index=True).fillna("")
    frame = frame.sort_values("id", ignore_index=True)
    check_manifest(frame, str(config.out / "metadata.csv"))
    frame.insert(0, "file_name", frame.pop("image"))
    write_csv(config.out / "metadata.csv", frame)
    write_json(
        config.out / "summary.json",
        {
            "n_images": len(frame),
            "n_pairs": int((frame["mask"] != "").sum()),
            "classes": frame["label"].replace("", "mask only").value_counts().to_dict(),
            "checkpoints": sorted(set(frame["checkpoint"])),
        },
    )
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")
    # An image folder is read by its files too: strays would be found without a caption.
    columns = [column for column in ("file_name", "mask", "condition") if column in frame]
    listed = [name for column in columns for name in frame[column] if name]
    remove_unlisted(config.out, ("images", "masks", "conditions"), listed)
    LOGGER.info("%d synthetic images, %d with a mask", len(frame), int((frame["mask"] != "").sum()))


def _gather(folder: Path, out: Path, scores: Path | None = None) -> "pd.DataFrame":
    """The rows of a set, its files placed in `out`; with `scores`, of the kept pairs alone."""
    import pandas as pd

    from didgen.data.manifest import read_manifest

    table = folder / "metadata.csv"
    if table.is_file() and not len(pd.read_csv(table)):
        return pd.DataFrame()
    frame = read_manifest(table)
    if scores is not None:
        frame = _kept(frame, scores, table)
    for column in ("image", "mask", "condition"):
        for name in frame.get(column, pd.Series(dtype=str)):
            if name:
                _place(folder / name, out / name)
    return frame


def _kept(frame: "pd.DataFrame", scores: Path, table: Path) -> "pd.DataFrame":
    """The rows that the filter keeps, with the scores that it added.

    Raises: `ValueError` for a pair that was not filtered, or was made anew since.
    """
    import pandas as pd

    if not scores.is_file():
        raise ValueError(f"{scores}: no such file; run the filter stage first")
    judged = pd.read_csv(scores, dtype=str, keep_default_na=False).set_index("id")
    told = judged["sha256"].reindex(frame["id"])
    unknown = frame.loc[(told != frame.set_index("id")["sha256"]).to_numpy(), "id"].tolist()
    if unknown:
        raise ValueError(
            f"{table}: {len(unknown)} of {len(frame)} pairs ({', '.join(unknown[:5])}) are not "
            f"those that {scores} judged; run the filter stage again"
        )
    added = [name for name in judged if name not in {*frame, "kept", "reasons"}]
    frame = frame.join(judged[added], on="id")
    return frame[(judged["kept"].reindex(frame["id"]) == "yes").to_numpy()]


def _place(source: Path, target: Path) -> None:
    """Hard-link where the file system can, else copy: the same bytes, once on disk."""
    import os
    import shutil

    from didgen.runtime.files import atomic_path

    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
