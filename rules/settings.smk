"""What all rules share: the run's folder, its settings, its device, its interpreter."""

import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import WILDCARD_REGEX
from snakemake.utils import validate
from snakemake_interface_executor_plugins.settings import DeploymentMethod

CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method


def check_config():
    """Stop before any job when a key is unknown, a value wrong or a combination impossible.

    The pydantic models know which values go together, and name the key; where the launcher has no
    pydantic, the schema made from them still catches unknown keys, types and ranges.
    """
    try:
        from didgen.cli import explain
        from didgen.settings.run import RunConfig
        from pydantic import ValidationError
    except ModuleNotFoundError as error:
        if error.name != "pydantic":
            raise
    else:
        try:
            # With all defaults filled in: writing one out changes nothing and reruns nothing.
            config.update(RunConfig.model_validate(config).model_dump(mode="json"))
        except ValidationError as error:
            raise WorkflowError(f"The configuration cannot be used:\n{explain(error)}") from None
    validate(config, "../workflow/schemas/config.schema.json")
    if config["mirror"]:
        config["data"]["mirror"] = config["mirror"]


def check_extras():
    """Stop before any job when a setting needs a package that is missing here.

    Conda environments bring what their stages need.
    """
    if CONDA or not workflow.is_main_process:
        return
    from didgen.settings import extras

    try:
        extras.check(config)
    except extras.MissingExtra as error:
        raise WorkflowError(f"The configuration cannot be run here:\n{error}") from None


def check_paths():
    """Stop where a path cannot be written down for Snakemake, or for Python."""
    if HOME and set("{}:") & set(str(HOME)):
        raise WorkflowError(
            f"The workflow lies in {HOME}; Snakemake would fill in braces in the paths of its"
            " environments, and PYTHONPATH would end at a colon: move it to a folder without"
        )
    data = config["data"]
    inputs = {f"data.{key}": data[key] for key in ("table", "folder", "mirror")}
    inputs |= {
        f"data.external.{key}": own[key] for own in data["external"] for key in ("table", "folder")
    }
    inputs |= {f"sets.{name}.metadata": own["metadata"] for name, own in config["sets"].items()}
    for key, path in inputs.items():
        if path and "://" not in path and WILDCARD_REGEX.search(path):
            raise WorkflowError(
                f"{key}: found {path}, in which Snakemake takes words in braces for wildcards;"
                " rename the file or folder, or give its path relative to the working folder"
            )


def check_gpus():
    """Stop where a profile asks for another number of GPUs than the fine-tuning has processes.

    Too few would fail on their node, too many would idle there. Whole nodes (`--exclusive`), 0 and
    numbers given by an expression are not checked.
    """
    if not workflow.is_main_process:
        return
    asked = workflow.resource_settings.overwrite_resources.get("finetune", {})
    asked = {name: str(getattr(value, "raw", value)) for name, value in asked.items()}
    by_name = re.fullmatch(r"['\"]?gpu:(?:[\w.]+:)?(\d+)['\"]?", asked.get("gres", ""))
    cards = by_name.group(1) if by_name else asked.get("gpu", "")
    processes = config["finetune"]["processes"]
    if cards.isdecimal() and int(cards) not in (0, processes):
        raise WorkflowError(
            f"finetune: found {int(cards)} GPUs in the profile (finetune_gpus, or --set-resources),"
            f" expected {processes}, one for each of finetune.processes of the configuration;"
            " make both the same"
        )


def as_json(section, **more):
    """One stage's settings as JSON: editing them reruns that stage and what follows it.

    All that a user may write reaches a stage this way and not as a flag, where `none` would not be
    text and a leading dash would start another flag. `more`: further keys, or functions of a job's
    wildcards.

    A function, because Snakemake would replace words in braces in a plain text.
    """

    def text(wildcards):
        values = {key: get(wildcards) if callable(get) else get for key, get in more.items()}
        return json.dumps(section | values, sort_keys=True)

    return text


def annotation():
    """The keys of `pairs` that say how masks are read, which held-out real images share."""
    try:
        from didgen.settings.annotation import AnnotationSettings
    except ModuleNotFoundError:  # a launcher without pydantic
        return config["pairs"]
    keys = [key for key in AnnotationSettings.model_fields if key in config["pairs"]]
    return {key: config["pairs"][key] for key in keys}


def fine_tuned(files):
    """The files where something is made with the fine-tuned backbone, else none."""
    return files if FINE_TUNED else []


