"""An edited stage runs again with what follows; an edited comment moves nothing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def append(finished: Path, name: str, text: str) -> str:
    """Add lines to a file of the copy's package; what the file was."""
    path = finished / "didgen" / name
    before = path.read_text()
    path.write_text(before + text)
    return before


@pytest.mark.parametrize(
    ("name", "text", "rerun", "kept"),
    [
        (
            "stages/maps.py",
            "\n\nANOTHER = 1\n",
            {"maps", "report", "all"},
            {"data", "caption", "finetune", "pairs_job", "segment_job", "verdict"},
        ),
        pytest.param(
            "methods/didgen/training.py",
            "\n\nANOTHER = 1\n",
            {"finetune", "images_job", "pairs_job", "augment", "maps", "verdict", "report"},
            {"data", "caption"},
            marks=pytest.mark.slow,
        ),
        ("stages/maps.py", "\n\n# A comment.\n", set(), {"maps", "report", "all"}),
    ],
)
def test_edited_code_runs_again(
    finished: Path, snakemake, jobs, name: str, text: str, rerun: set[str], kept: set[str]
) -> None:
    before = append(finished, name, text)
    try:
        done = snakemake(finished, "-n")
    finally:
        (finished / "didgen" / name).write_text(before)
    assert done.returncode == 0, done.stdout[-3000:]
    planned = set(jobs(done.stdout))
    assert rerun <= planned and not kept & planned


def test_every_stage_carries_its_revision() -> None:
    for path in (ROOT / "rules").glob("*.smk"):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            stage = re.search(r"-m didgen ([\w-]+)", block)
            carried = re.search(r'code=revision\("([\w-]+)"\)', block)
            assert (stage and stage[1]) == (carried and carried[1]), block.split(":")[0]
