"""Pictures for a page that stands alone: photographs as data URIs, masks as SVG outlines."""

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from didgen.report.reading import broken


@dataclass(frozen=True)
class Picture:
    """An embedded picture: its data URI, its size in pixels and the words that stand for it."""

    uri: str
    width: int
    height: int
    alt: str


def embed_named(folder: Path, name: str, alt: str, side: int, quality: int) -> Picture:
    """Embed the image that a result file names, relative to its folder. Raises: BrokenResult as
    `embed`, and for a name that leaves the folder."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise broken(path, "a name that leaves the folder", "a picture of this run")
    return embed(path, alt, side, quality)


def embed(path: Path, alt: str, side: int, quality: int = 84) -> Picture:
    """Embed an image file as JPEG, shrunk so that its shorter side is at most `side` pixels.

    Raises: BrokenResult if the file is absent or is not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise broken(path, f"not readable as an image ({error})", "an image") from error
    scale = side / min(image.size)
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=quality, optimize=True, progressive=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{encoded}", image.width, image.height, alt)


@dataclass(frozen=True)
class SvgOutline:
    """A mask's outline: path data of an SVG in pixels of the mask, and the mask's size."""

    path: str
    width: int
    height: int


def outline(mask: np.ndarray, tolerance: float = 0.35) -> SvgOutline:
    """The closed outlines of a mask, holes included; empty path data for an empty mask.

    Shapes: mask (H, W) bool. `tolerance`: how far, in pixels, the path may leave the true outline.
    """
    from skimage.measure import approximate_polygon, find_contours

    if mask.ndim != 2:
        raise ValueError(f"expected a mask of shape (H, W), found shape {mask.shape}")
    # A border of background closes the outlines of regions that touch the image's edge.
    padded = np.pad(mask.astype(float), 1)
    parts = []
    for contour in find_contours(padded, 0.5):
        points = approximate_polygon(contour, tolerance)
        # Pixel centres are at integers here, at halves in SVG; the border shifts by one.
        steps = " ".join(f"{x - 0.5:.1f},{y - 0.5:.1f}" for y, x in points[:-1])
        parts.append(f"M{steps}Z")
    return SvgOutline("".join(parts), mask.shape[1], mask.shape[0])


def mask_outline(path: Path) -> SvgOutline:
    """The outline of a mask file (0 = background, anything else = lesion).

    Raises: BrokenResult if the file is absent or is not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("L"))
    except OSError as error:
        raise broken(path, f"not readable as a mask ({error})", "an image") from error
    return outline(pixels > 127)
