"""Print where a run's report is and its verdict in words; needs nothing but Python."""

import json
import sys
from pathlib import Path

# What a verdict rests on; after a single stage was run again it speaks of data that are gone.
EARLIER = ("data/train.csv", "finetune/model_index.json", "augment/metadata.csv")


def outcome(run_dir: Path) -> list[str]:
    """The lines to print; none where the run has no verdict yet, or one older than its data."""
    verdict = run_dir / "verdict.json"
    if not verdict.is_file():
        return []
    written = verdict.stat().st_mtime
    earlier = [run_dir / name for name in EARLIER if (run_dir / name).is_file()]
    earlier += run_dir.glob("methods/*/augment/metadata.csv")
    if any(path.stat().st_mtime > written for path in earlier):
        return []
    tasks = json.loads(verdict.read_text(encoding="utf-8"))["tasks"]
    lines = [f"{task}: {result['sentence']}" for task, result in tasks.items()]
    report = run_dir / "report" / "index.html"
    if report.is_file():
        lines.append(f"Report: {report.resolve()}")
    return lines


def main() -> int:
    """Print the outcome of the run folder given as the only argument."""
    if len(sys.argv) != 2:
        print("usage: outcome.py RUN_DIR, for example results/demo", file=sys.stderr)
        return 2
    for line in outcome(Path(sys.argv[1])):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
