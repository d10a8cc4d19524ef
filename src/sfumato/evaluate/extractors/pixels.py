"""The image as its own feature: no network, so it works for any data and its distances can be checked by hand.

Distances between distributions need the features' covariance, so an image of more than 1,024 numbers is averaged over
the smallest square blocks that bring it below. This keeps layout and colour, not texture.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.evaluate.extractors.weights import fingerprint
from sfumato.evaluate.features import Extractor, Shape

LARGEST = 1024
"""The most numbers that describe an image."""


def open_features(path: Path, shape: Shape, device: str = "cpu", format: PixelFormat = EIGHT) -> Extractor:
    """Return images of a shape as vectors in [-1, 1]; no file is read.

    A block that reaches over the edge is the mean of the pixels that are there.
    """
    channels, height, width = shape
    block = 1
    while channels * -(-height // block) * -(-width // block) > LARGEST:
        block += 1
    mean = f"means of {block}x{block} blocks" if block > 1 else "as they are"
    words = "" if format == EIGHT else f" ({format.words})"
    recipe = f"{channels}x{height}x{width} pixels{words} in [-1, 1], {mean}"
    return Extractor(
        name="pixels",
        sha256=fingerprint(recipe),
        dim=channels * -(-height // block) * -(-width // block),
        recipe=recipe,
        features=lambda images: F.avg_pool2d(format.to_model(images), block, ceil_mode=True).flatten(1),
        format=format,
        blind=None if block == 1 else f"means of {block}x{block} blocks: noise and detail finer than that are not seen",
    )
