"""No stage writes into a folder of the user's, and each says so before it reads anything."""

import pytest

from didgen import cli

# What each stage needs beside its output; none of these files is there.
NEEDED = {
    "prepare": ["--phantoms", "56"],
    "caption": ["--train", "a", "--val", "b", "--test", "c", "--backbone", "tiny"],
    "finetune": ["--train", "a", "--captions", "b", "--state", "c"],
    "train": ["--method", "warp", "--train", "a", "--captions", "b", "--state", "c"],
    "prompts": [
        "--train",
        "a",
        "--captions",
        "b",
        "--captioner",
        "c",
        "--backbone",
        "d",
        "--per-class",
        "1",
    ],
    "images": ["--train", "a", "--captions", "b", "--model", "c"],
    "pairs": ["--train", "a", "--captions", "b", "--model", "c"],
    "filter": ["--pairs", "a", "--segmenter", "b"],
    "augment": ["--images", "a"],
    "maps": ["--manifest", "a", "--captions", "b", "--backbone", "c"],
    "classify": ["--train", "a", "--val", "b", "--test", "c", "--arm", "original"],
    "segment": ["--train", "a", "--val", "b", "--test", "c", "--arm", "original"],
    "fidelity": ["--synthetic", "a", "--train", "b", "--test", "c"],
    "label_fidelity": ["--synthetic", "a", "--train", "b", "--val", "c"],
    "pretrain-tiny": ["--work", "a"],
    "verdict": ["--run", "r", "--out", "v.json"],
    "report": ["--run-dir", "a"],
}
FILES = ("config.json", "images/mine.png", "masks/mine.png", "metadata.csv", "index.html")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with files named as a stage's would be, and an empty working directory."""
    for name in FILES:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "mine"


def out_of(stage, folder):
    flag = "--tables" if stage == "verdict" else "--out"
    return [flag, str(folder / "index.html" if stage == "report" else folder)]


@pytest.mark.parametrize("stage", NEEDED)
def test_a_folder_of_the_user_is_refused_and_left_alone(stage, mine, tmp_path, caplog):
    (tmp_path / "link").symlink_to(mine)
    for out in (mine, tmp_path / "link"):
        assert cli.main([stage, *NEEDED[stage], *out_of(stage, out)]) == 2
        assert "found files, but no .didgen.json" in caplog.text
        caplog.clear()
    left = {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()}
    assert left == set(FILES) and all((mine / name).read_text() == "mine" for name in FILES)
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("stage", NEEDED)
def test_the_working_directory_is_refused(stage, mine, tmp_path, caplog):
    for out in (tmp_path / "here", tmp_path):
        assert cli.main([stage, *NEEDED[stage], *out_of(stage, out)]) == 2
        assert "is or holds the working directory" in caplog.text
        caplog.clear()
    assert not list((tmp_path / "here").iterdir()) and len(list(mine.rglob("*.png"))) == 2
