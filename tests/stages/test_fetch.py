import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from didgen import cli
from didgen.data.manifest import SPLITS, read_manifest
from didgen.data.sources.catalog import ISIC2018, LESION_GROUPS, needed_archives, provenance
from didgen.stages import fetch
from tests.conftest import REPOSITORY
from tests.data.mirror_files import sums
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
        ({"mirror": ""}, "expected a path or a name"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"source": "isic2019"}, "'isic2018'"),
        ({"splits": "random"}, "'grouped' or 'official'"),
        ({"mirror": "ftp://host/x"}, "expected http:// or https:// with a host, or the path of a"),
        ({"mirror": "s3://bucket"}, "expected http:// or https:// with a host, or the path of a"),
        ({"mirror": "http:///x"}, "expected http:// or https:// with a host, or the path of a"),
        (
            {"mirror": "http:/host/x"},
            "expected http:// or https:// with a host, or the path of a f",
        ),
        ({"mirror": "http://host:x/"}, "an address with a user or a query, expected one without"),
        ({"mirror": "http://[x"}, "expected http:// or https:// with a host, or the path of a fol"),
        ({"mirror": "https://me:pw@host/x"}, "an address with a user or a query, expected one wit"),
        ({"mirror": "https://host/x?key=pw"}, "an address with a user or a query, expected one wi"),
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
    counts = [file["n_files"] for file in listing["files"]]
    assert counts[0] == counts[1] > 1 and counts[2] > 1 == counts[3] == counts[4]
    for file in listing["files"]:
        assert (tmp_path / "kept" / file["name"]).read_bytes() == files[file["name"]]
        assert file["sha256"] in files["SHA256SUMS"].decode()
        assert file["checked_by"].startswith("SHA256SUMS of http://127.0.0.1:")
        assert file["origin"] == f"{server.url}/{file['name']}" and file["licence"]


@pytest.mark.parametrize(("official", "level"), [(True, "WARNING"), (False, "INFO")])
def test_archives_that_hold_another_number_of_files_are_told(caplog, official, level):
    wanted = needed_archives(official=False)
    counts = [archive.files for archive in wanted]
    with caplog.at_level("INFO"):
        fetch._report_counts(wanted, counts, official)
        assert not caplog.records
        fetch._report_counts(wanted, [*counts[:2], 3910, *counts[3:]], official)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (level, f"{wanted[2].name}: holds 3910 .jpg files; the challenge states 10015")
    ]


def small_mirror(folder, **changes):
    """A folder of archives of one file each; changes: of those by name, others."""
    folder.mkdir()
    for archive in needed_archives(official=False):
        files = changes.get(archive.name.split(".")[0], {f"ISIC_1{archive.suffix}": b"x"})
        place = folder / archive.name
        place.write_bytes(b"image,lesion_id\n" if archive.kind == "lesions" else packed(files))
    return folder


@pytest.mark.parametrize("files", [{}, {"ISIC_1.png": b"x"}, {"__MACOSX/._ISIC_1.jpg": b"x"}])
def test_archives_without_a_file_that_is_used_are_an_error(tmp_path, files):
    name = "ISIC2018_Task3_Training_Input"
    mirror = small_mirror(tmp_path / "mirror", **{name: files})
    config = fetch.Config(mirror=str(mirror), archives=tmp_path / "kept", out=tmp_path / "a.json")
    with pytest.raises(ValueError, match=rf"(?s)1 of 5 archives are empty:.*{name}\.zip: found no"):
        fetch.run(config)
    assert not config.out.exists()


@pytest.mark.parametrize("name", [LESION_GROUPS, "archives.lock.json"])
def test_the_list_takes_no_archive_s_name(tmp_path, name):
    files = {path.name: path.read_bytes() for path in small_mirror(tmp_path / "mirror").iterdir()}
    with MirrorServer(files) as server:
        config = fetch.Config(
            mirror=server.url, archives=tmp_path / "kept", out=tmp_path / "kept" / name
        )
        with pytest.raises(ValueError, match="found something else than an earlier result"):
            fetch.run(config)
    assert (tmp_path / "kept" / LESION_GROUPS).read_bytes() == files[LESION_GROUPS]
    assert len(json.loads((tmp_path / "kept/archives.lock.json").read_text())["files"]) == 5


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


