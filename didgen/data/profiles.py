"""Embedded color profiles: photographs brought to sRGB, the color space of every array here."""

import io
from functools import lru_cache

from PIL import Image, ImageCms

TO_SRGB = "color profile converted to sRGB"
IGNORED = "unusable color profile ignored"
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Apply an image's ICC profile: the image in sRGB, and what was done in words ("": nothing).

    Costs nothing without a profile, or with one that calls itself sRGB. A profile that is damaged
    or of another kind of color than the pixels is ignored: the pixels are then taken as sRGB.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, ""
    alpha = image.getchannel("A") if image.mode in ("LA", "PA", "RGBA") else None
    colors = _without_alpha(image)
    try:
        transform = _transform(profile, colors.mode)
        if transform is None:
            return image, ""
        converted = ImageCms.applyTransform(colors, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, IGNORED
    # None only where it changes an image in place.
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, TO_SRGB


def _without_alpha(image: Image.Image) -> Image.Image:
    if image.mode in _SPACES:
        return image
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


# A data set holds a handful of profiles, and building a transform takes longer than using it.
@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None where there is nothing to do. Raises: `PyCMSError`, `OSError`,
    `ValueError` for a profile that cannot be used.
    """
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if space != _SPACES[mode]:
        raise ValueError(f"found a profile for {space}, expected one for {_SPACES[mode]}")
    if "srgb" in ImageCms.getProfileDescription(opened).lower():
        return None
    return ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
