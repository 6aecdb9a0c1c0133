"""Several generators: each is trained with a seed of its own, and the networks use them in turn."""

import json
from pathlib import Path

from tests.workflow.test_methods import configure

RUN = Path("results") / "smoke"


def test_seeds_take_generators_in_turn(unfinished: Path, snakemake, jobs) -> None:
    changes = {"seeds": [9, 4], "generator_seeds": 2, "seed": 3}
    arms = ["original", "duplicates", "synthetic"]
    configure(unfinished, **changes, arms=arms, methods={"warp": {}, "plain": {}})
    done = snakemake(unfinished)
    assert done.returncode == 0, done.stdout[-3000:]
    counts = jobs(done.stdout)
    assert (counts["finetune"], counts["train_job"], counts["augment"]) == (2, 4, 6)
    # Pictures and measures of one generator's sets are enough.
    assert (counts["maps"], counts["fidelity"]) == (1, 3)
    lines = [json.loads(line) for line in (unfinished / "received.jsonl").read_text().splitlines()]
    stages = {own["stage"] for own in lines}
    configs = {name: [own["config"] for own in lines if own["stage"] == name] for name in stages}
    seeds = {own["seed"]: own["out"] for own in configs["finetune"]}
    assert seeds == {3: str(RUN / "finetune"), 4: str(RUN / "generator1/finetune")}
    assert {(own["seed"], own["out"]) for own in configs["train"] if own["method"] == "plain"} == {
        (3, str(RUN / "methods/plain/model")), (4, str(RUN / "generator1/methods/plain/model")),
    }  # fmt: skip
    own_images = [own for own in configs["images"] if own["method"] == "didgen"]
    assert {(own["seed"], own["model"]) for own in own_images} == {
        (3, str(RUN / "finetune")), (4, str(RUN / "generator1/finetune")),
    }  # fmt: skip
    trained = [(own["arm"], own["seed"], own["synthetic"]) for own in configs["classify"]]
    used = {seed: made for arm, seed, made in trained if arm == "synthetic"}
    first, second = (str(RUN / place / "augment/metadata.csv") for place in ("", "generator1"))
    assert used == {9: first, 4: second}
    # Copies follow the set of the same generator in number, and rivals have theirs.
    assert {seed: made for arm, seed, made in trained if arm == "duplicates"} == used
    assert {own["synthetic"] for own in configs["segment"] if own["arm"] == "warp"} == {
        str(RUN / place / "methods/warp/augment/metadata.csv") for place in ("", "generator1")
    }
    assert configs["verdict"][0]["generator_seeds"] == 2
