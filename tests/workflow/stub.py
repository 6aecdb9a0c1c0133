"""Stands in for `didgen/__main__.py`: checks a stage's command line, then writes empty outputs.

Every rule runs for real against it, in seconds: a flag that its stage does not know, or a required
one that is missing, fails here as it would in a run of hours. What each stage received is a line of
`received.jsonl`.
"""

import json
import sys

from didgen.cli import _stage_parser, read_config, settings_of
from didgen.launcher import launch
from didgen.runtime.outputs import output_folder

FILES = {
    "data": ("train.csv", "val.csv", "test.csv", "summary.json", "leaks.json", "config.json"),
    "caption": ("captions.csv", "statistics.json", "measured.csv", "audit.json", "config.json"),
    "finetune": ("model_index.json", "training.csv", "config.json"),
    "train": ("config.json",),
    "prompts": ("prompts.csv", "statistics.json", "config.json"),
    "images": ("metadata.csv", "config.json"),
    "pairs": ("metadata.csv", "config.json"),
    "filter": (
        "scores.csv",
        "kept.csv",
        "rejected.csv",
        "summary.json",
        "curve.json",
        "config.json",
    ),
    "augment": ("metadata.csv", "config.json"),
    "maps": ("maps.json", "config.json"),
    "fidelity": ("fidelity.json", "measures.csv", "config.json"),
    "label_judges": ("judges.json", "judgements.csv", "config.json"),
    "label_fidelity": ("label_fidelity.json", "judgements.csv", "config.json"),
    "classify": (
        "metrics.json", "predictions.csv", "classifier.safetensors", "curves.csv", "config.json",
    ),
    "segment": ("metrics.json", "scores.csv", "segmenter.safetensors", "curves.csv", "config.json"),
    "external_data": ("summary.json", "config.json"),
    "external_test": ("predictions.csv", "scores.csv", "config.json"),
}  # fmt: skip
VERDICT = {"run": "smoke", "tasks": {"classification": {"sentence": "They help."}}}

name, *flags = sys.argv[1:]
if name == "run":
    launch(flags)
kind = settings_of(name, flags)
config = read_config(kind, _stage_parser(name, kind), flags)
with open("received.jsonl", "a", encoding="utf-8") as lines:
    lines.write(json.dumps({"stage": name, "config": config.model_dump(mode="json")}) + "\n")
print(f"stub of {name}: {' '.join(flags)}", file=sys.stderr)
if name in ("fetch", "weights"):
    config.out.write_text('{"files": [], "models": []}')
    sys.exit()
out, files = getattr(config, "out", None), FILES.get(name, ())
if name == "verdict":
    config.out.write_text(json.dumps(VERDICT))
    out, files = (
        config.tables,
        ("arms.csv", "tests.csv", "groups.csv", "external.csv", "config.json"),
    )
elif name == "report":
    out, files = config.out.parent, (config.out.name, "config.json")
if name == "external_data":
    files += tuple(f"{own.title}/test.csv" for own in config.external)
with output_folder(out, name) as folder:
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("<!doctype html>" if file == "index.html" else "{}")