def crossing(folder, lesions):
    """Lesions, and clusters of duplicates, whose images stand in more than one split."""
    frame = pd.concat([read_manifest(folder / f"{split}.csv") for split in SPLITS])
    frame["known"] = frame["id"].map(lesions).fillna("")
    found = {}
    for column in ("known", "lesion_id", "cluster"):
        named = frame[frame[column] != ""].groupby(column)["split"]
        assert (named.size() > 1).any(), f"no {column} has two images: nothing is shown"
        found[column] = int((named.nunique() > 1).sum())
    return found


def excerpt(folder):
    """Name -> bytes of a mirror of some real images: of each class the lesions with most images."""
    table = pd.read_csv(folder / LESION_GROUPS).set_index("image")["lesion_id"]
    truth, *_ = archive_files(folder / "ISIC2018_Task3_Training_GroundTruth.zip").items()
    rows = pd.read_csv(io.BytesIO(truth[1])).set_index("image")
    lesions = table.reindex(rows.index)
    lesions = lesions.iloc[lesions.map(lesions.value_counts()).argsort(kind="stable")[::-1]]
    chosen = {
        image
        for code in rows.columns
        for image in lesions[lesions.index.isin(rows.index[rows[code] == 1])].index[:36]
    }
    files = {LESION_GROUPS: (folder / LESION_GROUPS).read_bytes()}
    files["ISIC2018_Task3_Training_GroundTruth.zip"] = packed(
        {truth[0]: rows[rows.index.isin(chosen)].to_csv().encode()}
    )
    masks = sorted(archive_files(folder / "ISIC2018_Task1_Training_GroundTruth.zip"))[:50]
    kept = chosen | {Path(name).stem.removesuffix("_segmentation") for name in masks}
    for name in ("1-2_Training_Input", "1_Training_GroundTruth", "3_Training_Input"):
        name = f"ISIC2018_Task{name}.zip"
        here = archive_files(folder / name)
        files[name] = packed(
            {k: v for k, v in here.items() if Path(k).stem.removesuffix("_segmentation") in kept}
        )
    return files | {"SHA256SUMS": sums(files)}


def archive_files(path):
    """Name -> bytes of the images and tables in an archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith((".jpg", ".png", ".csv"))]
        return {name: archive.read(name) for name in names}


def packed(files):
    """The bytes of a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.slow
def test_real_images_are_prepared_over_loopback_after_a_kill(isic_mini, tmp_path):
    files = excerpt(isic_mini)
    big, kept, listing = "ISIC2018_Task3_Training_Input.zip", tmp_path / "k", tmp_path / "a.json"
    half = len(files[big]) // 2
    with MirrorServer(files) as server:
        server.faults[big] = [("hold", half)]
        words = ["fetch", "--mirror", server.url, "--archives", str(kept), "--out", str(listing)]
        job = subprocess.Popen([sys.executable, "-m", "didgen", *words], cwd=REPOSITORY)
        part, end = kept / f"{big}.part", time.monotonic() + 120
        while not (part.is_file() and part.stat().st_size > 0.5 * half):
            assert time.monotonic() < end and job.poll() is None
            time.sleep(0.05)
        job.kill()
        job.wait()
        there, sent = part.stat().st_size, server.sent[big]
        assert cli.main(words) == 0
        assert server.ranges_of(big) == [None, f"bytes={there}-"]
        assert server.sent[big] - sent == len(files[big]) - there
        later = server.sent[big] - sent
        print(f"{len(files[big])} bytes: {there} kept after the kill, then {later} sent")
    out = tmp_path / "data"
    words = ["data", "--source", "isic2018", "--listing", str(listing), "--out", str(out)]
    assert cli.main([*words, "--size", "64", "--workers", "2"]) == 0
    known = pd.read_csv(isic_mini / LESION_GROUPS).set_index("image")["lesion_id"]
    assert crossing(out, known) == {"known": 0, "lesion_id": 0, "cluster": 0}


def test_the_command_line_runs_it(tmp_path, caplog):
    if "fetch" not in cli.STAGES:
        pytest.skip("the stage is not in the command line's table")
    code = cli.main(["fetch", "--mirror", "ftp://host", "--out", str(tmp_path / "a.json")])
    assert code == 2 and "expected http:// or https://" in caplog.text
