"""Features, by which two sets of images are compared.

An `Extractor` computes them from bytes. Resizing and scaling, which change published numbers by more than models do
(Parmar, Zhang and Zhu 2022, arXiv 2104.11222), are part of it and of its hash. Images of 16 bits and of floats are
rendered in 8 bits for it (`PixelFormat.shown`), except for `wavelets` and `pixels`, which take them as they are.

    wavelets           layout on a coarse grid, and the strength of detail at three scales; always works, sees grain
    pixels             the image itself, area-averaged down to at most 1,024 numbers; always works
    classifier         a small network of our own, for 28x28 clothes and 8x8 digits
    inception:PATH     the Inception-v3 of the Frechet Inception distance, from its published weights
    dinov2:PATH        DINOv2's class token, from its published weights

Numbers of different extractors can't be compared with one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.errors import UserError, nearest, similar

Shape = tuple[int, int, int]
"""(C, H, W) of an image."""
CLASSIFIERS: dict[Shape, str] = {(1, 28, 28): "fashion", (1, 8, 8): "digits"}
"""The training set of the classifier for images of a shape."""

EXTRACTORS = {
    "pixels": "",
    "classifier": "",
    "wavelets": "",
    "inception": "pt_inception-2015-12-05-6726825d.pth, as pytorch-fid publishes it",
    "dinov2": "dinov2_vits14_pretrain.pth or a larger one, as DINOv2's authors publish them",
}
"""Every extractor, a file in `extractors/` that defines `open_features`, and the weights that it reads."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """Images in, features out.

    Attributes:
        name: in a table.
        sha256: the hash of its weights and its recipe: equal hashes give equal features.
        dim: how many numbers describe an image.
        recipe: how an image is resized and scaled before the network sees it, in one line.
        features: (B, dim) of images (B, C, H, W), values of the format on the device.
        blind: what it can't see, as a sentence for a table's notes; None where nothing was found that it can't.
    """

    name: str
    sha256: str
    dim: int
    recipe: str
    features: Callable[[Tensor], Tensor]
    format: PixelFormat = EIGHT
    device: str = "cpu"
    blind: str | None = None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, dim) float32 of images (B, C, H, W)."""
        return self.features(images.to(self.device)).float()


def open_extractor(spec: str | None, shape: Shape, device: str = "cpu", format: PixelFormat = EIGHT) -> Extractor:
    """Open `wavelets`, `pixels`, `classifier`, `inception:PATH` or `dinov2:PATH`, or for None the best without a file.
    Raises `UserError` for no such extractor, no such file, weights of another network, or images that it can't take."""
    spec = spec or ("classifier" if shape in CLASSIFIERS and format == EIGHT else "wavelets")
    name, _, path = spec.partition(":")
    if path and EXTRACTORS.get(name) and shape[0] not in (1, 3):
        raise UserError(f"'{name}' takes images of 1 or 3 channels and these have {shape[0]}: use 'pixels'")
    check_extractor(spec)
    module = import_module(f"sfumato.evaluate.extractors.{name}")
    extractor: Extractor = module.open_features(Path(path).expanduser(), shape, device, format)
    return extractor


def check_extractor(spec: str) -> None:
    """Refuse a name that is no extractor's, and a file of weights that is missing, before images are read."""
    name, _, path = spec.partition(":")
    if name not in EXTRACTORS:
        raise UserError(f"there is no feature extractor '{name}'{nearest(name, EXTRACTORS)}")
    if EXTRACTORS[name] and not path:
        raise UserError(f"'{name}' needs a file of weights: give {name}:PATH ({EXTRACTORS[name]})")
    if path and not EXTRACTORS[name]:
        raise UserError(f"'{name}' takes no file of weights: write '{name}' alone")
    if path and not Path(path).expanduser().is_file():
        raise UserError(
            f"there is no file of weights '{path}': give the path of one that you have{similar(path, Path.is_file)}"
        )


def extract(
    extractor: Extractor,
    images: Iterable[Tensor],
    on_progress: Callable[[int], None] | None = None,
    format: PixelFormat = EIGHT,
) -> Tensor:
    """Return the features, (N, dim) float32 on the CPU, of stored values that come in batches (B, C, H, W). An
    extractor of bytes gets other values rendered in 8 bits; `on_progress` takes the number of images done. Raises
    `UserError` for no image at all, and for features that are not finite."""
    parts: list[Tensor] = []
    done = 0
    for batch in images:
        assert batch.dtype == format.tensor_dtype, f"{format.words} images are not {batch.dtype}"
        parts.append(extractor(batch if extractor.format == format else format.shown(batch)).cpu())
        check_finite(parts[-1], extractor.name, done)
        done += len(batch)
        if on_progress is not None:
            on_progress(done)
    if not done:
        raise UserError("there are no images to compare: give at least two")
    return torch.cat(parts)


def check_finite(features: Tensor, name: str, first: int = 0) -> None:
    """Refuse features (N, D) with a NaN or an infinity; the message counts images from `first`."""
    bad = (~features.isfinite().all(1)).nonzero()
    if len(bad):
        raise UserError(
            f"{name} gives features that are not finite for image {first + int(bad[0])} ({len(bad)} of "
            f"{len(features)} in its batch): its weights are damaged or not meant for such images; try 'pixels'"
        )
