"""Print where a run's report is and its verdict in words; needs nothing but Python."""

import json
import sys
from pathlib import Path


def outcome(run_dir: Path) -> list[str]:
    """The lines to print; none where the run has no verdict yet."""
    verdict = run_dir / "verdict.json"
    if not verdict.is_file():
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
