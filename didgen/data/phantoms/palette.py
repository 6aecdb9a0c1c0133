"""Colors in CIELAB (D65): names for the lesion's, conversion to sRGB, the typology angle."""

from __future__ import annotations

import numpy as np

# name -> (L, a, b) on fair skin, and how strongly the color darkens with the skin (exponent of
# skin lightness over FAIR): pigment lies within the skin and follows it, keratin lies on top.
COLORS: dict[str, tuple[tuple[float, float, float], float]] = {
    "light brown": ((51.0, 20.0, 25.0), 0.8),
    "dark brown": ((29.0, 17.0, 17.0), 0.8),
    "black": ((12.0, 3.0, 3.0), 0.5),
    "red": ((45.0, 44.0, 21.0), 0.5),
    "pink": ((60.0, 34.0, 8.0), 0.7),
    "purple": ((33.0, 30.0, -12.0), 0.4),
    "blue-gray": ((43.0, 2.0, -9.5), 0.5),
    "white": ((84.0, 7.0, 5.0), 0.4),
    "tan": ((60.0, 13.0, 30.0), 0.85),
    "yellow": ((75.0, 9.0, 33.0), 0.5),
}
FAIR = 70.0

_WHITE = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
_TO_RGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ],
    dtype=np.float32,
)
_LINEAR = np.linspace(0.0, 1.0, 8192, dtype=np.float32)
_GAMMA = np.where(_LINEAR <= 0.0031308, 12.92 * _LINEAR, 1.055 * _LINEAR ** (1 / 2.4) - 0.055)
_GAMMA = _GAMMA.astype(np.float32)


def lesion_color(name: str, skin_lightness: float) -> np.ndarray:
    """CIELAB value (3,) of a named lesion color on skin of the given L (0..100)."""
    lab, follows = COLORS[name]
    value = np.array(lab, dtype=np.float32)
    value[0] *= (min(skin_lightness, 80.0) / FAIR) ** follows
    return value


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """CIELAB (..., 3) to gamma-coded sRGB float32 (..., 3) in 0..1, clipped to the gamut."""
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    f = f.astype(np.float32, copy=False)
    xyz = np.where(f > 6 / 29, f * f * f, (f - 4 / 29) * np.float32(3 * (6 / 29) ** 2)) * _WHITE
    linear = np.clip(xyz @ _TO_RGB.T, 0.0, 1.0)
    return _GAMMA[(linear * (len(_LINEAR) - 1) + 0.5).astype(np.int32)]


def typology_angle(lightness: float, b: float) -> float:
    """Individual typology angle in degrees: arctan((L - 50) / b), Chardon et al. 1991."""
    return float(np.degrees(np.arctan2(lightness - 50.0, b)))
