"""What training a classifier and training a segmenter share: an arm's tables in, results out."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from didgen.downstream.classifiers import Built
    from didgen.downstream.datasets import ImageSet
    from didgen.downstream.training import Outcome

LOGGER = logging.getLogger(__name__)


class JudgeConfig(Protocol):
    """The fields of a stage's Config that name an arm's data."""

    train: Path
    val: Path
    test: Path
    synthetic: Path | None
    arm: str
    seed: int
    out: Path

    def model_dump_json(self) -> str: ...


def load_arm(
    config: JudgeConfig, need: Literal["label", "mask"]
) -> tuple[dict[str, "pd.DataFrame"], dict[str, Any]]:
    """The tables of an arm ("train", "val", "test", and "real": train without synthetic rows).

    Also returns how many images each has and how many lack what the task needs.
    Raises: ValueError for leaks between them, or the synthetic arm without synthetic images.
    """
    import pandas as pd

    from didgen.downstream.datasets import check_apart, usable_rows

    if config.arm == "synthetic" and config.synthetic is None:
        raise ValueError(
            "found arm 'synthetic' without synthetic images, expected --synthetic metadata.csv"
        )
    paths = {"real": config.train, "val": config.val, "test": config.test}
    if config.arm == "synthetic":
        paths["synthetic"] = config.synthetic
    frames, without = {}, {}
    for name, path in paths.items():
        frames[name], without[name] = usable_rows(path, need)
    check_apart(
        frames["real"],
        {"val": frames["val"], "test": frames["test"]},
        frames.get("synthetic"),
    )
    made = frames.get("synthetic")
    frames["train"] = (
        frames["real"] if made is None else pd.concat([frames["real"], made], ignore_index=True)
    ).fillna({"patient_id": "", "lesion_id": ""})
    counts = {
        "n_train": len(frames["train"]),
        "n_synthetic": 0 if made is None else len(made),
        "n_val": len(frames["val"]),
        "n_test": len(frames["test"]),
        f"n_without_{need}": {"train" if k == "real" else k: n for k, n in without.items()},
    }
    LOGGER.info(
        "arm %s: %d training images, %d of them synthetic; %d validation, %d test",
        config.arm, counts["n_train"], counts["n_synthetic"], counts["n_val"], counts["n_test"],
    )  # fmt: skip
    return frames, counts


def write_results(
    config: JudgeConfig,
    task: str,
    built: "Built",
    outcome: "Outcome",
    details: dict[str, Any],
    tables: dict[str, "pd.DataFrame"],
) -> None:
    """Write the tables, `curves.csv`, `config.json` and last `metrics.json` into `config.out`."""
    import pandas as pd

    from didgen.data.files import write_csv, write_json

    training = dataclasses.asdict(outcome)
    curves = training.pop("curves")
    report = {
        "task": task,
        "arm": config.arm,
        "seed": config.seed,
        "model": built.describe(),
        **details,
        "training": training,
    }
    for name, table in tables.items():
        write_csv(config.out / name, table)
    write_csv(config.out / "curves.csv", pd.DataFrame(curves))
    write_json(config.out / "config.json", json.loads(config.model_dump_json()))
    write_json(config.out / "metrics.json", report)


def grid_of(data: "ImageSet") -> str:
    """The size in px at which images are seen and masks are compared."""
    height, width = data.images.shape[:2]
    return f"{width}x{height} px"
