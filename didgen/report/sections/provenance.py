"""Provenance: what was run, with which settings, versions, seeds and checkpoint, at what cost."""

import itertools
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from didgen import __version__
from didgen.report.cost import commit, cost_table, jobs, machine
from didgen.report.numbers import listed, megabytes, plural
from didgen.report.page import Options, Section
from didgen.report.reading import (
    Trial,
    json_file,
    sets_of_methods,
    shards,
    synthetic_set,
    text_table,
    trials,
)
from didgen.settings.methods import DIDGEN, METHODS, TAUGHT_BY, needs_fine_tuning

STAGES = ("data", "caption", "finetune", "images", "pairs", "augment", "maps", "verdict")
# What a run without sets of its own leaves out.
OF_SETS = ("finetune", "images", "pairs", "augment", "maps")
SHARDED = ("images", "pairs")
LIBRARIES = ("torch", "diffusers", "transformers", "timm", "segmentation-models-pytorch",
             "numpy", "scikit-image", "scikit-learn", "pandas", "pillow")  # fmt: skip


def section(run_dir: Path, options: Options) -> Section:
    """Read each stage's config.json, the checkpoints' hashes, the seeds and the sizes."""
    made = sets_of_methods(run_dir)
    tasks = (_config(run_dir, "data") or {}).get("tasks") or list(TAUGHT_BY)
    kinds = {TAUGHT_BY[task] for task in tasks if task in TAUGHT_BY}
    own = {*kinds, "augment"} if DIDGEN in made else set()
    own |= {"finetune", "maps"} if needs_fine_tuning(made) else set()
    stages = [name for name in STAGES if name in own or name not in OF_SETS]
    configs = {stage: _config(run_dir, stage) for stage in stages}
    for name, folder in made.items():
        if name == DIDGEN:
            continue
        if METHODS[name].trained:
            configs[f"train, {name}"] = _config(folder, "model")
        for stage in sorted(kinds & METHODS[name].makes):
            configs[f"{stage}, {name}"] = _config(folder, stage)
    for task in ("classify", "segment"):
        firsts: dict[str, Trial] = {}
        for trial in trials(run_dir, task):
            firsts.setdefault(trial.arm, trial)
        for arm, trial in firsts.items():
            configs[f"{task}, {arm}, seed {trial.seed}"] = json_file(trial.folder / "config.json")
    missing = [
        f"The stage {stage} left no config.json in this run."
        for stage, config in configs.items()
        if config is None
    ]
    facts, gpu_watts = machine()
    content = {
        "cost": cost_table(jobs(run_dir), gpu_watts),
        "machine": facts,
        "configs": {
            stage: [(key, _shown(value, run_dir)) for key, value in config.items()]
            for stage, config in configs.items()
            if config is not None
        },
        "facts": _facts(run_dir, made),
        "versions": _versions(),
    }
    return Section("provenance", "Provenance", content, tuple(missing))


def _config(folder: Path, stage: str) -> dict[str, Any] | None:
    """The settings of a stage; of its first shard, since shards differ in their number alone."""
    places = shards(folder, stage)[:1] if stage in SHARDED else [folder / stage]
    return json_file(places[0] / "config.json") if places else None


def _shown(value: Any, run_dir: Path) -> str:
    """A setting as text; a path inside the run is given relative to the run's parent."""
    if isinstance(value, str):
        for root in (run_dir.resolve(), run_dir):
            value = value.replace(f"{root}/", f"{run_dir.resolve().name}/")
        return value or "(empty)"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(item, run_dir)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_shown(item, run_dir) for item in value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _facts(run_dir: Path, made: dict[str, Path]) -> list[tuple[str, str]]:
    facts = []
    if (choice := json_file(run_dir / ".state" / "precision.json")) is not None:
        facts.append(("Arithmetic on processors", f"{choice['precision']}: {choice['reason']}"))
    checkpoints: dict[str, dict[str, None]] = {}
    nouns = (("images", "class-conditional images"), ("pairs", "pairs"))
    for folder, (name, noun) in itertools.product(made.values(), nouns):
        frame, _ = synthetic_set(folder, name)
        if frame is None:
            continue
        text = plural(len(frame), "row")
        if "seed" in frame and (frame["seed"] != "").any():
            text += f", {plural(frame['seed'].nunique(), 'seed')} (column seed of metadata.csv)"
        if "method" in frame:
            text += f", method {listed(sorted(set(frame['method']) - {''})) or 'not named'}"
        facts.append((f"Synthetic {noun}", text))
        for row in frame.to_dict("records"):
            if value := row.get("checkpoint"):
                checkpoints.setdefault(row.get("method") or "the model", {})[value] = None
    for method, hashes in checkpoints.items():
        facts.append((f"Checkpoint of {method}, SHA-256", listed(list(hashes))))
        if len(hashes) > 1:
            facts.append(("Caution", f"{method}: sets were made by different checkpoints"))
    for name, folder in made.items():
        augmented = text_table(folder / "augment" / "metadata.csv", ("file_name",))
        if augmented is not None:
            facts.append((f"Augmented set of {name}", plural(len(augmented), "image")))
    if needs_fine_tuning(made) and (run_dir / "finetune" / "model_index.json").is_file():
        files = [path for path in (run_dir / "finetune").rglob("*") if path.is_file()]
        facts.append(("Fine-tuned backbone", megabytes(sum(p.stat().st_size for p in files))))
    for task in ("classify", "segment"):
        seeds = sorted({trial.seed for trial in trials(run_dir, task)})
        if seeds:
            facts.append((f"Seeds of {task}", listed([str(seed) for seed in seeds])))
    return facts


def _versions() -> list[tuple[str, str]]:
    versions = [("didgen", __version__), ("Python", platform.python_version())]
    if (named := commit()) is not None:
        versions.append(("commit", named))
    for name in LIBRARIES:
        try:
            versions.append((name, version(name)))
        except PackageNotFoundError:
            versions.append((name, "not installed where the report was written"))
    return versions
