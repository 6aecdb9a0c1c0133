"""Small archives for a mirror, and short calls that fetch them."""

import hashlib
import io
import zipfile

import numpy as np

from didgen.data.download import Fetched, fetch_archives
from didgen.data.sources.catalog import Archive
from didgen.data.transfer import Patience
from tests.data.mirror_server import MirrorServer

# No test waits for what it knows will come.
QUICK = Patience(retries=2, first_wait=0.01, longest_wait=0.02, connect=5, read=20, chunk=1 << 14)
BIG, SMALL, TABLE = "big.zip", "small.zip", "groups.csv"


def zipped(size: int, seed: int = 0) -> bytes:
    """A zip archive of one file of random bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("ISIC_1.jpg", np.random.default_rng(seed).bytes(size))
    return stream.getvalue()


FILES = {BIG: zipped(1 << 20), SMALL: zipped(5000, 1), TABLE: b"image,lesion_id\nISIC_1,HAM_1\n"}


def archive(name: str, sha256: str | None = None) -> Archive:
    """The catalog's entry of one of the files."""
    return Archive(name, "3", "train", "input", len(FILES[name]), 1, "CC0 1.0", sha256)


ALL = tuple(archive(name) for name in FILES)


def sums(files: dict[str, bytes] = FILES) -> bytes:
    """What `sha256sum` writes of the files."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items()]
    return ("\n".join(lines) + "\n").encode()


def fetch(server: MirrorServer, folder, wanted=ALL, **options) -> list[Fetched]:
    """Fetch from the server, impatiently."""
    return fetch_from(server.url, folder, wanted, **options)


def fetch_from(
    mirror: str | None, folder, wanted=ALL, offline: bool = False, patience: Patience = QUICK
) -> list[Fetched]:
    """Fetch from an address or a folder, impatiently."""
    return fetch_archives(wanted, folder, mirror, offline, 4, patience)


def one(server: MirrorServer, folder, name: str = BIG, **options) -> Fetched:
    """Fetch one file from the server."""
    return fetch(server, folder, (archive(name),), **options)[0]


def contents(folder) -> dict[str, bytes]:
    """Name -> bytes of the archives in a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".zip", ".csv")}
