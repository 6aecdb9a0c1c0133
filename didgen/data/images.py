"""Images and masks at the edges: files to arrays, checked, oriented and made square.

Arrays: images are uint8 (H, W, 3) RGB, masks are bool (H, W).
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Literal
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Fit = Literal["crop", "pad", "squash"]
# What Pillow, and a stream out of an archive, raise for damaged files.
_DAMAGES = (
    UnidentifiedImageError, OSError, SyntaxError, EOFError, struct.error, zlib.error, BadZipFile,
)  # fmt: skip


class ImageError(ValueError):
    """An image or mask file that cannot be used; the message says which, why and what to do."""


def read_image(path: Path | str, stream: BinaryIO | None = None) -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3), turned as its EXIF orientation says.

    With `stream`, its bytes are read and `path` only names it in messages. Transparent pixels are
    laid on white. Raises: `ImageError` when the file is missing, is no image, is damaged, is
    larger than Pillow's guard against decompression bombs allows, or holds more than 8 bits a
    channel.
    """
    image = _open(path, stream)
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(image)


def _open(path: Path | str, stream: BinaryIO | None) -> Image.Image:
    """Decode and turn an image: RGBA where it can be transparent, else RGB."""
    try:
        with Image.open(stream if stream is not None else path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ImageError(
                    f"{path}: found {opened.mode} pixels (more than 8 bits a channel), expected "
                    "8-bit RGB or gray; convert the file to 8-bit PNG or JPEG"
                )
            image = ImageOps.exif_transpose(opened)
            clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return image.convert("RGBA" if clear else "RGB")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; correct the path or remove the row") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: found more pixels than can be read safely ({error}); scale the image down "
            "or remove the row"
        ) from error
    except _DAMAGES as error:
        raise ImageError(
            f"{path}: cannot be read as an image ({error}); replace the file or remove the row"
        ) from error


def read_mask(
    path: Path | str, shape: tuple[int, int] | None = None, stream: BinaryIO | None = None
) -> np.ndarray:
    """Read a lesion mask as bool (H, W): 0 is skin, 255 (or 1) is lesion.

    `shape`: the (H, W) of its image, when known. Raises: `ImageError` when the file cannot be read,
    has another size than its image, is transparent anywhere, has values other than two, or marks
    no pixel at all.
    """
    image = _open(path, stream)
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        # Laid on white, as photographs are, its clear skin would become lesion.
        raise ImageError(
            f"{path}: found an image with transparency, expected a gray mask of 0 and 255; save it "
            "without alpha channel"
        )
    pixels = np.asarray(image.convert("RGB"))
    if not (np.ptp(pixels.astype(np.int16), axis=2) == 0).all():
        raise ImageError(f"{path}: found a color image, expected a gray mask of 0 and 255")
    values = pixels[:, :, 0]
    if shape is not None and values.shape != tuple(shape):
        raise ImageError(
            f"{path}: found a mask of {values.shape[1]}x{values.shape[0]} pixels, expected "
            f"{shape[1]}x{shape[0]} as its image; resize it with nearest neighbour"
        )
    found = np.unique(values)
    if not (set(found.tolist()) <= {0, 255} or set(found.tolist()) <= {0, 1}):
        sample = ", ".join(map(str, found[:6].tolist()))
        raise ImageError(
            f"{path}: mask is not binary: found {found.size} gray values ({sample}, ...), expected "
            "only 0 and 255; threshold it at 128 first (JPEG masks are never exact: use PNG)"
        )
    mask = values > 0
    if not mask.any():
        raise ImageError(f"{path}: mask is empty (no lesion pixel); remove the row or its mask")
    return mask


def square_box(height: int, width: int, fit: Fit) -> tuple[int, int, int, int] | None:
    """The (left, top, right, bottom) box that `crop` or `pad` takes; None for `squash`."""
    if fit == "squash" or height == width:
        return None
    side = min(height, width) if fit == "crop" else max(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def fit_image(image: np.ndarray, size: int, fit: Fit = "crop") -> np.ndarray:
    """Make an image square with side `size` px: center-crop, pad with black, or squash.

    Pillow's antialiased bicubic filter; an image that already has the size is returned as it is.
    """
    return _fit(image, size, fit, Image.Resampling.BICUBIC)


def fit_mask(mask: np.ndarray, size: int, fit: Fit = "crop") -> np.ndarray:
    """Make a mask (H, W) square by nearest neighbour, with the geometry of its image."""
    return _fit(mask.astype(np.uint8) * 255, size, fit, Image.Resampling.NEAREST) > 0


def _fit(pixels: np.ndarray, size: int, fit: Fit, resample: Image.Resampling) -> np.ndarray:
    box = square_box(pixels.shape[0], pixels.shape[1], fit)
    if box is None and pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(pixels)
    if box is not None:
        image = image.crop(box)
    return np.asarray(image.resize((size, size), resample))
