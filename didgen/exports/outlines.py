"""Masks as polygons and as run lengths, so that the readers of each format get the same pixels."""

import cv2
import numpy as np

# The sides of a pixel: the direction, (x, y) with y down, in which it has the lesion on the right,
# and the corner of the pixel where it begins.
_SIDES = {(1, 0): (0, 0), (0, 1): (1, 0), (-1, 0): (1, 1), (0, -1): (0, 1)}


def rings(mask: np.ndarray) -> list[np.ndarray]:
    """The closed lines between lesion and skin along the edges of pixels, as corners.

    mask: bool (H, W). Each ring: int (N, 2), x in 0..W and y in 0..H, the first corner not
    repeated. Outer ones run clockwise on the screen, those of holes the other way: `area` of the
    first is positive, of the others negative, and all add up to the number of pixels. Pixels that
    touch at a corner alone have rings of their own.
    """
    height, width = mask.shape
    padded = np.pad(mask, 1)
    edges = set()
    for (dx, dy), (right, down) in _SIDES.items():
        # On the left of the side lies the pixel at (dy, -dx) from this one.
        beyond = padded[1 - dx : 1 - dx + height, 1 + dy : 1 + dy + width]
        rows, columns = np.nonzero(mask & ~beyond)
        edges |= {
            (x + right, y + down, dx, dy)
            for x, y in zip(columns.tolist(), rows.tolist(), strict=True)
        }
    found = []
    # A ring begins at its first edge to the right, whose start is a corner.
    for x, y, dx, dy in sorted(edge for edge in edges if edge[2:] == (1, 0)):
        if (x, y, dx, dy) not in edges:
            continue
        corners = []
        while (x, y, dx, dy) in edges:
            edges.remove((x, y, dx, dy))
            corners.append((x, y))
            x, y = x + dx, y + dy
            # To the right first, which stays at the same pixel where two touch at a corner.
            turns = ((-dy, dx), (dx, dy), (dy, -dx))
            dx, dy = next((t for t in turns if (x, y, *t) in edges), (0, 0))
        found.append(_without_straight(np.array(corners)))
    return found


def _without_straight(ring: np.ndarray) -> np.ndarray:
    """Without the points at which a ring goes straight on."""
    steps = np.roll(ring, -1, 0) - ring
    return ring[(steps != np.roll(steps, 1, 0)).any(1)]


def area(ring: np.ndarray) -> float:
    """Area inside a ring (N, 2), px; negative where it runs counter-clockwise on the screen."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of skin and lesion in turn, column by column, skin first (maybe 0)."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """The outermost pixels of each part (8-connected), int (N, 2) as (x, y), at least three.

    Holes are not said. `cv2.fillPoly` gives the parts back, holes filled.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # Of a pixel or a line there is one or two: the last is said again.
    return [np.pad(c[:, 0], ((0, max(0, 3 - len(c))), (0, 0)), mode="edge") for c in found]
