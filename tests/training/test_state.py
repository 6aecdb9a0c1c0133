"""The saved state: what is read back is what was written, and nothing else is taken for it."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from didgen.training import state as saving
from didgen.training.optimization import Average
from didgen.training.state import BrokenState, resume_state, save_state


def history(steps: int) -> list[dict]:
    return [{"step": n, "loss": 1 / n, "seconds": 0.1 * n} for n in range(1, steps + 1)]


def parts(seed: int = 0) -> dict:
    """A network with a frozen layer and running statistics, its optimiser and average."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    network[2].requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    average = Average(trained, 0.9)
    for step in range(2):
        network(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step + 1)
    return {"network": network, "optimizer": optimizer, "average": average}


def everything(parts: dict) -> list[torch.Tensor]:
    moments = parts["optimizer"].state_dict()["state"].values()
    return [
        *parts["network"].state_dict().values(),
        *(entry[key] for entry in moments for key in sorted(entry)),
        *parts["average"].values,
    ]


def test_a_state_comes_back_exactly_and_without_pickles(tmp_path):
    first, other = parts(0), parts(1)
    frozen = other["network"][2].weight.clone()
    save_state(first, history(3), tmp_path)
    assert resume_state(other, tmp_path, 10) == history(3)
    assert torch.equal(other["network"][2].weight, frozen)
    other["network"][2].load_state_dict(first["network"][2].state_dict())
    pairs = zip(everything(first), everything(other), strict=True)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    (folder,) = tmp_path.iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_rows_come_back_with_their_names_and_types_in_their_order(tmp_path):
    rows = [
        {"step": 1, "loss": 0.1 + 0.2, "level": 0, "seconds": 5e-324},
        {"step": 2, "penalty": -0.0, "loss": 1, "level": 0, "seconds": 1e300},
        {"step": 3, "loss": 1.0, "level": 2**53 + 1, "seconds": 0.3},
    ]
    save_state({}, rows, tmp_path)
    back = resume_state({}, tmp_path, 3)
    assert [[*map(repr, row.items())] for row in back] == [[*map(repr, r.items())] for r in rows]


def test_a_history_is_a_few_bytes_a_number(tmp_path):
    rows = [{"step": n, "loss": n / 3, "seconds": n / 7} for n in range(1, 20_001)]
    save_state({}, rows, tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size < 20_000 * (3 * 8 + 4) + 1000 and resume_state({}, tmp_path, 20_000) == rows


def test_the_optimisers_own_settings_stay(tmp_path):
    save_state(parts(), history(1), tmp_path)
    other = parts()
    other["optimizer"].param_groups[0]["weight_decay"] = 0.5
    resume_state(other, tmp_path, 1)
    assert other["optimizer"].param_groups[0]["weight_decay"] == 0.5


class Counter:
    """A part whose state is numbers and a tensor."""

    def __init__(self):
        self.seen, self.best = {"scores": [0.1, 0.25]}, torch.ones(2, dtype=torch.bfloat16)

    def state_dict(self):
        return {"seen": self.seen, "best": self.best}

    def load_state_dict(self, state):
        vars(self).update(state)


def test_a_part_may_keep_numbers_beside_tensors(tmp_path):
    save_state({"counter": Counter()}, history(1), tmp_path)
    other = Counter()
    other.seen, other.best = {}, torch.zeros(2)
    resume_state({"counter": other}, tmp_path, 1)
    assert other.seen == {"scores": [0.1, 0.25]}
    assert torch.equal(other.best, torch.ones(2, dtype=torch.bfloat16))


def test_the_newest_that_is_not_too_long_counts(tmp_path):
    assert resume_state(parts(), tmp_path / "nowhere", 5) == []
    assert resume_state(parts(), None, 5) == []
    save_state(parts(), history(2), tmp_path)
    save_state(parts(), history(4), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000004"]
    assert len(resume_state(parts(), tmp_path, 4)) == 4
    assert resume_state(parts(), tmp_path, 3) == []


def test_folders_that_are_no_states_are_neither_read_nor_deleted(tmp_path):
    mine = ("step-final/a", "step-0000001/a", "step-0000002/state.json", "step-1/a", "step-old")
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    save_state(parts(), history(3), tmp_path / "elsewhere")
    (tmp_path / "step-0000003").symlink_to(tmp_path / "elsewhere/step-0000003")
    save_state(parts(), history(4), tmp_path)
    (tmp_path / "step-0000004/notes").write_text("mine")
    save_state(parts(), history(5), tmp_path)
    assert all((tmp_path / name).read_text() == "{}" for name in mine)
    assert len(list((tmp_path / "step-0000003").iterdir())) > 1
    assert [path.name for path in (tmp_path / "step-0000004").iterdir()] == ["notes"]
    assert len(resume_state(parts(), tmp_path, 9)) == 5


def test_a_save_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    save_state(parts(), history(2), tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_json", full)
    with pytest.raises(OSError, match="no space left"):
        save_state(parts(), history(4), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000002"]
    assert len(resume_state(parts(), tmp_path, 4)) == 2


def damage(folder, what: str) -> None:
    if what == "cut":
        file = folder / "network.safetensors"
        file.write_bytes(file.read_bytes()[:100])
    elif what == "no json":
        (folder / "state.json").write_text("{")
    elif what.endswith("is missing"):
        (folder / f"{what.split()[1]}.safetensors").unlink()
    elif what == "rows too few":
        path = folder / "history.safetensors"
        columns = load_file(path)
        save_file(columns | {"0.loss": columns["0.loss"][:1]}, path)
    elif what == "an older layout":
        for file in folder.iterdir():
            file.rename(folder / f"old-{file.name}.st")
    elif what == "another step":
        folder.rename(folder.with_name("step-0000005"))


@pytest.mark.parametrize(
    "what",
    [
        "cut",
        "no json",
        "part average is missing",
        "the history is missing",
        "rows too few",
        "an older layout",
        "another step",
    ],
)
def test_an_unreadable_state_is_named_with_what_to_do(tmp_path, what):
    save_state(parts(), history(2), tmp_path)
    damage(next(tmp_path.iterdir()), what)
    with pytest.raises(BrokenState, match="step-000000.: this saved state .*delete the folder"):
        resume_state(parts(), tmp_path, 9)


def test_the_state_of_another_network_is_refused(tmp_path):
    save_state({"network": nn.Linear(3, 4)}, history(1), tmp_path)
    with pytest.raises(BrokenState, match=r"shape \(4, 3\), expected \(4, 5\)"):
        resume_state({"network": nn.Linear(5, 4)}, tmp_path, 1)
    with pytest.raises(BrokenState, match="1 weights are on one side only, the first is bias"):
        resume_state({"network": nn.Linear(3, 4, bias=False)}, tmp_path, 1)
