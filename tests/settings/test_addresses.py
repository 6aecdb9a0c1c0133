import pytest
from pydantic import ValidationError

from didgen.cli import explain
from didgen.settings.addresses import ServerAddress
from didgen.settings.base import Section


class Example(Section):
    server: ServerAddress = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    "address", ["http://a", "https://gpu-node:8000/v1", "http://[::1]:8000/v1", "http://a/@b/v1"]
)
def test_addresses_are_kept_as_they_are(address):
    assert Example(server=address).server == address


@pytest.mark.parametrize(
    "address",
    ["http://user:pQxZ@a/v1", "https://pQxZ@a/v1", "http://user:pQ/xZ@a/v1", "http:///user:pQxZ@a",
     "http://user:pQxZ@[a/v1", "http://a/v1?key=pQxZ", "http://a/v1#pQxZ", "user:pQxZ@a"],
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
