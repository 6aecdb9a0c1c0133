"""Addresses in settings, which stand in logs and saved configurations: none may hold a secret."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

# With a scheme, or as people shorten it: //host:port, user:password@host.
_MEANT = re.compile(r"(?s).*://|\s*[A-Za-z][A-Za-z0-9+.-]*:/|//[^/]*[@:]|[^/]*:[^/]*@")


def meant_as_address(text: str) -> bool:
    """Whether a text looks like an address, be it a wrong one, and not like a path."""
    return _MEANT.match(text) is not None


def is_address(text: str) -> bool:
    """Whether a text is the address of a web server."""
    try:
        parts = urlsplit(text)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return fit and text.isprintable()
    except ValueError:
        return False


def may_hold_secret(address: str) -> bool:
    """Whether an address has more than host, port and path: a user, a query, a parameter.

    Of one that cannot be read, the part that looks like a port may be a password.
    """
    if is_address(address):
        host, odd_port = urlsplit(address).netloc, None
    else:
        host, odd_port = address, re.search(r":[^/\d]", address)
    return bool(odd_port or "@" in host or "%40" in host or set("?#;=") & set(address))


def check_server(address: str) -> str:
    """The address of an interface, e.g. http://localhost:8000/v1.

    Raises: `ValueError`, which repeats nothing of an address that may hold a password.
    """
    expected = "expected an address such as http://localhost:8000/v1"
    if may_hold_secret(address):
        raise ValueError(
            f"found user, password, query or fragment in it, {expected}: logs and saved settings "
            "show it, so a key belongs in an environment variable"
        )
    if not is_address(address) or " " in address:
        raise ValueError(f"found {address!r}, {expected}")
    return address


ServerAddress = Annotated[str, AfterValidator(check_server)]
