import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from didgen.settings.arms import with_methods
from didgen.settings.methods import sets_made
from didgen.settings.pairs import Settings as PairSettings
from didgen.settings.run import RunConfig
from didgen.stages.schema import json_schema_text, key_reference

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path):
    config = RunConfig.model_validate(yaml.safe_load(path.read_text()))
    # A run is called as its file, so that two runs never share a folder.
    assert config.run == {"config": "demo"}.get(path.stem, path.stem)


def test_schema_and_reference_are_those_of_the_models():
    assert SCHEMA.read_text() == json_schema_text(), "run: python -m didgen schema"
    assert (ROOT / "config/README.md").read_text() == key_reference(), (
        "run: python -m didgen schema"
    )


def test_every_key_has_a_description():
    def walk(node, trail):
        for name, prop in node.get("properties", {}).items():
            assert prop.get("description"), f"{trail}{name} has no description"
            walk(prop, f"{trail}{name}.")
        for branch in {"then", "else"} & set(node):
            walk(node[branch], trail)

    walk(json.loads(json_schema_text()), "")


def test_the_paper_is_configured_as_printed():
    config = RunConfig.model_validate(yaml.safe_load((ROOT / "config/isic2018.yaml").read_text()))
    tuned, pairs = config.finetune, config.pairs
    assert tuned.backbone == "stabilityai/stable-diffusion-2-1-base"
    assert (config.data.size, tuned.steps, tuned.learning_rate) == (512, 20000, 1e-5)
    assert (tuned.batch_size, tuned.alpha) == (4, 0.1)
    assert (pairs.eta, pairs.guided_fraction, pairs.tau, pairs.count) == (20, 0.5, 4, 2500)
    assert config.images.per_class == 1000
    assert set(config.images.classes) == {"MEL", "BCC", "AKIEC", "BKL", "DF", "VASC"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"finetun": {}}, "finetun"),
        ({"finetune": {"stpes": 3}}, "stpes"),
        ({"finetune": {"steps": 0}}, "greater than or equal to 1"),
        ({"finetune": {"steps": "many"}}, "valid integer"),
        ({"finetune": {"prefix_only": 0.7, "prompt_dropout": 0.6}}, "expected at most 1"),
        ({"data": {"size": 256}}, "tiny works at 128 px"),
        ({"data": {"source": "table"}}, "needs `table`"),
        ({"data": {"source": "ph2"}}, "needs `folder`"),
        ({"data": {"source": "isic2018", "mirror": "https://me:pw@h/x"}}, "keep names"),
        ({"data": {"classes": ["MEL", "NV"]}, "images": {"classes": ["DF"]}}, "leaves out"),
        ({"finetune": {"classes": ["MEL"]}, "images": {"classes": ["NV"]}}, "never saw"),
        ({"images": {"per_class": 0}}, "greater than or equal to 1"),
        ({"pairs": {"count": 0}}, "greater than or equal to 1"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"seeds": [1, 2, 3], "generator_seeds": 2}, "a divisor of their number"),
        ({"seed": 2**31 - 1, "seeds": [1, 2], "generator_seeds": 2}, "lower `seed`"),
        ({"run": "../x"}, "pattern"),
        ({"arms": ["original", "duplicates", "synthetic", "prefx"]}, "which `sets` does not name"),
        ({"arms": ["original", "synthetic"]}, r"arms: .*expected \['duplicates', 'original', 'syn"),
        ({"verdict": {"control": "synthetic"}}, "verdict.control: found 'synthetic'"),
        ({"verdict": {"control": "weighted"}}, "control: found 'weighted', which is for cl"),
        (
            {"arms": ["original", "duplicates", "synthetic", "pseudo_masks"]},
            r"arms: found \['pseudo_masks'\].*source phantoms has both for every image",
        ),
        (
            {
                "arms": ["original", "duplicates", "synthetic-0.5x"],
                "verdict": {"treatment": "synthetic-0.5x"},
            },
            "as many copies as synthetic images: duplicates-0.5x",
        ),
        ({"sets": {"prefix": {"metadata": "a.csv"}}}, "which no arm names"),
    ],
)
def test_impossible_configurations_are_refused(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        RunConfig.model_validate(changes)


def test_the_mirror_of_the_command_line_reaches_the_data():
    config = RunConfig.model_validate({"mirror": "/m", "data": {"source": "isic2018"}})
    assert config.data.mirror == "/m"


def test_the_schema_alone_fills_in_defaults_but_not_those_of_methods() -> None:
    """Where the launcher has no pydantic. A method's presets are filled in by its stages."""
    config: dict = {"methods": {"warp": {}}, "pairs": {"eta": 3.0}}
    validate(config, str(SCHEMA))
    assert config["methods"] == {"warp": {}}
    assert config["pairs"] == PairSettings(eta=3.0).model_dump(mode="json")
    for methods in ({"none": {}}, {"warp": {"eta": 3.0}}):
        with pytest.raises(WorkflowError, match="validating config"):
            validate({"methods": methods}, str(SCHEMA))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"methods": {"gan": {}}}, "methods.gan\n.*Extra inputs"),
        ({"methods": {"warp": {"eta": 1}}}, "methods.warp.eta\n.*Extra inputs"),
        (
            {"methods": {"warp": {}}, "data": {"tasks": ["classification"]}},
            "methods.warp: its sets serve segmentation, and data.tasks has only classification",
        ),
        (
            {"methods": {"warp": {}}, "verdict": {"treatment": "warp"}},
            "verdict.treatment: found 'warp', whose set has nothing for classification",
        ),
        (
            {
                "arms": ["original", "duplicates", "synthetic", "warp"],
                "methods": {"warp": {}},
                "sets": {"warp": {"metadata": "a.csv"}},
            },
            r"sets: found \['warp'\], the names of methods",
        ),
    ],
)
def test_methods_that_fit_nothing_are_refused(changes, expected) -> None:
    with pytest.raises(ValidationError, match=expected):
        RunConfig.model_validate(changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"methods": {"dreambooth": {}}, "finetune": {"batch_size": 3}},
            "methods.dreambooth: found finetune.batch_size 3, expected an even number",
        ),
        (
            {"methods": {"pgan": {}}, "data": {"size": 96}, "finetune": {"backbone": "mine"}},
            "methods.pgan: found data.size 96, expected a power of two",
        ),
        (
            {
                "methods": {"pix2pixhd": {"downsamplings": 4}},
                "data": {"size": 72},
                "finetune": {"backbone": "mine"},
            },
            "methods.pix2pixhd: found data.size 72, expected a multiple of 16",
        ),
    ],
)
def test_methods_that_cannot_work_with_the_data_are_refused_before_any_job(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        RunConfig.model_validate(changes)


def test_own_sets_are_made_where_anything_needs_them() -> None:
    arms = ["original", "duplicates", None]
    assert sets_made([*arms, "synthetic"], "synthetic", {"warp": {}}) == ["didgen", "warp"]
    assert sets_made([*arms, "warp"], "warp", {"warp": {}}) == ["warp"]
    # Its images are made for the masks of the run's own pairs.
    assert sets_made(arms, "pix2pixhd", {"pix2pixhd": {}}) == ["didgen", "pix2pixhd"]
    training = {"pix2pixhd": {"conditions": "training"}}
    assert sets_made(arms, "pix2pixhd", training) == ["pix2pixhd"]
    # A set of the user's own is made elsewhere; copies match the run's own.
    assert sets_made([*arms, "theirs"], "theirs", {}) == ["didgen"]


def test_a_method_has_an_arm_of_its_name_unless_one_is_named() -> None:
    assert with_methods(["original", "synthetic"], ["warp"]) == ["original", "synthetic", "warp"]
    assert with_methods(["original", "warp-0.5x"], ["warp"]) == ["original", "warp-0.5x"]


def test_a_run_without_the_backbone_is_not_bound_to_its_size() -> None:
    data = {"size": 256, "tasks": ["segmentation"]}
    with pytest.raises(ValidationError, match="tiny works at 128 px"):
        RunConfig.model_validate({"data": data})
    arms = ["original", "duplicates"]
    warp = {"methods": {"warp": {}}, "verdict": {"treatment": "warp"}, "arms": arms}
    assert RunConfig.model_validate({"data": data} | warp).data.size == 256
    with pytest.raises(ValidationError, match="tiny works at 128 px"):
        RunConfig.model_validate({"data": data} | warp | {"arms": [*arms, "synthetic"]})
