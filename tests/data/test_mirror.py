import json

import pytest

from didgen.data.download import fetch_archives
from didgen.data.mirror import listed_folder
from didgen.data.web import DownloadError
from tests.data.mirror_files import ALL


@pytest.mark.parametrize(
    "url",
    ["http://me:hu/sh@host/x", "https://me:a:hush@host:hush/x", "http:///hush", "http://[hush"],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_secrets(tmp_path, url):
    with pytest.raises(DownloadError, match="mirror: not an address; .* write / : @") as caught:
        fetch_archives(ALL, tmp_path, url)
    assert "hu" not in str(caught.value).replace("http", "")


@pytest.mark.parametrize("mirror", ["ftp://host/x", "file:///data", "s3://bucket"])
def test_only_web_addresses_and_folders_are_mirrors(tmp_path, mirror):
    with pytest.raises(DownloadError, match="expected http://, https:// or the path of a folder"):
        fetch_archives(ALL, tmp_path, mirror)
    with pytest.raises(DownloadError, match="is no folder"):
        fetch_archives(ALL, tmp_path, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "a.json").write_text("{}"), "a.json: not a list of archives; expected"),
        (lambda d: (d / "a.json").unlink(), "run it again"),
        (lambda d: (d / "x.zip").write_bytes(b"1234"), r"1 of 2 archives in .* not as .*x\.zip"),
        (lambda d: (d / "y.csv").unlink(), r"1 of 2 .* gone or .*y\.csv.* `--forcerun fetch`"),
    ],
)
def test_prepare_takes_the_archives_that_were_fetched(tmp_path, spoil, message):
    for name in ("x.zip", "y.csv"):
        (tmp_path / name).write_bytes(b"123")
    files = [{"path": str(tmp_path / name), "size": 3} for name in ("x.zip", "y.csv")]
    listing = tmp_path / "a.json"
    listing.write_text(json.dumps({"folder": str(tmp_path), "files": files}))
    assert listed_folder(listing) == tmp_path
    spoil(tmp_path)
    with pytest.raises(DownloadError, match=message):
        listed_folder(listing)
