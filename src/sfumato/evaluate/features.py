"""Features: what two sets of images are compared by.

Distances between images as such say little; most measures of sample quality compare distributions of features, and an
`Extractor` is whatever makes them. It takes bytes, so that resizing and scaling, on which published numbers differ by
more than models do (Parmar, Zhang and Zhu 2022, arXiv 2104.11222), belong to it and to its hash. Images of 16 bits and
of floats are rendered in 8 bits for it (`PixelFormat.shown`), except for `pixels`, which takes them as they are.

    pixels             the image itself, area-averaged down to at most 1,024 numbers; always works
    classifier         a small network of our own, for 28x28 clothes and 8x8 digits
    inception:PATH     the Inception-v3 of the Frechet Inception distance, from its published weights
    dinov2:PATH        DINOv2's class token, from its published weights

Numbers of different extractors can't be compared with one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.errors import UserError, nearest

__all__ = ["EXTRACTORS", "Extractor", "Shape", "batches", "check_finite", "extract", "fitting", "open_extractor"]

Shape = tuple[int, int, int]
"""(C, H, W) of an image."""


class Extractor(Protocol):
    """Images in, features out."""

    @property
    def name(self) -> str:
        """What it is called in a table."""

    @property
    def sha256(self) -> str:
        """The hash of its weights and its recipe: equal hashes give equal features."""

    @property
    def dim(self) -> int:
        """How many numbers describe an image."""

    @property
    def recipe(self) -> str:
        """How an image is resized and scaled before the network sees it, in one line."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features, (B, dim) float32, of images (B, C, H, W) uint8.

        An extractor with an attribute `depth` takes values of that depth instead.
        """


def _pixels(path: Path, shape: Shape, device: str, depth: PixelFormat) -> Extractor:
    from sfumato.evaluate.extractors.pixels import Pixels

    return Pixels(shape, depth=depth)


def _classifier(path: Path, shape: Shape, device: str, depth: PixelFormat) -> Extractor:
    from sfumato.evaluate.extractors.classifier import open_classifier

    return open_classifier(shape, device)


def _inception(path: Path, shape: Shape, device: str, depth: PixelFormat) -> Extractor:
    from sfumato.evaluate.extractors.inception import open_inception

    return open_inception(path, device)


def _dinov2(path: Path, shape: Shape, device: str, depth: PixelFormat) -> Extractor:
    from sfumato.evaluate.extractors.dinov2 import open_dinov2

    return open_dinov2(path, device)


EXTRACTORS: dict[str, Callable[[Path, Shape, str, PixelFormat], Extractor]] = {
    "pixels": _pixels,
    "classifier": _classifier,
    "inception": _inception,
    "dinov2": _dinov2,
}
"""Every extractor's opener by name."""

_WEIGHTS = {
    "inception": "pt_inception-2015-12-05-6726825d.pth, as pytorch-fid publishes it",
    "dinov2": "dinov2_vits14_pretrain.pth or a larger one, as DINOv2's authors publish them",
}


def open_extractor(spec: str, shape: Shape, device: str = "cpu", depth: PixelFormat = EIGHT) -> Extractor:
    """Open an extractor by its name.

    Args:
        spec: `pixels`, `classifier`, `inception:PATH` or `dinov2:PATH`.
        shape: (C, H, W) of the images that it will see.
        device: where its network works.
        depth: of the images.

    Raises:
        UserError: no such extractor, no such file, weights of another network, or images that it can't take.
    """
    name, _, path = spec.partition(":")
    if name not in EXTRACTORS:
        raise UserError(f"there is no feature extractor '{name}'{nearest(name, EXTRACTORS)}")
    if name in _WEIGHTS and not path:
        raise UserError(f"'{name}' needs a file of weights: give {name}:PATH ({_WEIGHTS[name]})")
    if path and name not in _WEIGHTS:
        raise UserError(f"'{name}' takes no file of weights: write '{name}' alone")
    return EXTRACTORS[name](Path(path).expanduser(), shape, device, depth)


def fitting(shape: Shape, depth: PixelFormat = EIGHT) -> tuple[str, ...]:
    """Return the names of the extractors that need no file and suit such images, the most telling first."""
    from sfumato.evaluate.extractors.classifier import CLASSIFIERS

    return ("classifier", "pixels") if shape in CLASSIFIERS and depth == EIGHT else ("pixels",)


def batches(images: Any, rows: Tensor | None = None, size: int = 64) -> Iterator[Tensor]:
    """Yield images a batch at a time.

    Args:
        images: (N, C, H, W), an array (perhaps a memory map) or a tensor.
        rows: (M,) int64, which of them and in which order; all when None.
        size: images at a time.
    """
    rows = torch.arange(len(images)) if rows is None else rows
    for part in torch.split(rows, size):
        yield torch.as_tensor(images[part.numpy()])


def extract(
    extractor: Extractor,
    images: Iterable[Tensor],
    on_progress: Callable[[int], None] | None = None,
    depth: PixelFormat = EIGHT,
) -> Tensor:
    """Return the features of images that come in batches.

    Args:
        extractor: makes them.
        images: batches (B, C, H, W), as from `batches` or from `depth.from_model` of what `generate` yields.
        on_progress: called with the number of images done.
        depth: what the images' values are; an extractor that takes bytes sees them rendered in 8 bits.

    Returns:
        (N, dim) float32 on the CPU.

    Raises:
        UserError: no image at all, or features that are not finite.
    """
    parts: list[Tensor] = []
    done = 0
    for batch in images:
        assert batch.dtype == depth.tensor_dtype, f"{depth.words} images are not {batch.dtype}: see depth.from_model"
        seen = batch if getattr(extractor, "depth", EIGHT) == depth else depth.shown(batch)
        parts.append(extractor(seen).float().cpu())
        check_finite(parts[-1], extractor.name, done)
        done += len(batch)
        if on_progress is not None:
            on_progress(done)
    if not done:
        raise UserError("there is no image to take features of: give at least two")
    return torch.cat(parts)


def check_finite(features: Tensor, name: str, first: int = 0) -> None:
    """Refuse features (N, D) with a NaN or an infinity in them.

    Args:
        features: to check.
        name: of the extractor, for the message.
        first: the number of the first image.

    Raises:
        UserError: with the number of the first such image.
    """
    bad = (~features.isfinite().all(1)).nonzero()
    if len(bad):
        raise UserError(
            f"{name} gives features that are not finite for image {first + int(bad[0])} ({len(bad)} of "
            f"{len(features)} in its batch): its weights are damaged or not meant for such images; try 'pixels'"
        )
