"""What is kept of a photograph to find its copies and the other photographs of the same lesion.

A digest of the pixels finds exact copies. A perceptual hash in eight orientations finds copies that
were saved anew, scaled, brightened, mirrored or turned by quarters. Local features (SIFT) find what
is a crop, a zoom or a turn of the same lesion. All three come from libraries; none needs weights.
"""

import functools
from dataclasses import dataclass

import cv2
import imagehash
import numpy as np
from PIL import Image

from didgen.data.images import pixel_digest

HASH_SIDE = 16
# SIFT also searches twice this size: smaller features tell skin from skin, not lesion from lesion.
FEATURE_SIDE = 112
MAX_POINTS = 64
# Times as long as wide: no photograph of a lesion is.
LONGEST_STRIP = 16
_TURNS = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True)
class Fingerprint:
    """About 9 KB that stand for a photograph.

    digest: SHA-256 of shape and pixels. contrast: standard deviation of the gray values, 0..127;
    without contrast a hash means nothing. hashes: uint64 (8, 4), the perceptual hash of 256 bits in
    eight orientations, the first as photographed. points: float32 (n, 4), row and column in shares
    of the shorter side, scale, and orientation in radians; descriptors: uint8 (n, 128). n <= 64.
    """

    digest: bytes
    contrast: float
    hashes: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Take the fingerprint of a photograph: uint8 (H, W, 3)."""
    gray = Image.fromarray(image).convert("L")
    # Pillow's reduction first: the hash looks at 64 x 64 px, and is taken eight times.
    small = gray.resize((4 * HASH_SIDE, 4 * HASH_SIDE), Image.Resampling.BOX)
    hashes = []
    for turn in _TURNS:
        turned = small if turn is None else small.transpose(turn)
        bits = imagehash.phash(turned, hash_size=HASH_SIDE).hash
        hashes.append(np.packbits(bits).view(np.uint64))
    contrast = float(np.std(np.asarray(small)))
    return Fingerprint(pixel_digest(image), contrast, np.stack(hashes), *_local_features(gray))


def _local_features(gray: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 (n, 4) and descriptors uint8 (n, 128), those of the largest scale first.

    A strip has none: brought to `FEATURE_SIDE`, it could be longer than memory.
    """
    if max(gray.size) > LONGEST_STRIP * min(gray.size):
        return _no_features()
    factor = FEATURE_SIDE / min(gray.size)
    width, height = (max(1, round(side * factor)) for side in gray.size)
    pixels = np.asarray(gray.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    low, high = np.percentile(pixels, (1, 99))
    # Pale lesions have little contrast, and the detector's threshold is absolute.
    pixels = np.clip((pixels - low) * (255.0 / max(high - low, 12.0)), 0.0, 255.0).astype(np.uint8)
    keypoints = sorted(_detector().detect(pixels, None), key=lambda point: -point.size)[:MAX_POINTS]
    if not keypoints:
        return _no_features()
    # Described are the chosen ones alone: it takes longer than finding them all.
    keypoints, descriptors = _detector().compute(pixels, keypoints)
    # OpenCV counts angles from columns to rows in degrees; here they go from rows to columns.
    points = [
        (*(place / FEATURE_SIDE for place in (p.pt[1], p.pt[0], p.size / 2)), -np.radians(p.angle))
        for p in keypoints
    ]
    return np.array(points, np.float32), np.clip(descriptors, 0, 255).astype(np.uint8)


def _no_features() -> tuple[np.ndarray, np.ndarray]:
    return np.empty((0, 4), np.float32), np.empty((0, 128), np.uint8)


@functools.cache
def _detector() -> cv2.SIFT:
    # Cores are shared out by photographs; and one thread finds the features in one order.
    cv2.setNumThreads(1)
    return cv2.SIFT_create(contrastThreshold=0.02)
