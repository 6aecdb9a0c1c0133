"""Images and masks at the edges: files to arrays, checked, oriented and made square.

Arrays: images are uint8 (H, W, 3) sRGB, masks are bool (H, W).
"""

import hashlib
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:  # processes that read images start quicker without pydantic
    from didgen.settings.data import Fit

# No format that Pillow reads by starting another program, or that holds no photographs.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "GIF", "PPM")
CONVERT_DICOM = (
    "DICOM is not read, because its values need windowing and its header names the patient; "
    "convert the file to PNG first, for example with `dcmj2pnm --write-png in.dcm out.png` of DCMTK"
)
# What Pillow, and a stream out of an archive, raise for damaged files.
_DAMAGES = (
    UnidentifiedImageError, OSError, SyntaxError, EOFError, struct.error, zlib.error, BadZipFile,
    ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError,
)  # fmt: skip
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_COLOR_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


class ImageError(ValueError):
    """An image or mask file that cannot be used; the message says which, why and what to do."""


class Decoded(NamedTuple):
    """A photograph, decoded.

    pixels: uint8 (h, w, 3); shape: the (H, W) of the file once turned, larger than (h, w) where
    `at_least` allowed a reduction; changes: what was done to the pixels, in words to be counted.
    """

    pixels: np.ndarray
    shape: tuple[int, int]
    changes: tuple[str, ...] = ()


def read_image(
    path: Path | str, stream: BinaryIO | None = None, at_least: int | None = None
) -> np.ndarray:
    """The pixels of `decode_image`: uint8 RGB (H, W, 3)."""
    return decode_image(path, stream, at_least).pixels


def decode_image(
    path: Path | str, stream: BinaryIO | None = None, at_least: int | None = None
) -> Decoded:
    """Decode an image to 8-bit sRGB, turned as its EXIF orientation says.

    With `stream`, its bytes are read and `path` only names it in messages. With `at_least`, a JPEG
    is decoded at a half, a quarter or an eighth of its size as long as both sides keep that many
    px, which is several times faster; twice the side wanted in the end keeps the look.

    Transparent pixels are laid on white; of 16 bits a channel the upper 8 are kept; an embedded
    color profile is converted to sRGB; of a multi-picture JPEG (MPO) the first picture is taken.

    Raises: `ImageError` when the file is missing, empty, no image, DICOM or damaged, has several
    pages, is larger than Pillow's guard against decompression bombs allows, or holds numbers that
    have no full scale (32 bits, floats, 12 bits in 16).
    """
    changes: list[str] = []
    with _faults_named(path), _bytes_of(path, stream) as source:
        image, shape = _load(path, source, at_least, changes)
        image, word = _to_srgb(image)
        changes += [word] if word else []
        if image.mode in ("CMYK", "YCbCr", "RGBX"):
            changes.append(f"{image.mode} converted to RGB")
        image = _eight_bit_rgb(image)
        if image.mode == "RGBA" and np.asarray(image.getchannel("A")).min() < 255:
            changes.append("transparency laid on white")
        return Decoded(np.asarray(_on_white(image)), shape, tuple(changes))


def check_kind(path: Path | str) -> None:
    """Raise `ImageError` for a file that does not begin as an image; its pixels are not read."""
    with _faults_named(path), _bytes_of(path, None) as source:
        Image.open(source, formats=FORMATS).close()


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) of gray (H, W), RGB or RGBA (H, W, 4), clear pixels laid on white.

    Raises: `ValueError` for other shapes and for other numbers, whose full scale nobody knows.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,), (4,)) or pixels.ndim < 2:
        raise ValueError(
            f"found {pixels.dtype} of shape {pixels.shape}, expected uint8 of shape (H, W, 3), "
            "(H, W, 4) or (H, W)"
        )
    return np.asarray(_on_white(Image.fromarray(pixels)))


