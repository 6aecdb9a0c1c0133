import pytest
from pydantic import ValidationError

from didgen import cli
from didgen.cli import explain
from didgen.settings.addresses import ServerAddress
from didgen.settings.base import SettingsSection
from didgen.settings.run import RunConfig


class Example(SettingsSection):
    server: ServerAddress = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    "address", ["http://a", "https://gpu-node:8000/v1", "http://[::1]:8000/v1", "http://a/@b/v1"]
)
def test_addresses_are_kept_as_they_are(address):
    assert Example(server=address).server == address


@pytest.mark.parametrize(
    "address",
    ["http://user:pQxZ@a/v1", "https://pQxZ@a/v1", "http://user:pQ/xZ@a/v1", "http:///user:pQxZ@a",
     "http://user:pQxZ@[a/v1", "http://a/v1?key=pQxZ", "http://a/v1#pQxZ", "user:pQxZ@a",
     "http://a/v1;key=pQxZ", "http://a/key=pQxZ", "http://user:pQxZ%40a/v1", "http://a:pQxZ/v1",
     "//user:pQxZ@a", "http:/user:pQxZ@a"],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_and_not_repeated(address):
    with pytest.raises(ValidationError) as caught:
        Example(server=address)
    told = explain(caught.value)
    assert told.startswith("  server: ") and "environment variable" in told
    assert "pQ" not in told and "xZ" not in told


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://a/v1", "http://", "http://a:0/v1", "http://a:99999", "http://a b",
     "http://a/\nv1", "http://a/\x1b[2J", "http://[a"],
)  # fmt: skip
def test_what_is_no_address_is_shown_with_an_example(address):
    with pytest.raises(ValidationError) as caught:
        Example(server=address)
    assert f"found {address!r}, expected an address such as http" in explain(caught.value)


SECRETS = (
    "http://h/x#pQxZ", "http://h/x?key=pQxZ", "http://h/x;key=pQxZ", "//me:pQxZ@h/x",
    "http:/me:pQxZ@h", "http://me:pQxZ@h/x", "https://pQxZ@h/x", "me:pQxZ@h/x", " http://me:pQxZ@h",
    "http://me:pQ/xZ@h", "s3://me:pQxZ@h/x", "http://me:pQxZ%40h/x", "http://h:pQxZ/x",
)  # fmt: skip


@pytest.mark.parametrize("address", SECRETS)
@pytest.mark.parametrize(
    "key", ["mirror", "data.mirror", "data.archives", "finetune.backbone", "caption.model",
            "caption.cache", "classify.weights"],
)  # fmt: skip
def test_no_path_or_name_is_an_address_with_a_secret(key, address):
    section, _, name = key.rpartition(".")
    values = {section: {name: address}} if section else {name: address}
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(values)
    told = explain(caught.value)
    assert f"{key}: found an address with a user or a query, expected one without" in told
    assert "pQ" not in told and "xZ" not in told


@pytest.mark.parametrize("address", SECRETS)
def test_no_log_of_a_stage_repeats_a_secret(address, tmp_path, caplog):
    words = ["fetch", "--mirror", address, "--out", str(tmp_path / "a.json")]
    assert cli.main(words) == 2 and "fetch: wrong settings" in caplog.text
    assert "pQ" not in caplog.text and "xZ" not in caplog.text


@pytest.mark.parametrize(
    "place", ["/data/@eaDir/isic", "a;b=c", "runs/a=1/model", "owner/name", "C#/x?", "a@b:c/d",
              "~/a", "//data/isic"],
)  # fmt: skip
def test_paths_with_signs_of_addresses_are_paths(place):
    assert RunConfig.model_validate({"finetune": {"backbone": place}, "data": {"size": 512}})
