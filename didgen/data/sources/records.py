"""What every source yields: records that know who they are and how to load their pixels."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile, ZipFile

import numpy as np

from didgen.data.images import Fit, fit_image, fit_mask, read_image, read_mask


class SourceError(ValueError):
    """A source that cannot be used; the message says what was found, expected and what to do."""


class Pixels(Protocol):
    """Loads one image, and its mask where there is one, at a square size in px."""

    @property
    def has_mask(self) -> bool:
        """Whether `load` will give a mask."""

    def load(self, size: int, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the uint8 image (size, size, 3) and the bool mask (size, size) or None."""


@dataclass(frozen=True)
class Record:
    """One image of a source, before preparation. Unknown text is ""."""

    id: str
    label: str
    lesion_id: str
    patient_id: str
    source: str
    split: str
    pixels: Pixels


@dataclass(frozen=True)
class FilePixels:
    """An image file and, where there is one, its mask file."""

    image: Path
    mask: Path | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a mask is named."""
        return self.mask is not None

    def load(self, size: int, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
        """Read, check and fit both files. Raises: `ImageError`."""
        image = read_image(self.image)
        mask = None if self.mask is None else read_mask(self.mask, image.shape[:2])
        return _fit_pair(image, mask, size, fit, str(self.mask))


@dataclass(frozen=True)
class ZipPixels:
    """Members of archives, read in place: nothing is extracted, so no path can escape."""

    image: tuple[Path, str]
    mask: tuple[Path, str] | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a mask is named."""
        return self.mask is not None

    def load(self, size: int, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
        """Read, check and fit both members. Raises: `ImageError`, `SourceError`."""
        image = read_image(_name(self.image), io.BytesIO(read_member(*self.image)))
        if self.mask is None:
            return fit_image(image, size, fit), None
        stream = io.BytesIO(read_member(*self.mask))
        mask = read_mask(_name(self.mask), image.shape[:2], stream)
        return _fit_pair(image, mask, size, fit, _name(self.mask))


def read_member(archive: Path, member: str) -> bytes:
    """A member's bytes, all of them, so that the archive's checksum of it is always compared.

    Raises: `SourceError` when the archive or the member is missing, damaged or encrypted.
    """
    try:
        with ZipFile(archive) as opened:
            return opened.read(member)
    # RuntimeError: the member is encrypted, or compressed in a way that Python does not know.
    except (BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, OSError) as error:
        raise SourceError(
            f"{_name((archive, member))}: cannot be read from the archive ({error}); expected a "
            "whole, unencrypted zip file: fetch it again"
        ) from error


def _name(place: tuple[Path, str]) -> str:
    archive, member = place
    return f"{archive.name}/{member}"


def _fit_pair(
    image: np.ndarray, mask: np.ndarray | None, size: int, fit: Fit, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    fitted = None if mask is None else fit_mask(mask, size, fit)
    if fitted is not None and not fitted.any():
        raise SourceError(
            f"{name}: no lesion pixel is left at {size} px after '{fit}'; "
            "use data.fit: pad or squash, or remove the row"
        )
    return fit_image(image, size, fit), fitted
