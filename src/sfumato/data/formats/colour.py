"""Colour profiles, and grey pictures stored as lossy colour.

Pixels are taken as sRGB. A picture with an ICC profile of another space (Display P3, Adobe RGB, a printer's CMYK, a
grey gamma) shows other colours than its bytes say, so 8-bit pictures are converted to sRGB by Pillow's ImageCms
(LittleCMS), with perceptual intent. A profile counts as sRGB, and changes nothing, where it moves no colour of a grid
by more than `SAME` levels. Deeper pictures keep their values, since ImageCms has only 8 bits.

Lossy codecs that store luma and chroma at different precisions (WebP, AVIF) give back grey as colour that is a few
levels off. Where no channel of such a picture differs from another by more than `TINT` levels, it is grey.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from sfumato.data.sources.protocol import Pixels

SAME = 2
"""Levels by which a profile's colours may differ from sRGB's."""
TINT = 4
"""Levels by which the channels of a grey picture may differ; of AVIF at quality 20 they differ by 3."""
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
_GRID = (0, 16, 32, 64, 96, 128, 160, 192, 224, 255)


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Return a loaded 8-bit image as sRGB, and `converted`, `ignored` or "": what was done about its profile.

    Opacity stays as it is.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, ""
    if image.mode in ("P", "PA", "1", "LA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB" if image.mode == "P" else "L")
    if image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image, "ignored"
    transform = _transform(profile, image.mode)
    if transform is None or isinstance(transform, str):
        return image, transform or ""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    changed: Image.Image = transform.apply(image.convert("RGB") if alpha else image)
    if alpha is not None:
        changed.putalpha(alpha)
    return changed, "converted"


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB; None where it is sRGB, "ignored" where it can't be read."""
    mode = "RGB" if mode == "RGBA" else mode
    try:
        from PIL import ImageCms

        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        if mode == "L":
            probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        else:
            grid = np.stack(np.meshgrid(_GRID, _GRID, _GRID), axis=-1).reshape(1, -1, 3)
            probe = Image.fromarray(grid.astype(np.uint8))
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    except Exception:  # a damaged profile, one of another mode, or a Pillow without LittleCMS
        return "ignored"
    return None if np.abs(moved).max() <= SAME else transform


def without_tint(image: Image.Image, pixels: Pixels) -> Pixels:
    """Return pixels (H, W, 3) of a lossy format as grey, (H, W, 1), where they are grey but for a tint."""
    if image.format not in _LOSSY or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return pixels
    for part in (pixels[:1], pixels):  # most pictures with colour show it in their first row
        r, g, b = (part[..., k] for k in range(3))  # so ten times as quick as along the last axis
        apart = np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b)
        if apart.max() > TINT:
            return pixels
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None] if apart.any() else pixels
