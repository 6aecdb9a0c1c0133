"""Addresses in settings, which stand in logs and saved configurations: none may hold a secret."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def check_server(address: str) -> str:
    """The address of an interface, e.g. http://localhost:8000/v1.

    Raises: `ValueError`, which repeats nothing of an address that may hold a password.
    """
    expected = "expected an address such as http://localhost:8000/v1"
    try:
        parts = urlsplit(address)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if "@" in (parts.netloc if fit else address) or "?" in address or "#" in address:
        raise ValueError(
            f"found user, password, query or fragment in it, {expected}: logs and saved settings "
            "show it, so a key belongs in an environment variable"
        )
    if not fit or not address.isprintable() or " " in address:
        raise ValueError(f"found {address!r}, {expected}")
    return address


ServerAddress = Annotated[str, AfterValidator(check_server)]
