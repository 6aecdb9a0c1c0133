"""Read the source, prepare its images, split them without leaks, write manifests and the audit."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from didgen.settings.data import Config

if TYPE_CHECKING:
    from didgen.data.sources.records import Record

LOGGER = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Write images, masks, one manifest a split, `leaks.json`, `summary.json` and `config.json`.

    Raises: `SourceError`, `SplitError`, `LeakError` or `ManifestError` before anything is named as
    finished; what can be told without pixels, before any is read.
    """
    from didgen.data.manifest import SPLITS, write_manifest
    from didgen.data.partition import SplitRule, check_before_pixels, duplicates_of, partition
    from didgen.data.preparation import Plan, as_table, look_at_images, prepare_images
    from didgen.data.selection import choose_records, identities
    from didgen.data.summary import summary
    from didgen.runtime.files import remove_unlisted, write_json, write_text

    limits = (config.max_per_class, config.max_masks, config.seed, config.tasks)
    choice = choose_records(_read_source(config), config.classes, *limits)
    rule = SplitRule(
        config.splits, config.on_leak, config.val_fraction, config.test_fraction, config.seed,
        config.tasks,
    )  # fmt: skip
    kept, everyone = identities(choice.kept), identities(choice.everyone)
    basis = check_before_pixels(kept, everyone, rule, f"source {config.source}")
    _claim_folder(config.out)
    LOGGER.info("preparing %d images at %d px", len(choice.kept), config.size)
    phantoms = config.source == "phantoms"
    near = config.near_duplicates and not phantoms
    plan = Plan(config.out, config.size, config.fit, config.hair_removal, near)
    prepared = prepare_images(choice.kept, plan, config.workers)
    # Two images that only a third one relates belong together, even where the third is left out.
    compared = choice.passed_over if config.compare_left_out and not phantoms else []
    looked = look_at_images(compared, plan, config.workers)
    pairs, finder = duplicates_of([*prepared, *looked])
    everyone = identities(choice.in_order([item.row["id"] for item in looked]))
    parts = partition(as_table(prepared), everyone, pairs, basis, rule, finder)
    kept = parts.frame[parts.keep]
    for split in SPLITS:
        write_manifest(kept[kept["split"] == split], config.out / f"{split}.csv")
    _check_written(config.out)
    write_json(config.out / "leaks.json", parts.leaks | {"n_compared": len(prepared) + len(looked)})
    left_out = choice.left_out | {"related to a later split": int((~parts.keep).sum())}
    here = [item for item, stays in zip(prepared, parts.keep, strict=True) if stays]
    told = summary(kept, here, left_out, config.source) | {"split_rule": parts.told}
    write_json(config.out / "summary.json", told)
    write_text(config.out / "config.json", config.model_dump_json(indent=2) + "\n")
    remove_unlisted(config.out, ("images", "masks"), [*kept["image"], *kept["mask"]])
    LOGGER.info("images by split: %s", kept["split"].value_counts().to_dict())


def _claim_folder(out: Path) -> None:
    """Mark the folder as ours: files in its images/ and masks/ that no manifest lists are removed.

    Manifests of an earlier run go: from here on their images are overwritten.
    Raises: `SourceError` when these folders hold files that no preparation wrote.
    """
    from didgen.data.manifest import SPLITS
    from didgen.data.sources.records import SourceError
    from didgen.runtime.files import write_text

    mark = out / ".prepared"
    ours = mark.exists() or (out / "config.json").exists()
    for folder in (out / "images", out / "masks"):
        if not ours and folder.is_dir() and any(folder.iterdir()):
            raise SourceError(
                f"{folder}: holds files that no preparation wrote, and would be overwritten; "
                "choose another --out, not the folder of your own images"
            )
    for split in SPLITS:
        (out / f"{split}.csv").unlink(missing_ok=True)
    write_text(mark, "images/ and masks/ here belong to `didgen prepare`\n")


def _read_source(config: Config) -> list["Record"]:
    if config.source == "phantoms":
        from didgen.data.sources.phantom import phantom_records

        return phantom_records(config.phantoms, config.classes, config.seed)
    if config.source == "isic2018":
        from didgen.data.download import archives_folder, listed_folder
        from didgen.data.sources.isic2018 import isic2018_records

        folder = archives_folder(config.mirror, config.archives)
        if config.listing:
            folder = listed_folder(config.listing)
        return isic2018_records(folder, official=config.splits == "official")
    if config.source == "table":
        from didgen.data.sources.own import own_records

        return own_records(config.table, config.columns, config.labels)
    if config.source == "folder":
        from didgen.data.sources.own import folder_records

        return folder_records(config.folder, config.labels)
    import importlib

    from didgen.data.sources import SOURCES

    module, function = SOURCES[config.source].split(":")
    return getattr(importlib.import_module(module), function)(Path(config.folder))


def _check_written(out: Path) -> None:
    """Assert on the manifests as written that nothing related stands in two splits.

    Raises: `ManifestError`. Leaks that the user accepts (`on_leak: warn`) are marked, and pass.
    """
    import pandas as pd

    from didgen.data.leaks import ACCEPTED
    from didgen.data.manifest import SPLITS, check_groups, check_identities, read_manifest

    files = [out / f"{split}.csv" for split in SPLITS]
    frame = pd.concat([read_manifest(path, check_files=False) for path in files])
    check_identities(frame, "manifests as written")
    if "leak" in frame:
        frame = frame[frame["leak"] != ACCEPTED]
    check_groups(frame, "manifests as written")
