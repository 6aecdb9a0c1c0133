import json

import pytest

from didgen import cli
from didgen.data.sources.catalog import ISIC2018, needed_archives, provenance
from didgen.stages import fetch
from tests.data.mirror_server import MirrorServer


def test_the_catalog_knows_every_archive_of_both_tasks():
    assert len(ISIC2018) == len({archive.name for archive in ISIC2018}) == 13
    assert [archive.name for archive in needed_archives(official=False)] == [
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
        "ISIC2018_Task3_Training_Input.zip",
        "ISIC2018_Task3_Training_GroundTruth.zip",
        "ISIC2018_Task3_Training_LesionGroupings.csv",
    ]
    assert needed_archives(official=True) == ISIC2018
    images = {(a.task, a.split): a.files for a in ISIC2018 if a.kind == "input"}
    assert images == {
        ("1-2", "train"): 2594, ("1-2", "val"): 100, ("1-2", "test"): 1000,
        ("3", "train"): 10015, ("3", "val"): 193, ("3", "test"): 1512,
    }  # fmt: skip
    assert all(len(archive.sha256) == 64 for archive in ISIC2018 if archive.task != "3")
    assert {archive.licence for archive in ISIC2018 if archive.task == "3"} == {"CC BY-NC 4.0"}
    name = "ISIC2018_Task1_Test_GroundTruth.zip"
    assert [a.urls for a in ISIC2018 if a.name == name] == [
        (
            f"https://isic-archive.s3.amazonaws.com/challenges/2018/{name}",
            f"https://isic-challenge-data.s3.amazonaws.com/2018/{name}",
        )
    ]


@pytest.mark.parametrize(
    "name",
    ["ISIC 2018 Task 1", "ISIC 2018 Task 3", "HAM10000", "ISIC 2019", "ISIC 2020", "PH2",
     "BCN20000", "PAD-UFES-20", "phantom"],
)  # fmt: skip
def test_every_source_has_a_licence_and_a_citation(name):
    found = provenance(name)
    assert found.name == name and found.licence and found.citation


def test_the_users_own_images_have_no_provenance():
    assert provenance("my table") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mirror": ""}, "at least 1 character"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"source": "isic2019"}, "'isic2018'"),
        ({"splits": "random"}, "'grouped' or 'official'"),
    ],
)
def test_wrong_settings_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        fetch.Config(out=tmp_path / "a.json", **changes)


def test_offline_says_what_to_put_where(tmp_path):
    config = fetch.Config(out=tmp_path / "a.json", archives=tmp_path / "kept", offline=True)
    with pytest.raises(ValueError) as caught:
        fetch.run(config)
    text = str(caught.value)
    assert text.startswith("5 of 5 archives are missing (offline):")
    name = "ISIC2018_Task1_Training_GroundTruth.zip"
    place = tmp_path / "kept" / name
    url = f"https://isic-archive.s3.amazonaws.com/challenges/2018/{name}"
    assert f"put it at {place} ; it comes from {url}" in text
    assert "its SHA-256 is 99f8b2bb" in text
    assert not (tmp_path / "a.json").exists() and not (tmp_path / "kept").exists()


def test_a_real_mirror_is_fetched_over_loopback(isic_mini, tmp_path):
    wanted = [archive.name for archive in needed_archives(official=False)]
    files = {name: (isic_mini / name).read_bytes() for name in [*wanted, "SHA256SUMS"]}
    with MirrorServer(files) as server:
        server.faults[wanted[0]] = [("drop", len(files[wanted[0]]) // 2)]
        config = fetch.Config(
            mirror=server.url, archives=tmp_path / "kept", out=tmp_path / "a.json"
        )
        fetch.run(config)
        assert sum(server.sent.values()) < 1.01 * sum(map(len, files.values()))
        sent = dict(server.sent)
        fetch.run(config)
        assert dict(server.sent) == sent
    listing = json.loads((tmp_path / "a.json").read_text())
    assert [file["name"] for file in listing["files"]] == wanted
    assert listing["folder"] == str(tmp_path / "kept")
    for file in listing["files"]:
        assert (tmp_path / "kept" / file["name"]).read_bytes() == files[file["name"]]
        assert file["sha256"] in files["SHA256SUMS"].decode()
        assert file["checked_by"].startswith("SHA256SUMS of http://127.0.0.1:")
        assert file["origin"] == f"{server.url}/{file['name']}" and file["licence"]


def test_a_real_mirror_is_used_in_place(isic_mini, tmp_path):
    config = fetch.Config(
        mirror=str(isic_mini), archives=tmp_path / "kept", out=tmp_path / "a.json"
    )
    fetch.run(config)
    listing = json.loads((tmp_path / "a.json").read_text())
    assert listing["folder"] == str(isic_mini)
    assert {file["path"] for file in listing["files"]} == {
        str(isic_mini / archive.name) for archive in needed_archives(official=False)
    }


def test_the_command_line_runs_it(tmp_path, caplog):
    if "fetch" not in cli.STAGES:
        pytest.skip("the stage is not in the command line's table")
    code = cli.main(["fetch", "--mirror", "ftp://host", "--out", str(tmp_path / "a.json")])
    assert code == 2 and "expected http://, https://" in caplog.text
