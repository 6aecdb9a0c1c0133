"""What hides the skin: dark corners, ink, hair, ruler ticks, gel bubbles.

Shapes: lab (H, W, 3) float32 CIELAB; masks (H, W) bool. Lengths are fractions of the shorter side.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from didgen.captions.attributes import Hair
from didgen.captions.morphology import grey_closing, grey_opening

# Dark corners: pixels this much darker than the field's median lightness, joined to a corner.
CORNER_DROP = 22.0
CORNERS_FROM = 0.005  # share of the image
# Ink: violet or blue outside the lesion.
INK_B = -9.0
INK_CHROMA = 16.0
# Ink's b lies this far below that of the field: under a bluish light all of the field is blue.
INK_DROP = 12.0
INK_FROM = 0.002
# Hair: share of thin dark lines in the field outside the lesion.
THIN_CONTRAST = 5.0
HAIR_SOME, HAIR_DENSE = 0.010, 0.125
HAIR_LENGTH = 0.12
# Crossing hairs join into one net: from this extent on a component is hair whatever its area.
NET_LENGTH = 0.4
# A component is a line when its squared extent is this many times its area.
LINE_RATIO = 5.0
# Ruler: ticks of like direction at even steps.
TICK_LENGTHS = (0.018, 0.14)
TICKS_FROM = 5
TICK_CONTRAST = 10.0  # mean black-hat of a tick
ROW_WIDTH = 0.035
LINE_LENGTH = 0.25
# Autocorrelation at the step between ticks, for ticks that stand on a line.
TICK_LIKENESS = 0.4
TICK_POWER = 3.0  # variance of the black-hat along the ticks
# Gel bubbles: bright round spots and rims.
GLINT_CONTRAST = 9.0
GLINT_TOP_HAT = 4.0
GLINT_CHROMA = 0.8  # of the field's median
BUBBLES_FROM = 2


@dataclass(frozen=True)
class Components:
    """Connected components of a mask: area, extent, centroid, direction, inertia for each."""

    labels: np.ndarray
    area: np.ndarray
    length: np.ndarray
    width: np.ndarray
    center: np.ndarray
    angle: np.ndarray


def components(mask: np.ndarray) -> Components:
    """Components (8-connected) with the moments of each.

    `length`, `width` are the sides in pixels of the rectangle with equal second moments; `center`
    is (row, column); `angle` the direction of the long axis in radians, in [0, pi).
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    rows, columns = np.nonzero(labels)
    index = labels[rows, columns] - 1

    def total(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(index, weights=values, minlength=count).astype(float)

    area = total()
    safe = np.maximum(area, 1)
    center = np.stack([total(rows), total(columns)], axis=1) / safe[:, None]
    dr, dc = rows - center[index, 0], columns - center[index, 1]
    # A pixel is a unit square: its own second moment is 1/12.
    rr, cc, rc = (
        total(dr * dr) / safe + 1 / 12,
        total(dc * dc) / safe + 1 / 12,
        total(dr * dc) / safe,
    )
    middle, spread = (rr + cc) / 2, np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    length, width = np.sqrt(12 * (middle + spread)), np.sqrt(12 * np.maximum(middle - spread, 0))
    angle = (0.5 * np.arctan2(2 * rc, cc - rr)) % np.pi
    return Components(labels, area, length, width, center, angle)


def dark_corners(lab: np.ndarray) -> np.ndarray:
    """Pixels of the dermatoscope's dark surround: darker than the field, joined to corners."""
    lightness = ndimage.uniform_filter(lab[..., 0], 3)
    height, width = lightness.shape
    top, left = height // 4, width // 4
    field = float(np.median(lightness[top : height - top, left : width - left]))
    # On a dark center (a large lesion) the frame's brighter half is the better reference.
    field = max(field, float(np.percentile(lightness, 60)))
    dark = lightness < min(field - CORNER_DROP, 0.62 * field)
    labels, _ = ndimage.label(dark)
    reach_r, reach_c = max(1, height // 24), max(1, width // 24)
    touched: set[int] = set()
    corners = 0
    for rows in (slice(0, reach_r), slice(-reach_r, None)):
        for columns in (slice(0, reach_c), slice(-reach_c, None)):
            patch = labels[rows, columns]
            if (patch > 0).mean() > 0.5:
                corners += 1
                touched |= set(np.unique(patch[patch > 0]).tolist())
    if corners < 2:
        return np.zeros_like(dark)
    return np.isin(labels, list(touched))


def ink(lab: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Violet and blue pen marks outside the lesion."""
    if not outside.any():
        return np.zeros_like(outside)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    below = min(INK_B, float(np.median(lab[..., 2][outside])) - INK_DROP)
    # The hue bound leaves out magenta drapes, whose a is large beside b.
    violet = (lab[..., 2] < below) & (lab[..., 2] < -0.5 * lab[..., 1])
    return outside & violet & (chroma > INK_CHROMA)


def thin_dark(lab: np.ndarray) -> np.ndarray:
    """Black-hat of lightness with a square: dark structures thinner than about 3 % of the side."""
    lightness = lab[..., 0]
    size = 2 * round(0.014 * min(lightness.shape)) + 1
    size = max(5, size)
    return grey_closing(lightness, size) - lightness


def hair_lines(thin: np.ndarray) -> np.ndarray:
    """Those of the thin dark pixels that belong to long lines or to nets of crossing lines."""
    regions = components(thin)
    side = min(thin.shape)
    is_line = (regions.length >= HAIR_LENGTH * side) & (
        regions.length**2 >= LINE_RATIO * np.maximum(regions.area, 1)
    )
    is_line |= regions.length >= NET_LENGTH * side
    return np.concatenate([[False], is_line])[regions.labels]


def hair_word(share: float) -> Hair:
    """Hair from the share of the surroundings under long thin dark lines."""
    return "none" if share < HAIR_SOME else "some" if share < HAIR_DENSE else "dense"


def ruler_marks(black_hat: np.ndarray, field: np.ndarray) -> np.ndarray | None:
    """Pixels of a ruler, (H, W) bool: ticks in a row, or a straight line with ticks; else None."""
    regions = components((black_hat > THIN_CONTRAST) & field)
    chosen = _row_of_ticks(regions, black_hat)
    if chosen is None:
        chosen = _ticked_line(regions, black_hat)
    if chosen is None:
        return None
    return np.concatenate([[False], chosen])[regions.labels]


def _row_of_ticks(regions: Components, black_hat: np.ndarray) -> np.ndarray | None:
    """Which components are short strokes of like direction at even steps; None without such."""
    side = min(black_hat.shape)
    tick = (regions.length >= TICK_LENGTHS[0] * side) & (regions.length <= TICK_LENGTHS[1] * side)
    tick &= (regions.length > 1.6 * regions.width) & (regions.area >= 3)
    # Ticks are printed black; vessels and furrows are fainter.
    weights = np.bincount(regions.labels.ravel(), black_hat.ravel(), minlength=len(tick) + 1)
    tick &= weights[1:] / np.maximum(regions.area, 1) > TICK_CONTRAST
    if tick.sum() < TICKS_FROM:
        return None
    for direction in np.unique(np.round(regions.angle[tick] / (np.pi / 18)) * (np.pi / 18)):
        turn = np.abs((regions.angle - direction + np.pi / 2) % np.pi - np.pi / 2)
        group = tick & (turn < np.pi / 12)
        if group.sum() >= TICKS_FROM and _in_even_row(regions.center[group], direction, side):
            return group
    return None


def _ticked_line(regions: Components, black_hat: np.ndarray) -> np.ndarray | None:
    """Which component is a long straight line with ticks at even steps beside it; None without."""
    side = min(black_hat.shape)
    straight = (regions.length >= LINE_LENGTH * side) & (regions.length > 10 * regions.width)
    for index in np.flatnonzero(straight)[:8]:
        along = np.array([np.sin(regions.angle[index]), np.cos(regions.angle[index])])
        across = np.array([along[1], -along[0]])
        t = np.arange(-0.5 * regions.length[index], 0.5 * regions.length[index])
        for sign in (-1, 1):
            offsets = sign * side * np.array([0.012, 0.016, 0.020])
            points = regions.center[index][:, None, None] + along[:, None, None] * t[:, None]
            points = points + across[:, None, None] * offsets
            signal = ndimage.map_coordinates(black_hat, points, order=1).mean(axis=1)
            if _is_periodic(signal, side):
                chosen = np.zeros(len(regions.area), dtype=bool)
                chosen[index] = True
                return chosen
    return None


def _is_periodic(signal: np.ndarray, side: int) -> bool:
    """Whether the signal repeats itself at a step that suits a ruler's ticks."""
    signal = signal - ndimage.uniform_filter1d(signal, max(3, round(0.12 * side)))
    power = float(signal @ signal)
    if power < TICK_POWER * len(signal):
        return False
    lags = np.arange(round(0.03 * side), min(round(0.13 * side), len(signal) // TICKS_FROM))
    likeness = [float(signal[lag:] @ signal[:-lag]) / power for lag in lags]
    return max(likeness, default=0.0) > TICK_LIKENESS


def _in_even_row(center: np.ndarray, direction: float, side: int) -> bool:
    """Whether at least TICKS_FROM centers stand in a row at even steps.

    The row may run up to 50 degrees off the perpendicular of the strokes: ticks can be slanted.
    """
    for tilt in np.radians(np.arange(-50, 51, 5)):
        row = direction + np.pi / 2 + tilt
        along = center @ np.array([np.sin(row), np.cos(row)])
        across = center @ np.array([np.cos(row), -np.sin(row)])
        close = np.abs(across[:, None] - across) < ROW_WIDTH * side
        fullest = close[close.sum(axis=1).argmax()]
        steps = np.diff(np.sort(along[fullest]))
        steps = steps[steps > 0.01 * side]
        if len(steps) < TICKS_FROM - 1:
            continue
        even = np.abs(steps - np.median(steps)) < 0.2 * np.median(steps)
        if even.sum() >= TICKS_FROM - 1 and even.mean() > 0.7:
            return True
    return False


def has_bubbles(lab: np.ndarray, field: np.ndarray) -> bool:
    """Whether several small spots or rims are seen, brighter and less colored than the field."""
    side = min(field.shape)
    size = max(5, 2 * round(0.02 * side) + 1)
    if not field.any():
        return False
    # Closing first takes out hair: what lies between two hairs is no bubble.
    lightness = grey_closing(lab[..., 0], size)
    top_hat = lightness - grey_opening(lightness, size)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    glints = (top_hat > GLINT_TOP_HAT) & field
    glints &= lab[..., 0] > float(np.median(lab[..., 0][field])) + GLINT_CONTRAST
    glints &= chroma < GLINT_CHROMA * float(np.median(chroma[field]))
    regions = components(glints)
    spots = (regions.area >= max(3, 1.2e-4 * side * side)) & (regions.length < 0.2 * side)
    return int(spots.sum()) >= BUBBLES_FROM
