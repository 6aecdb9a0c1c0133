import json
import subprocess
import sys
from pathlib import Path

import pytest

from didgen import cli
from didgen.settings import data
from tests.conftest import REPOSITORY


def test_help_lists_the_stages_in_the_order_data_walks(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"\n  {name} ") for name in (*cli.STAGES, *cli.TOOLS)]
    assert places == sorted(places)


def test_an_unknown_stage_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["paint"])
    assert caught.value.code == 2
    assert "no stage named 'paint'; stages are fetch, data" in capsys.readouterr().err


def parse(*arguments):
    parser = cli._stage_parser("data", data.Config)
    return cli.read_config(data.Config, parser, arguments)


def test_flags_win_over_settings_and_text_becomes_the_right_type(tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"phantoms": 50, "val_fraction": 0.2}))
    config = parse("--settings", str(file), "--phantoms", "77", "--out", "x",
                   "--classes", "MEL", "NV", "--max-per-class", "null")  # fmt: skip
    assert (config.phantoms, config.val_fraction, config.out) == (77, 0.2, Path("x"))
    assert config.classes == ("MEL", "NV") and config.max_per_class is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "x", "--settings", '{"sise": 128}'], "sise: unknown key"),
        (["--out", "x", "--size", "100"], "size: found '100': Input should be a multiple of 8"),
        (["--out", "x", "--size", "big"], "size: found 'big': Input should be a valid integer"),
        (["--out", "x", "--fit", "zoom"], "'crop', 'pad' or 'squash'"),
        (["--size", "128"], "out: Field required"),
        (["--out", "x", "--source", "table"], "source table needs `table`"),
        (["--out", "x", "--settings", "{size:}"], "--settings: not JSON"),
        (["--out", "x", "--settings", '{"size": 1, "a": {"b": 1, "b": 2}}'], "`b` stands twice"),
        (["--out", "x", "--settings", '{"size": %s}' % ("1" * 5000)], "--settings: not JSON"),
    ],
)
def test_wrong_settings_end_with_2_and_name_the_key(arguments, expected, caplog):
    assert cli.main(["data", *arguments]) == 2
    assert expected in caplog.text


@pytest.mark.parametrize(
    "flags", [["--out", "x", "--out", "y"], ["--settings", "{}", "--out", "x", "--settings={}"]]
)
def test_a_flag_that_stands_twice_is_named(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", *flags])
    flag = flags[0]
    assert caught.value.code == 2 and f"{flag} stands twice" in capsys.readouterr().err


def test_a_key_that_stands_twice_in_a_flag_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "--out", "x", "--labels", '{"a": "MEL", "a": "NV"}'])
    assert caught.value.code == 2 and "--labels: `a` stands twice" in capsys.readouterr().err


def test_bad_input_ends_with_2_and_its_message(tmp_path, caplog):
    code = cli.main(["data", "--out", str(tmp_path / "o"), "--source", "isic2018",
                     "--mirror", str(tmp_path)])  # fmt: skip
    assert code == 2
    assert "no such file; download" in caplog.text
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("key", ["api_key", "api_key_variable"])
def test_what_may_be_a_secret_is_not_shown(key, caplog):
    settings = json.dumps({"captioner": "openai", key: "sk-very secret"})
    assert cli.main(["caption", "--settings", settings]) == 2
    assert key in caplog.text and "very secret" not in caplog.text


@pytest.mark.parametrize(
    "settings", [{"finetune": "https://me:pQxZ@h"}, {"finetune": {"backbone": ["//me:pQxZ@h"]}},
                 {"finetune": {"steps": "http://h/x?key=pQxZ"}}],
)  # fmt: skip
def test_no_address_is_shown_where_none_belongs(settings, caplog):
    assert cli.main(["weights", "--out", "x", "--settings", json.dumps(settings)]) == 2
    assert "finetune" in caplog.text and "pQxZ" not in caplog.text


def test_no_name_in_the_log_commands_the_terminal(tmp_path):
    name = tmp_path / "a\x1b[2J\x9b\u202e\rü\udcff.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "didgen", "data", "--settings", name],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 2
    assert r"a\x1b[2J\x9b\u202e\rü\udcff.yaml: cannot be read" in done.stderr


@pytest.mark.parametrize("secret", ["me:pQxZ@h/x", "pQ@xZ@h/x", "h/x?key=pQxZ", "h/x#pQxZ"])
def test_no_log_shows_a_secret_of_an_address(secret):
    # Whatever puts it into a message: here it stands where a file should.
    done = subprocess.run(
        [sys.executable, "-m", "didgen", "data", "--settings", f"https://{secret}"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 2 and "https:/h/x" in done.stderr
    assert "cannot be read" in done.stderr
    assert "pQ" not in done.stderr and "xZ" not in done.stderr
