"""Editing images with a trained model, without further training.

    inpaint        repaint a part; the rest stays exactly as it is
    vary           noise an image a little and denoise it again
    interpolate    the images between two
    invert         the noise that an image is made from
    colorize, upscale, deblur, restore      images that explain a measurement

Each is a function of a `Model` and an image, pixels (C, H, W) from -1 to 1, and returns a frozen value: the images, and
figures about them. All take the keywords of `Options`: recipe, condition, seed, batch. `read_image` reads files as
training does.
"""

from sfumato.edit.image import read_box, read_image, read_mask, read_transparency
from sfumato.edit.inpaint import INPAINTERS, inpaint
from sfumato.edit.invert import decode, encode, interpolate, invert, slerp
from sfumato.edit.restore import POSTERIORS, colorize, deblur, restore, upscale
from sfumato.edit.sampling import Options, rmse
from sfumato.edit.vary import vary

__all__ = [
    "INPAINTERS", "POSTERIORS", "Options", "colorize", "deblur", "decode", "encode", "inpaint", "interpolate", "invert",
    "read_box", "read_image", "read_mask", "read_transparency", "restore", "rmse", "slerp", "upscale", "vary",
]  # fmt: skip
