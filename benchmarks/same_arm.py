"""An A/A check of the verdict: halves of one arm's seeds, which differ by nothing, are compared.

Ten seeds of `original` are trained on phantoms as in `null_arms`, or taken from a run; their
halvings five against five go through the test of the verdict. Asked: at most 5 % differ.

Run: python -m benchmarks.same_arm --task classification
     python -m benchmarks.same_arm --trained results/isic2018/classify --arm original
"""

import argparse
import logging
from pathlib import Path

from benchmarks.null_arms import Plan, train_missing
from didgen.metrics.contrasts import false_alarms
from didgen.metrics.tallies import mean_tally, recall_tally
from didgen.stages.arm_results import ArmResults, clusters_of, read_tables

SPLITS = 100


def alarms(own: ArmResults, confidence: float = 0.95) -> int:
    """False alarms in balanced accuracy, or in Dice where the tables have no predictions."""
    tables = list(own.tables.values())
    clusters = clusters_of({own.name: own})
    if "prediction" in tables[0]:
        labels = tables[0]["label"].to_numpy(str)
        tally = recall_tally([table["prediction"].to_numpy(str) for table in tables], labels)
    else:
        tally = mean_tally([table["dice"].to_numpy(float) for table in tables])
    return false_alarms(tally, clusters, SPLITS, confidence, 0)


def main() -> None:
    """Train what is missing and print the count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", type=Path, help="a run's folder classify or segment")
    parser.add_argument("--arm", default="original")
    parser.add_argument("--task", choices=("classification", "segmentation"),
                        default="classification")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("results/same-arm"))
    given = parser.parse_args()
    folder = given.trained
    if folder is None:
        logging.disable(logging.WARNING)
        plan = Plan(given.task, 60, 0, 60, 240, 32, given.seeds, 100, given.out)
        root = given.out / f"{plan.task}-{plan.key}"
        train_missing(plan, 0, root, [given.arm])
        folder = root / plan.stage
    name = "predictions.csv" if any(folder.glob("*/seed*/predictions.csv")) else "scores.csv"
    own = read_tables(folder, name, (given.arm,))[given.arm]
    differing = alarms(own)
    outcome = "met" if differing <= 0.05 * SPLITS else "NOT met"
    print(
        f"{given.arm}, {len(own.tables)} seeds: {differing} of {SPLITS} halvings differ at 5 % "
        f"(asked: at most 5): {outcome}"
    )


if __name__ == "__main__":
    main()