def place_of(method, generator=""):
    """Where a method's sets lie below the run's folder; `generator`: the folder of which training."""
    return generator if method == DIDGEN else f"{generator}methods/{method}/"


def method_of(place):
    """The method whose sets lie at a place."""
    return (
        place.removeprefix(generator_of(place)).removeprefix("methods/").removesuffix("/") or DIDGEN
    )


def generator_of(place):
    """The folder of the generator that a place belongs to; "" for the first."""
    return next(folder for folder in reversed(GENERATORS) if place.startswith(folder))


def seed_of(generator):
    """The seed of a generator, and of all that it makes."""
    return config["seed"] + GENERATORS.index(generator)


def method_at(wildcards):
    """The method of a job's sets."""
    return method_of(wildcards.place)


def facts_at(wildcards):
    """What that method makes and needs."""
    return METHODS[method_at(wildcards)]


def own_at(wildcards):
    """That method's own settings; null for the run's own method."""
    return RIVALS.get(method_at(wildcards))


def makes(place, kind):
    """Whether a place has sets of a kind, `images` or `pairs`: the run's tasks want them, too."""
    return kind in METHODS[method_of(place)].makes and any(
        TAUGHT_BY[task] == kind for task in config["data"]["tasks"]
    )


def made_at(kind, files):
    """Those files of a set that the method at a place makes, else none."""
    return lambda wildcards: files if makes(wildcards.place, kind) else []


def of_sets(kind, file):
    """A file of each set of the first generator; `kind`: of those that have such images or pairs."""
    places = [place for place in PLACES.values() if kind is None or makes(place, kind)]
    return expand(file, place=places)


def model_at(wildcards):
    """The file that says that the method's model is there: its own, or the fine-tuned backbone."""
    method, generator = method_at(wildcards), generator_of(wildcards.place)
    if method == DIDGEN or not METHODS[method].trained:
        return backbone_of(generator)
    return f"{RUN}/{generator}methods/{method}/model/config.json"


def backbone_of(generator=""):
    """The file that says that the fine-tuned backbone of a generator is there."""
    return f"{RUN}/{generator}finetune/model_index.json"


def base_of(method, generator):
    """The fine-tuned backbone, for a method that is trained on top of it, else none."""
    builds = METHODS[method].trained and METHODS[method].backbone == "fine-tuned"
    return backbone_of(generator) if builds else []


def base_flag(backbone):
    """The words of the flag with its folder, or none; quote with :q."""
    return flag("--backbone", folder(backbone)) if backbone else []


def generated_for(wildcards):
    """The run's own pairs, for a method that makes images for their masks, else none."""
    own = own_at(wildcards)
    if (
        own is None
        or "mask" not in facts_at(wildcards).reads
        or own.get("conditions") == "training"
    ):
        return []
    generator = generator_of(wildcards.place)
    return gather.pairs(f"{RUN}/{generator}pairs/{{scatteritem}}/metadata.csv")


def gpus(wildcards):
    """How many GPUs a job of a network takes.

    Where there is none, 0 leaves the jobs free to run side by side. A cluster's login node may
    have none although its nodes do: there the profile says so.
    """
    return int(shutil.which("nvidia-smi") is not None)


def folder(path):
    """The folder of an output or input file, for commands that take folders."""
    return str(Path(path).parent)


def flag(name, files):
    """The words of a flag with files of the run, or none where there are none; quote with :q."""
    return [name, *([files] if isinstance(files, str) else files)] if files else []


def source_files(wildcards):
    """What `data` reads: the list of archives, the table, or the folder, for its existence."""
    data = config["data"]
    if data["source"] == "isic2018":
        return {"listing": rules.fetch.output.listing}
    if data["source"] == "table":
        return {"table": str(Path(data["table"]))}
    return {"folder": ancient(str(Path(data["folder"])))} if data["folder"] else {}


@functools.cache
def own_files():
    """The state of the user's own images, as a digest: editing one runs `data` again.

    As inputs, a hundred thousand of them would slow down every plan.
    """
    return source_state(config["data"])


@functools.cache
def external_files():
    """The state of the files of each external test set."""
    return [source_state(own) for own in config["data"]["external"]]


def preparation():
    """The settings of `data`, without how archives come here, and external sets."""
    others = ("mirror", "archives", "offline", "external")
    return {key: value for key, value in config["data"].items() if key not in others}


def mirror_files(wildcards):
    """The files of a mirror on this machine's disks: one that changes is checked again.

    A missing one does not stop the workflow: the stage says which it misses, and where it is found.
    """
    return local_archives(config["data"])


