"""Contact sheets: many small pictures with a line of words under each, as one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didgen.attention.panels import draw_contour

_GAP = 6
_LINE = 15
_INK = (28, 32, 36)


@dataclass(frozen=True)
class Tile:
    """A picture, uint8 (H, W, 3), and the lines under it; all tiles of a sheet have one size."""

    picture: np.ndarray
    lines: tuple[str, ...] = ()


def pair_picture(image: np.ndarray, mask: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Image, the image with its mask's outline, and the condition in gray with the same outline.

    Shapes: image uint8 (H, W, 3), masks bool (H, W); result uint8 (H, 2 W or 3 W, 3).
    """
    parts = [image, draw_contour(image, mask)]
    if condition is not None:
        gray = np.where(condition[..., None], 150, 40).astype(np.uint8).repeat(3, axis=2)
        parts.append(draw_contour(gray, mask))
    return np.concatenate(parts, axis=1)


def contact_sheet(tiles: Sequence[Tile], columns: int) -> np.ndarray:
    """The tiles in rows on white, uint8 (H, W, 3); words too long for their tile are cut.

    Raises: ValueError without tiles or for tiles of different sizes.
    """
    from PIL import Image, ImageDraw, ImageFont

    sizes = {tile.picture.shape for tile in tiles}
    if len(sizes) != 1:
        raise ValueError(f"found tiles of sizes {sorted(sizes)}, expected one size for all")
    height, width, _ = sizes.pop()
    lines = max(len(tile.lines) for tile in tiles)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    step = (width + _GAP, height + _GAP + lines * _LINE)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = _GAP + column * step[0], _GAP + row * step[1]
        sheet.paste(Image.fromarray(tile.picture), (left, top))
        for number, line in enumerate(tile.lines):
            while line and pen.textlength(line, font) > width:
                line = line[:-1]
            pen.text((left, top + height + 1 + number * _LINE), line, _INK, font)
    return np.asarray(sheet)
