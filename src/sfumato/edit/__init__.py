"""Editing with one's own model: no training, any model, from images to images.

    inpaint        paint a part anew; the rest stays exactly as it is
    vary           noise an image a little and denoise it again
    interpolate    the images between two
    invert         the noise that an image is made from
    colorize, upscale, deblur, restore      images that explain a measurement

Each is a function of a `Model` and an image, pixels (C, H, W) from -1 to 1, and returns a small frozen value: the
images, and what there is to report. All take the keywords of `Options`: recipe, condition, seed, batch. `read_image`
reads files as training does.
"""

from sfumato.edit.image import Fitted, read_box, read_image, read_mask, read_transparency
from sfumato.edit.inpaint import INPAINTERS, Inpainted, inpaint
from sfumato.edit.interpolate import Interpolated, interpolate, slerp
from sfumato.edit.invert import Inverted, decode, deterministic, encode, invert
from sfumato.edit.restore import (
    POSTERIORS,
    Restored,
    blur,
    colorize,
    deblur,
    degraded,
    downscale,
    enlarged,
    luma,
    restore,
    rounding,
    upscale,
)
from sfumato.edit.sampling import STOCHASTIC, Options, psnr, rmse
from sfumato.edit.vary import Varied, vary

__all__ = [
    "INPAINTERS",
    "POSTERIORS",
    "STOCHASTIC",
    "Fitted",
    "Inpainted",
    "Interpolated",
    "Inverted",
    "Options",
    "Restored",
    "Varied",
    "blur",
    "colorize",
    "deblur",
    "decode",
    "degraded",
    "deterministic",
    "downscale",
    "encode",
    "enlarged",
    "inpaint",
    "interpolate",
    "invert",
    "luma",
    "psnr",
    "read_box",
    "read_image",
    "read_mask",
    "read_transparency",
    "restore",
    "rmse",
    "rounding",
    "slerp",
    "upscale",
    "vary",
]
