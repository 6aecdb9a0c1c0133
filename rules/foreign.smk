"""Files of the user where a run writes: Snakemake deletes outputs before a stage could refuse."""

import json
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError


def is_ours(path):
    """Whether a stage wrote the file: its folder's marker lists it, or it is a list or verdict."""
    # A set of several lies in a folder of its own below its stage's.
    for place in list(path.parents)[:2]:
        try:
            marker = json.loads((place / ".didgen.json").read_bytes())
            if path.relative_to(place).as_posix() in marker["files"]:
                return True
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    try:
        # The outputs that are single files: what `verdict`, `fetch` and `weights` write.
        alone = path.name in ("verdict.json", "archives.json", "weights.json")
        return alone and bool({"tasks", "files", "models"} & json.loads(path.read_bytes()).keys())
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def check_outputs():
    """Stop where a job to come would take the place of files that are not a stage's."""
    outputs = {Path(path) for job in workflow.dag.needrun_jobs() for path in job.output}
    foreign = [str(path) for path in sorted(outputs) if os.path.lexists(path) and not is_ours(path)]
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise WorkflowError(
            f"{len(foreign)} files lie where this run writes, but no stage wrote them: {shown};"
            " they may be yours, and nothing was changed. Move them away, or choose another name"
            " in `run`; results of an older version of DiDGen may be deleted"
        )


onstart:
    check_outputs()
