"""What is kept of a photograph to find its copies and the other photographs of the same lesion.

A digest of the pixels finds exact copies. A perceptual hash in eight orientations finds copies that
were saved anew, scaled, brightened, mirrored or turned by quarters. Local features (SIFT) find what
is a crop, a zoom or a turn of the same lesion. All three come from libraries; none needs weights.
"""

import hashlib
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from skimage.feature import SIFT

HASH_SIDE = 16
FEATURE_SIDE = 160
MAX_POINTS = 64
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
    without contrast a hash tells nothing. hashes: uint64 (8, 4), the perceptual hash of 256 bits in
    eight orientations, the first as photographed. points: float32 (n, 4), row and column in shares
    of the shorter side, scale, and orientation in radians; descriptors: uint8 (n, 128). n <= 64.
    """

    digest: bytes
    contrast: float
    hashes: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


def pixel_digest(image: np.ndarray) -> bytes:
    """SHA-256 of an image's shape and pixels: 32 bytes."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image))
    return digest.digest()


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
    """Points float32 (n, 4) and descriptors uint8 (n, 128), those of the largest scale first."""
    factor = FEATURE_SIDE / min(gray.size)
    size = tuple(max(1, round(side * factor)) for side in gray.size)
    pixels = np.asarray(gray.resize(size, Image.Resampling.BICUBIC), np.float32)
    low, high = np.percentile(pixels, (1, 99))
    # Pale lesions have little contrast, and the detector's threshold is absolute.
    pixels = np.clip((pixels - low) / max(high - low, 12.0), 0.0, 1.0)
    finder = SIFT(upsampling=1, c_dog=0.007)
    try:
        finder.detect_and_extract(pixels)
    except RuntimeError:  # scikit-image's word for an image without any point
        return np.empty((0, 4), np.float32), np.empty((0, 128), np.uint8)
    largest = np.argsort(-finder.sigmas, kind="stable")[:MAX_POINTS]
    points = np.column_stack([finder.positions / FEATURE_SIDE, finder.sigmas, finder.orientations])
    return points[largest].astype(np.float32), finder.descriptors[largest].astype(np.uint8)