def _on_white(image: Image.Image) -> Image.Image:
    """RGB; of an RGBA image, its clear pixels laid on white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


@contextmanager
def _faults_named(path: Path | str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow raise into an `ImageError` that names it."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; correct the path or remove the row") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: found more pixels than can be read safely ({error}); scale the image down "
            "or remove the row"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: cannot be read as an image: found none of {', '.join(FORMATS)} in a kind "
            "that is known; save it as 8-bit PNG or JPEG, or remove the row"
        ) from error
    except _DAMAGES as error:
        raise ImageError(
            f"{path}: cannot be read as an image ({error}); replace the file, save it again as "
            "8-bit PNG or JPEG, or remove the row"
        ) from error


@contextmanager
def _bytes_of(path: Path | str, stream: BinaryIO | None) -> Iterator[BinaryIO]:
    """The file, opened, once its first bytes have shown that it is neither empty nor DICOM."""
    if stream is None:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # A pipe would be waited for, a device read without end.
            raise ImageError(f"{path}: is no regular file; replace it by the image it stands for")
        with open(path, "rb") as opened, _bytes_of(path, opened) as checked:
            yield checked
        return
    head = stream.read(132)
    if not head:
        raise ImageError(f"{path}: is empty (0 bytes); replace the file or remove the row")
    if head[128:] == b"DICM" or Path(path).suffix.lower() in (".dcm", ".dicom"):
        raise ImageError(f"{path}: found a DICOM file, expected a photograph; {CONVERT_DICOM}")
    stream.seek(0)
    yield stream


def _load(
    path: Path | str, source: BinaryIO, at_least: int | None, changes: list[str]
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode and turn: an image of 8 bits a channel, and the (H, W) it has at full size."""
    image: Image.Image = Image.open(source, formats=FORMATS)
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":
        raise ImageError(
            f"{path}: found {pages} pages or frames, expected one photograph; save the one you "
            "mean as a file of its own"
        )
    if pages > 1:
        changes.append("first picture of a multi-picture JPEG taken")
    width, height = image.size
    # Before the pixels are read: once they are, the layout of the file is forgotten.
    deep = _is_deep(image)
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    orientation = image.getexif().get(_ORIENTATION, 1)
    ImageOps.exif_transpose(image, in_place=True)
    if orientation in range(2, 9):
        changes.append("turned as EXIF says")
    if orientation in range(5, 9):
        width, height = height, width
    if deep:
        image = _upper_bits(path, image)
        changes.append("16 bits a channel reduced to 8")
    if image.mode not in _EIGHT_BITS:
        raise ImageError(
            f"{path}: found {image.mode} pixels, expected 8 or 16 bits a channel, gray or color; "
            "convert the file to 8-bit PNG or JPEG"
        )
    return image, (height, width)


