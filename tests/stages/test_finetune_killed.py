"""A fine-tuning that is killed at an awkward moment ends as an undisturbed one."""

import pytest

from didgen.methods.didgen.validation import Validation
from didgen.stages import finetune

WATCHED = {"validate_every": 2, "validation_images": 2, "validation_samples": 1, "steps": 2}


def results(folder):
    names = ["validation.csv", "unet/diffusion_pytorch_model.safetensors"]
    names += [f"validation/step-{step:07d}.png" for step in (0, 2)]
    return {name: (folder / name).read_bytes() for name in names}


def test_a_look_that_a_kill_prevented_is_made_up_for(mini_run, tmp_path, monkeypatch):
    val = mini_run.root / "data/val.csv"
    straight = mini_run.finetune_config(tmp_path / "straight", val=val, **WATCHED)
    finetune.run(straight)
    real = Validation.run

    def dying_look(self, step, unet):
        if step == 2:
            raise KeyboardInterrupt
        real(self, step, unet)

    killed = mini_run.finetune_config(tmp_path / "killed", val=val, **WATCHED)
    monkeypatch.setattr(Validation, "run", dying_look)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(killed)
    monkeypatch.undo()
    state = next(killed.state.glob("[!.]*"))
    for name in (".step-0000002.partabcdefgh", ".step-0000001.partabcdefgh"):
        (state / name).mkdir()
    (tmp_path / ".killed.unfinished").mkdir()
    finetune.run(killed)
    assert results(killed.out) == results(straight.out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "killed",
        "killed-state",
        "straight",
        "straight-state",
    ]
    assert not list(state.glob(".*"))
