"""What every source yields: records that know who they are and how to load their pixels."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from didgen.data import archives
from didgen.data.archives import ArchiveError
from didgen.data.images import decode_image, fit_image, fit_mask, read_mask

if TYPE_CHECKING:
    from didgen.settings.data import Fit


class SourceError(ValueError):
    """A source that cannot be used; the message says what was found, expected and what to do."""


@dataclass(frozen=True)
class Photograph:
    """A photograph as it was decoded, not yet square.

    image: uint8 (h, w, 3); mask: bool (H, W) or None; shape: the (H, W) of the file, larger than
    (h, w) where it was decoded at a fraction of its size; changes: what decoding changed, in words.
    """

    image: np.ndarray
    mask: np.ndarray | None
    shape: tuple[int, int]
    changes: tuple[str, ...] = ()

    def fitted(self, size: int, fit: "Fit", name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The uint8 image (size, size, 3) and the bool mask (size, size) or None.

        `name` is the mask's in messages. Raises: `SourceError` when no lesion pixel is left, or
        `pad` makes more pixels of a long photograph than Pillow holds for safe.
        """
        try:
            return self._square(size, fit, name)
        except Image.DecompressionBombError as error:
            height, width = self.image.shape[:2]
            raise SourceError(
                f"{name}: found {width}x{height} pixels, too many to be made square by '{fit}' "
                f"({error}); scale the photograph down, or use data.fit: crop or squash"
            ) from error

    def _square(self, size: int, fit: "Fit", name: str) -> tuple[np.ndarray, np.ndarray | None]:
        mask = None if self.mask is None else fit_mask(self.mask, size, fit)
        if mask is not None and not mask.any():
            raise SourceError(
                f"{name}: no lesion pixel is left at {size} px after '{fit}'; "
                "use data.fit: pad or squash, or remove the row"
            )
        return fit_image(self.image, size, fit, self.shape), mask


class Pixels(Protocol):
    """Loads one image, and its mask where there is one."""

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask."""

    @property
    def name(self) -> str:
        """What messages call the mask, or the image where there is none."""

    def read(self, size: int) -> Photograph:
        """Decode for an image of `size` px: a JPEG no larger than needed to look the same."""

    def load(self, size: int, fit: "Fit") -> tuple[np.ndarray, np.ndarray | None]:
        """Return the uint8 image (size, size, 3) and the bool mask (size, size) or None."""


@dataclass(frozen=True)
class Record:
    """One image of a source, before preparation. Unknown text is "".

    excluded: why the source cannot offer the image, in a few words that are counted, or "". Such a
    record only says whom it is related to: its pixels are never read, and may not be there.
    """

    id: str
    label: str
    lesion_id: str
    patient_id: str
    source: str
    split: str
    pixels: Pixels
    excluded: str = ""


@dataclass(frozen=True)
class FilePixels:
    """An image file and, where there is one, its mask file."""

    image: Path
    mask: Path | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a mask is named."""
        return self.mask is not None

    @property
    def name(self) -> str:
        """The mask's path, or the image's."""
        return str(self.mask or self.image)

    def read(self, size: int) -> Photograph:
        """Read and check both files. Raises: `ImageError`."""
        decoded = decode_image(self.image, at_least=enough_for(size))
        mask = None if self.mask is None else read_mask(self.mask, decoded.shape)
        return Photograph(decoded.pixels, mask, decoded.shape, decoded.changes)

    def load(self, size: int, fit: "Fit") -> tuple[np.ndarray, np.ndarray | None]:
        """Read, check and fit both files. Raises: `ImageError`, `SourceError`."""
        return self.read(size).fitted(size, fit, self.name)


@dataclass(frozen=True)
class ZipPixels:
    """Members of archives, read in place: nothing is extracted, so no path can escape."""

    image: tuple[Path, str]
    mask: tuple[Path, str] | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a mask is named."""
        return self.mask is not None

    @property
    def name(self) -> str:
        """The mask's archive and member, or the image's."""
        return _name(self.mask or self.image)

    def read(self, size: int) -> Photograph:
        """Read and check both members. Raises: `ImageError`, `SourceError`."""
        stream = io.BytesIO(read_member(*self.image))
        decoded = decode_image(_name(self.image), stream, at_least=enough_for(size))
        if self.mask is None:
            return Photograph(decoded.pixels, None, decoded.shape, decoded.changes)
        stream = io.BytesIO(read_member(*self.mask))
        mask = read_mask(_name(self.mask), decoded.shape, stream)
        return Photograph(decoded.pixels, mask, decoded.shape, decoded.changes)

    def load(self, size: int, fit: "Fit") -> tuple[np.ndarray, np.ndarray | None]:
        """Read, check and fit both members. Raises: `ImageError`, `SourceError`."""
        return self.read(size).fitted(size, fit, self.name)


def enough_for(size: int) -> int:
    """The side in px that a JPEG must keep when decoded at a fraction of its size.

    Twice the final side keeps the look; duplicates are compared at 192 px.
    """
    return max(2 * size, 192)


def read_member(archive: Path, member: str) -> bytes:
    """A member's bytes, all of them, so that the archive's checksum of it is always compared.

    Raises: `SourceError` when the archive is refused, or archive or member is missing or damaged.
    """
    try:
        return archives.read_member(archive, member)
    except ArchiveError as error:
        raise SourceError(str(error)) from error


def _name(place: tuple[Path, str]) -> str:
    archive, member = place
    return f"{archive.name}/{member}"
