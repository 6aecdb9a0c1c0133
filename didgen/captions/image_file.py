"""An image that a model is asked about: named by its contents, decoded only where it is needed."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from didgen.data.images import read_image
from didgen.runtime.files import sha256_file


@dataclass(frozen=True)
class ImageFile:
    """A file, the SHA-256 of its bytes, and the pixels its longer side may have at most."""

    path: Path
    sha256: str
    side: int

    @classmethod
    def of(cls, path: Path, side: int) -> "ImageFile":
        """The image file at a path, hashed now. Raises: `OSError`."""
        return cls(Path(path), sha256_file(path), side)

    def pixels(self) -> np.ndarray:
        """The image, uint8 (H, W, 3) sRGB, upright, shrunk to `side`. Raises: `ImageError`."""
        image = Image.fromarray(read_image(self.path))
        scale = self.side / max(image.size)
        if scale < 1:
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(image)

    def png(self) -> bytes:
        """The image as PNG, without anything that its file may say of the patient."""
        stream = io.BytesIO()
        Image.fromarray(self.pixels()).save(stream, format="PNG", compress_level=4)
        return stream.getvalue()
