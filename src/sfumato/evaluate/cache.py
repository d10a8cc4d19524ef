"""Features of real images, computed once.

    CACHE/features/FINGERPRINT-EXTRACTOR-SPLIT.safetensors      features (N, D) float32

FINGERPRINT is of the data's contents, EXTRACTOR the hash of the weights and of the recipe, 20 digits each; the header
has both in full, and the SHA-256 of the tensor. CACHE is the same as for decoded images. A split's rows are taken in
one random order, always the same, so a file with more rows serves for fewer, and one with fewer is continued. A damaged
file is computed again, and where the cache can't be written, features are not kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.data.store.open import cache_folder
from sfumato.diffusion.noise import Purpose, permutation
from sfumato.errors import UserError, nearest
from sfumato.evaluate.features import Extractor, check_finite, extract
from sfumato.files import write_atomic

LOG = logging.getLogger("sfumato")
SPLITS = ("train", "held_out")


def derived_seed(use: str, size: int = 8) -> int:
    """Return the first bytes of SHA-256(use) as a seed, so that measurements and samples have different random
    numbers."""
    return int.from_bytes(hashlib.sha256(use.encode()).digest()[:size], "big")


def split_rows(data: Dataset, split: str = "train") -> Tensor:
    """Return the rows of a split in the order of measurements; `UserError` where there are none."""
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}'{nearest(split, SPLITS)}")
    rows = torch.from_numpy(data.train if split == "train" else data.held_out)
    if not len(rows):
        raise UserError(f"the split '{split}' of {data.source_name} is empty: hold images out with data.held_out=0.05")
    return rows[permutation(derived_seed(f"evaluate rows of {split} 0"), Purpose.ORDER, len(rows))]


def check_shape(data: Dataset, generated: Tensor) -> None:
    """Refuse generated images (N, C, H, W) that are not of the data's shape."""
    assert generated.dtype == data.format.tensor_dtype, f"{data.format.words}, not {generated.dtype}"
    ours, theirs = ("x".join(map(str, shape)) for shape in (generated.shape[1:], data.shape))
    if ours != theirs:
        raise UserError(
            f"the generated images are {ours} and those of {data.source_name} {theirs}: compare a model with the data "
            "that it was trained on"
        )


def cache_path(data: Dataset, extractor: Extractor, split: str, cache: Path | None = None) -> Path:
    """Return the file that holds the features of a split."""
    name = f"{data.fingerprint[:20]}-{extractor.sha256[:20]}-{split}.safetensors"
    return cache_folder(cache) / "features" / name


def real_features(
    data: Dataset,
    extractor: Extractor,
    split: str = "train",
    num: int | None = None,
    cache: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return features (N, D) of `split_rows(data, split)[:num]`, from the cache where possible; `on_progress` is called
    with the number of images newly done. Raises `UserError` for an empty split and features that are not finite."""
    rows = split_rows(data, split)[:num]
    path = cache_path(data, extractor, split, cache)
    facts = {"data": data.fingerprint, "extractor": extractor.sha256, "split": split}
    features = _load(path, facts, extractor.dim)
    if len(features) >= len(rows):
        return features[: len(rows)]
    missing = (torch.as_tensor(data.images[part.numpy()]) for part in torch.split(rows[len(features) :], 64))
    features = torch.cat((features, extract(extractor, missing, on_progress, data.format)))
    try:
        write_atomic(path, safetensors.torch.save({"features": features}, {**facts, "sha256": _digest(features)}))
    except OSError as error:
        LOG.warning("features of real images are not kept: %s can't be written (%s)", path.parent, error.strerror)
    return features


def _load(path: Path, facts: dict[str, str], dim: int) -> Tensor:
    """The features in a file; empty where the file is missing, damaged or of other data."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header, features = file.metadata(), file.get_tensor("features")
        check_finite(features, "the cache")
    except (OSError, ValueError, IndexError, safetensors.SafetensorError):
        return torch.zeros(0, dim)
    right = features.ndim == 2 and features.shape[1] == dim and header == {**facts, "sha256": _digest(features)}
    return features if right else torch.zeros(0, dim)


def _digest(features: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(features.contiguous().numpy().data).hexdigest()
