import json
from pathlib import Path

import pytest

from didgen.settings.config_file import ConfigFileError, read_config_file


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "run.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("run: a\nfinetune:\n  steps: 3\nfinetune:\n  seed: 4\n", r"yaml:4: `finetune`.*in line 2"),
        ("finetune:\n  steps: 3\n  batch_size: 4\n  steps: 5\n", r"yaml:4: `steps`.*in line 2"),
        ("sets:\n- {a: 1, a: 2}\n", r"yaml:2: `a` stands there and in line 2"),
        ('{"run": "a",\n\t"seed": 1,\n\t"run": "b"}', "yaml:3: `run`.*in line 1"),
        ("run: ä\n".encode("utf-16"), "not UTF-8 .*save it as UTF-8"),
        ("run: ä\n".encode("latin-1"), "not UTF-8 .byte 5"),
        ("", "found nothing, expected keys such as `run: demo`"),
        ("- a\n", "found a list"),
        ("run: [\n", "neither YAML nor JSON"),
        ("run:\ta\n\tb: c", "(?s)neither YAML nor JSON .*indent by spaces"),
        ("run: \0", "neither YAML nor JSON"),
        ("!!python/object/apply:os.getcwd []", "neither YAML nor JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("a: &a [*a]\n", "holds itself"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
                for a, b in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "references make more than 100000 values",
        ),
        (b" " * 10_000_001, "too large for a configuration"),
        ("data:\n  fit: 2:8\n", "yaml:2: found 2:8, which YAML reads as a number in base 60"),
        ("seeds: [1, 190:20:30.15]", "yaml:1: found 190:20:30.15, which YAML .* base 60"),
        ("data:\n  labels:\n    010: MEL\n", "yaml:3: found 010, which YAML reads .* in base 8"),
        ("data:\n  labels:\n    0x10: MEL\n", "yaml:3: found 0x10, which YAML .* the number 16"),
        ("data: {labels: {1_0: MEL}}", "yaml:1: found 1_0, which YAML reads as the number 10"),
        ("seed: -0_7", "yaml:1: found -0_7, which YAML reads as a number in base 8"),
        ("run: 2024-01-31", "yaml:1: found 2024-01-31, which YAML reads as a date; put quotes"),
        ("run: 2024-13-45", "yaml:1: found 2024-13-45, which YAML reads as a date; put quotes"),
        ("seed: 0x_", "a number in it cannot be read"),
        ("seed: " + "1" * 5000, "a number in it cannot be read"),
        ('{"seed": ' + "1" * 5000 + "}", "a number in it cannot be read"),
    ],
)
def test_what_would_lose_a_part_or_is_no_configuration_is_refused(written, content, expected):
    with pytest.raises(ConfigFileError, match=expected):
        read_config_file(written(content))


def test_numbers_that_are_what_they_look_like_are_read(written):
    text = "a: [0, 00.5, '010', '2:8', \"2024-01-31\", 1_000, 089, 1e3, -1.5, 0x10]\n"
    read = read_config_file(written(text))["a"]
    assert read == [0, 0.5, "010", "2:8", "2024-01-31", 1000, "089", "1e3", -1.5, 16]


def test_a_file_that_cannot_be_read_is_not_repeated(written):
    with pytest.raises(ConfigFileError, match="yaml:2: neither YAML nor JSON") as caught:
        read_config_file(written("run: a\nmirror: http://me:pQxZ@h: x\n"))
    assert "pQxZ" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml", tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigFileError, match="cannot be read"):
            read_config_file(path)


def test_of_a_device_without_an_end_no_more_is_read_than_a_configuration_has():
    with pytest.raises(ConfigFileError, match="/dev/zero: too large for a configuration"):
        read_config_file(Path("/dev/zero"))


def test_yaml_and_json_are_read(written):
    text = "base: &b {steps: 3}\nrun: a\nfinetune: {<<: *b, seed: 1}\npairs: *b\n"
    expected = {"base": {"steps": 3}, "run": "a", "finetune": {"steps": 3, "seed": 1},
                "pairs": {"steps": 3}}  # fmt: skip
    assert read_config_file(written(text)) == expected
    assert read_config_file(written(json.dumps(expected, indent="\t"))) == expected