def _to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Apply an image's color profile: the image in sRGB, and what was done in words ("": nothing).

    Costs nothing without a profile, or with one that calls itself sRGB. A profile that is damaged
    or of another kind of color than the pixels is ignored: the pixels are then taken as sRGB.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, ""
    alpha = image.getchannel("A") if image.mode in ("LA", "PA", "RGBA") else None
    colors = _colors_of(image)
    try:
        transform = _srgb_transform(profile, colors.mode)
        if transform is None:
            return image, ""
        converted = ImageCms.applyTransform(colors, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, "unusable color profile ignored"
    # None only where it changes an image in place.
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, "color profile converted to sRGB"


def _colors_of(image: Image.Image) -> Image.Image:
    if image.mode in _COLOR_SPACES:
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


# A data set holds a handful of profiles, and building a transform takes longer than using it.
@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None where there is nothing to do. Raises: `PyCMSError`, `OSError`,
    `ValueError` for a profile that cannot be used.
    """
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space != _COLOR_SPACES[mode]:
        raise ValueError(f"found a profile for {space}, expected one for {_COLOR_SPACES[mode]}")
    if "srgb" in ImageCms.getProfileDescription(opened).lower():
        return None
    return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")


def _is_deep(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel. Pillow's mode says it of gray images alone."""
    if image.mode.startswith("I;16"):
        return True
    tile = getattr(image, "tile", None)
    arguments = tile[0].args if tile else ""
    layout = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(layout, str) and ";16" in layout and image.mode in _EIGHT_BITS


def _upper_bits(path: Path | str, image: Image.Image) -> Image.Image:
    """Keep the upper 8 of 16 bits, as Pillow has done already for colors."""
    if image.mode.startswith("I;16"):
        profile = image.info.get("icc_profile")
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info["icc_profile"] = profile
    elif "transparency" in image.info:
        raise ImageError(
            f"{path}: found 16 bits a channel with one color meant as clear; save it with an alpha "
            "channel or without transparency"
        )
    brightest = max(high for _, high in _bands(image.getextrema()))
    if brightest < 16:
        raise ImageError(
            f"{path}: found 16 bits a channel of which at most a sixteenth of the range is used "
            "(often 8, 10 or 12 bits stored in 16); stretch them to 0..65535 or save an 8-bit PNG"
        )
    return image


def _bands(extrema: tuple) -> tuple:
    return extrema if isinstance(extrema[0], tuple) else (extrema,)


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    """RGBA where the image can be transparent, else RGB."""
    clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")


def read_mask(
    path: Path | str, shape: tuple[int, int] | None = None, stream: BinaryIO | None = None
) -> np.ndarray:
    """Read a lesion mask as bool (H, W): 0 is skin, 255 (or 1) is lesion.

    `shape`: the (H, W) of its image, when known. Raises: `ImageError` when the file cannot be read,
    has another size than its image, is transparent anywhere, has values other than two, or marks
    no pixel at all.
    """
    with _faults_named(path), _bytes_of(path, stream) as source:
        image = _eight_bit_rgb(_load(path, source, None, [])[0])
    if image.mode == "RGBA" and np.asarray(image.getchannel("A")).min() < 255:
        # Laid on white, as photographs are, its clear skin would become lesion.
        raise ImageError(
            f"{path}: found an image with transparency, expected a gray mask of 0 and 255; save it "
            "without alpha channel"
        )
    pixels = np.asarray(image.convert("RGB"))
    values = pixels[:, :, 0]
    if not all(np.array_equal(values, pixels[:, :, band]) for band in (1, 2)):
        raise ImageError(f"{path}: found a color image, expected a gray mask of 0 and 255")
    if shape is not None and values.shape != tuple(shape):
        turned = values.shape == tuple(shape)[::-1]
        remedy = "turn it, as the image's EXIF orientation turns the image" if turned else (
            "resize it with nearest neighbour"
        )  # fmt: skip
        raise ImageError(
            f"{path}: found a mask of {values.shape[1]}x{values.shape[0]} pixels, expected "
            f"{shape[1]}x{shape[0]} as its image; {remedy}"
        )
    levels = np.unique(values)
    if not (set(levels.tolist()) <= {0, 255} or set(levels.tolist()) <= {0, 1}):
        sample = ", ".join(map(str, levels[:6].tolist()))
        raise ImageError(
            f"{path}: mask is not binary: found {levels.size} gray values ({sample}, ...), "
            "expected only 0 and 255; threshold it at 128 first (JPEG masks are never exact: use "
            "PNG)"
        )
    mask = values > 0
    if not mask.any():
        raise ImageError(f"{path}: mask is empty (no lesion pixel); remove the row or its mask")
    return mask


def pixel_digest(image: np.ndarray) -> bytes:
    """SHA-256 of an image's shape and pixels: 32 bytes."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def square_box(height: int, width: int, fit: "Fit") -> tuple[int, int, int, int] | None:
    """The (left, top, right, bottom) box that `crop` or `pad` takes; None for `squash`."""
    if fit == "squash" or height == width:
        return None
    side = min(height, width) if fit == "crop" else max(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def fit_image(
    image: np.ndarray, size: int, fit: "Fit", shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Make an image square with side `size` px: center-crop, pad with black, or squash.

    Pillow's antialiased bicubic filter; an image that already has the size is returned as it is.
    `shape`: the (H, W) before a reduction by `decode_image`; the same part of the photograph is
    then taken as at full size, to a fraction of a px, so that image and mask keep together.
    """
    if shape is None or tuple(shape) == image.shape[:2]:
        return _fit(image, size, fit, Image.Resampling.BICUBIC)
    # A JPEG of 1001 px at half its size has 501, of which the last is half outside the picture.
    scale = round(max(shape) / max(image.shape[:2]))
    box = square_box(*shape, fit) or (0, 0, shape[1], shape[0])
    left, top, right, bottom = (edge / scale for edge in box)
    outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    inner = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
    part = Image.fromarray(image).crop(outer)
    return np.asarray(part.resize((size, size), Image.Resampling.BICUBIC, box=inner))


def fit_mask(mask: np.ndarray, size: int, fit: "Fit") -> np.ndarray:
    """Make a mask (H, W) square by nearest neighbour, with the geometry of its image."""
    return _fit(mask.astype(np.uint8) * 255, size, fit, Image.Resampling.NEAREST) > 0


def _fit(pixels: np.ndarray, size: int, fit: "Fit", resample: Image.Resampling) -> np.ndarray:
    box = square_box(pixels.shape[0], pixels.shape[1], fit)
    if box is None and pixels.shape[:2] == (size, size):
        return pixels
    image = Image.fromarray(pixels)
    if box is not None:
        image = image.crop(box)
    return np.asarray(image.resize((size, size), resample))
