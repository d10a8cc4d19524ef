"""Editing with one's own model: no training, any model, from images in [-1, 1] to images in [-1, 1].

    inpaint        paint a part anew; the rest stays exactly as it is
    vary           noise an image a little and denoise it again
    interpolate    the way between two images
    invert         the noise that an image is drawn from
    colorize, upscale, deblur, restore      images that explain a measurement

Each is a function of a `Model`, an image and a seed, and returns a small frozen value: the images, and what there is to
report. All take a `Walk`: sampler, times, guidance, batch. `image` reads files as training did.
"""

from sfumato.edit.image import Fitted, read_box, read_image, read_mask, read_transparency
from sfumato.edit.inpaint import INPAINTERS, Inpainted, inpaint
from sfumato.edit.interpolate import Interpolated, interpolate, slerp
from sfumato.edit.invert import Inverted, decode, encode, invert
from sfumato.edit.restore import POSTERIORS, ROUNDING, Restored, blur, check_factor, colorize, deblur, restore, upscale
from sfumato.edit.vary import Varied, vary
from sfumato.edit.walk import Walk, psnr, rmse

__all__ = [
    "INPAINTERS",
    "POSTERIORS",
    "ROUNDING",
    "Fitted",
    "Inpainted",
    "Interpolated",
    "Inverted",
    "Restored",
    "Varied",
    "Walk",
    "blur",
    "check_factor",
    "colorize",
    "deblur",
    "decode",
    "encode",
    "inpaint",
    "interpolate",
    "invert",
    "psnr",
    "read_box",
    "read_image",
    "read_mask",
    "read_transparency",
    "restore",
    "rmse",
    "slerp",
    "upscale",
    "vary",
]
