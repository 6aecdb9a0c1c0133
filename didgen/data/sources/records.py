"""What every source yields: records that know who they are and how to load their pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile

import numpy as np

from didgen.data.images import Fit, fit_image, fit_mask, read_image, read_mask


class SourceError(ValueError):
    """A source that cannot be used; the message says what was found, expected and what to do."""


class Pixels(Protocol):
    """Loads one image, and its mask where there is one, at a square size in px."""

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

    def load(self, size: int, fit: Fit) -> tuple[np.ndarray, np.ndarray | None]:
        """Read, check and fit both members. Raises: `ImageError`."""
        archive, member = self.image
        with ZipFile(archive) as opened, opened.open(member) as stream:
            image = read_image(f"{archive.name}/{member}", stream)
        mask = None
        if self.mask is not None:
            archive, member = self.mask
            with ZipFile(archive) as opened, opened.open(member) as stream:
                mask = read_mask(f"{archive.name}/{member}", image.shape[:2], stream)
        return _fit_pair(image, mask, size, fit, str(self.mask))


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