def foreign_sets():
    """The synthetic sets from elsewhere that arms learn from."""
    return [own["metadata"] for own in config["sets"].values()]


def for_task(task, files):
    """The files where the run is judged on that task, else none: their rules then have no job."""
    return files if task in config["data"]["tasks"] else []


def synthetic_data(wildcards):
    """The synthetic images that an arm adds, or whose number its copies of real ones match.

    Copies match the set of the arm that the verdict is about. The seeds take generators in turn.
    """
    arm = parse_arm(wildcards.arm)
    if not arm.needs_synthetic:
        return []
    name = arm.set_name or parse_arm(config["verdict"]["treatment"]).set_name
    own = config["sets"].get(name)
    if own is not None:
        return own["metadata"]
    generator = GENERATORS[SEEDS.index(int(wildcards.seed)) % len(GENERATORS)]
    return f"{RUN}/{generator}{PLACES[name]}augment/metadata.csv"


def trainings_of(arm):
    """How many networks an arm trains, one after the other."""
    return 2 if parse_arm(arm).kind == "pseudo" else 1


def package_folder():
    """Where jobs look for the package, if their interpreter may not have it.

    An environment must not see the packages that lie beside an installed one: a folder of our own
    has a link to it alone.
    """
    if CHECKOUT:
        return HOME
    if not CONDA:
        return None
    link = Path(".snakemake/package/didgen").absolute()
    if workflow.is_main_process:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(Path(importlib.util.find_spec("didgen").origin).parent)
    return link.parent


def command_prefix():
    """Let every command find the package, and the interpreter that snakemake runs in.

    Under conda the activated environment brings its own interpreter; PYTHONPATH is set after
    activation because conda drops it. SLURM sends SIGTERM to all processes of a job: shell and
    `tee` ignore it and wait for the stage, which has a handler of its own, to save.
    """
    prefix = "set -euo pipefail; trap '' TERM; "
    if not CONDA:
        prefix += f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
    # All jobs of a run, resumed ones too, compute in the arithmetic that the first one chose.
    prefix += f"export DIDGEN_PRECISION_FILE={shlex.quote(RUN)}/.state/precision.json; "
    place = package_folder()
    if place:
        prefix += f"export PYTHONPATH={shlex.quote(str(place))}; "
    # Paths may have braces, which Snakemake would fill in.
    return prefix.replace("{", "{{").replace("}", "}}")


def drop_lock_of_killed_run():
    """Let a run go on after one that was killed, without `snakemake --unlock`; jobs leave it be."""
    if workflow.is_main_process:
        from didgen.runtime.locks import own_run

        own_run(".snakemake")


check_config()
check_extras()
check_paths()
check_gpus()
drop_lock_of_killed_run()

# Below the check, which finds the package.
from didgen.settings.arms import of_task, parse_arm, with_methods
from didgen.data.changes import local_archives, source_state
from didgen.revision import revision
from didgen.settings.methods import (
    DIDGEN,
    METHODS,
    TAUGHT_BY,
    needs_fine_tuning,
    sets_made,
    tasks_taught,
)

RUN = f"results/{config['run']}"
SEEDS = config["seeds"]
# The folders of the generators; the first one's results lie at the top.
GENERATORS = ["", *(f"generator{k}/" for k in range(1, config["generator_seeds"]))]
EXTERNAL = [own["name"] or own["source"] for own in config["data"]["external"]]
RIVALS = {name: own for name, own in config["methods"].items() if own is not None}
ARMS = with_methods(config["arms"], RIVALS)
# Where the sets of each arm lie: the run's own at the top, a method's in a folder of its name.
LEAD = parse_arm(config["verdict"]["treatment"]).set_name
MADE = sets_made([parse_arm(arm).set_name for arm in ARMS], LEAD, RIVALS)
PLACES = {"synthetic" if name == DIDGEN else name: place_of(name) for name in MADE}
EVERY_PLACE = [generator + place for generator in GENERATORS for place in PLACES.values()]
FINE_TUNED = needs_fine_tuning(MADE)
TASKS_OF_SETS = {name: own["tasks"] for name, own in config["sets"].items()} | {
    name: tasks_taught(name) for name in RIVALS
}
CLASSIFY_ARMS = of_task(ARMS, "classification", TASKS_OF_SETS)
SEGMENT_ARMS = of_task(ARMS, "segmentation", TASKS_OF_SETS)

shell.prefix(command_prefix())
