"""No stage writes into a folder of the user's, and each says so before it reads anything."""

import json
from pathlib import Path

import pytest

from didgen import cli
from didgen.stages.schema import key_reference

# What each stage needs beside its output; none of these files is there.
NEEDED = {
    "data": ["--phantoms", "56"],
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
    "label_judges": ["--train", "a", "--val", "b"],
    "label_fidelity": ["--synthetic", "a", "--judges", "b"],
    "external_data": [
        *("--train", "a", "--val", "b"),
        *("--external", '{"source": "ph2", "folder": "c"}'),
    ],
    "external_test": [
        *("--external", "a", "--seeds", "0", "--memory-gb", "1", "--classify", "b"),
    ],
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


OWN_JSON = {
    "verdict": '{"run": "mine", "tasks": {"laundry": {"done": false}}}',
    "weights": '{"models": ["mine"], "bytes": 7}',
    "fetch": '{"source": "mine", "files": []}',
}


@pytest.mark.parametrize("stage", OWN_JSON)
@pytest.mark.parametrize("text", [None, "[]", "mine"])
def test_a_file_of_the_user_is_refused_and_left_alone(stage, text, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(text or OWN_JSON[stage])
    more = ["--run", "r", "--tables", "t"] if stage == "verdict" else []
    assert cli.main([stage, *more, "--out", "mine.json"]) == 2
    assert "mine.json: found something else than an earlier result" in caplog.text
    assert (tmp_path / "mine.json").read_text() == (text or OWN_JSON[stage])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("out", ["t/verdict.json", "t/arms.csv", "t", "t/a/../b", "link/a"])
def test_a_verdict_does_not_lie_in_the_folder_of_its_tables(out, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("t")
    assert cli.main(["verdict", "--run", "r", "--tables", "t", "--out", out]) == 2
    assert f"out: found {out}, which lies in the folder t that --tables names" in caplog.text


@pytest.mark.parametrize("name", ["config.json", "Config.JSON", ".didgen.json", ".lock", ".."])
def test_a_page_takes_no_name_of_the_folder_s_own_files(name, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    out = str(tmp_path / "report" / name)
    assert cli.main(["report", "--run-dir", str(tmp_path / "run"), "--out", out]) == 2
    assert "which the report's folder needs for itself; expected a page such as" in caplog.text


def schema(folder, readme="readme.md", schema_file="schema.json", *more):
    paths = ("--readme", str(folder / readme), "--schema-file", str(folder / schema_file))
    return cli.main(["schema", *paths, *more])


def test_the_schema_and_the_key_reference_replace_only_their_own_kind(tmp_path, caplog):
    assert schema(tmp_path) == 0
    written = {path: path.read_text() for path in tmp_path.iterdir()}
    # Of an earlier version.
    (tmp_path / "readme.md").write_text(key_reference() + "| `gone` |\n")
    (tmp_path / "schema.json").write_text('{"$schema": "", "title": "RunConfig"}')
    assert schema(tmp_path) == 0
    assert {path: path.read_text() for path in tmp_path.iterdir()} == written
    for flag, name, texts in (
        ("readme", "notes.md", ("# Configuration\n\nmine\n", "")),
        ("schema_file", "own.json", ('{"title": "mine"}', "mine", "[]")),
    ):
        for text in texts:
            (tmp_path / name).write_text(text)
            assert schema(tmp_path, **{flag: name}) == 2
            assert f"{name}: found something else than an earlier result" in caplog.text
            assert (tmp_path / name).read_text() == text
            caplog.clear()
    assert schema(tmp_path, ".") == 2
    assert f"{tmp_path}: found a folder, expected the name of a file" in caplog.text


def test_no_schema_is_written_where_the_key_reference_cannot_be(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    assert schema(tmp_path, "notes.md") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_no_data_set_is_prepared_inside_the_folder_it_is_read_from(mine, tmp_path, caplog):
    (tmp_path / "link").symlink_to(mine)
    words = ["data", "--source", "folder", "--folder", str(mine)]
    for out in (
        mine / "out",
        mine / "images/out",
        tmp_path / "link/out",
        tmp_path / "here/../mine/x",
    ):
        assert cli.main([*words, "--out", str(out)]) == 2
        assert f"{out} lies in {mine}, whose folders are all read as images" in caplog.text
        caplog.clear()
    assert {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()} == set(FILES)


@pytest.mark.parametrize(
    "words", [["data", "--source", "folder", "--folder", "loop", "--out", "out"],
              ["data", "--phantoms", "56", "--out", "loop"],
              ["verdict", "--run", "r", "--tables", "loop", "--out", "v.json"],
              ["verdict", "--run", "r", "--tables", "t", "--out", "loop"],
              ["fetch", "--mirror", "loop", "--out", "a.json"],
              ["fetch", "--mirror", "http://127.0.0.1:9", "--archives", "loop", "--out", "a.json"],
              ["report", "--run-dir", "loop", "--out", "r/index.html"]],
)  # fmt: skip
def test_a_link_to_itself_is_no_folder_and_no_file(words, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert cli.main(words) in (1, 2) and "loop" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize("place", [".", "deep/answers"])
def test_answers_are_not_kept_in_an_output_that_is_replaced(place, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    cache = f"out/{place}"
    server = {"captioner": "openai", "model": "m", "cache": cache}
    (tmp_path / "captioner.json").write_text(json.dumps(server))
    own = ["--captioner", "openai", "--model", "m", "--cache", cache]
    for words in (
        ["caption", *NEEDED["caption"], *own],
        ["prompts", *[{"c": "captioner.json"}.get(word, word) for word in NEEDED["prompts"]]],
    ):
        assert cli.main([*words, "--out", "out"]) == 2
        assert f"is or holds {Path(cache)}, which {words[0]} reads" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["captioner.json"]


def test_a_file_in_the_place_of_a_state_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("mine")
    assert cli.main(["pretrain-tiny", "--work", "notes", "--out", "o"]) == 2
    assert "pretrain-tiny: notes: found a file, expected a folder" in caplog.text
    (tmp_path / "work").mkdir()
    (tmp_path / "work/recipe.json").write_text("mine")
    assert cli.main(["pretrain-tiny", "--work", "work", "--out", "o"]) == 2
    assert "work/recipe.json: cannot be read as JSON (Exp" in caplog.text
    assert (tmp_path / "work/recipe.json").read_text() == "mine"
