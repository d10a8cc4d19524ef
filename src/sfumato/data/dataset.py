"""The training stream and the held-out part: which image is met when, as a function of addresses alone.

Position n of the stream with seed s is place n mod N of epoch n div N, where N images train; each epoch visits all of
them once, in the order `permutation(s, ORDER, N, step=epoch)`, and the image is mirrored where `uniform(s, FLIP, n) <
1/2`, and cut out of a larger picture where `uniform(s, CROP, n)` says. Nothing else is remembered, so batches of any
size, made by any number of processes or after any interruption, are slices of the same stream.

Whether an image is held out depends on its pixels only: the first 52 bits of its SHA-256 as a number u in [0, 1), held
out where u < held_out. So an image stays on its side when others come, go or are renamed, copies are never on both
sides, and two people with the same images have the same split. Where that would hold out nothing and there are at least
`FEWEST_TO_SPLIT` images, those with the smallest u are held out; where it would leave nothing to train on, nothing is
held out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.data import DataConfig
from sfumato.data.labels import Labels, pick, read_labels
from sfumato.data.sources.folder import FolderSource
from sfumato.data.sources.opening import open_source
from sfumato.data.sources.protocol import Pixels, Source
from sfumato.data.store.store import Progress, Stored, cache_folder, open_store
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.noise import Purpose, permutation, uniform
from sfumato.errors import UserError

__all__ = ["Batch", "Dataset", "open_data", "open_source", "split"]

FEWEST_TO_SPLIT = 20
BLOCK = 1024
"""Positions whose mirroring is drawn at once."""
FEW = 1000
"""Below this many training images a model of usual size repeats them rather than invents (Gu et al. 2023, arXiv
2310.02664)."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A slice of the training stream.

    Attributes:
        x: (B, C, H, W), stored values.
        condition: what is known of each image; None for nothing.
        index: (B,) int64, the rows of `Dataset.images`.
    """

    x: Tensor
    condition: Condition | None
    index: Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Checked, decoded images, ready to be gathered.

    Attributes:
        config: how they were asked for.
        source_name: the built-in name, or the absolute path.
        images: (N, C, H, W), values of the depth, mapped from the store.
        vocabulary: what is known of the images, as `config.labels` asks; None for nothing.
        conditions: what is known of each, N rows; None for nothing.
        origins: where each image comes from.
        digests: the SHA-256 of each image's pixels, in hexadecimal.
        train: int64, the rows that train.
        held_out: int64, the other rows.
        quarantined: (origin, reason) of every file left out.
        notes: what was chosen and met, and what follows from it, in plain sentences.
        format: what the values are.
        whole: (N, C, H', W') the larger pictures out of which `images` are cut from the centre, and `batch` at random;
            None where there are none.
    """

    config: DataConfig
    source_name: str
    images: Pixels
    vocabulary: Vocabulary | None
    conditions: Condition | None
    origins: tuple[str, ...]
    digests: tuple[str, ...]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    quarantined: list[tuple[str, str]]
    notes: tuple[str, ...]
    format: PixelFormat = EIGHT
    whole: Pixels | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes that are known of the images; () where something else is."""
        return self.vocabulary.attributes if isinstance(self.vocabulary, AttributeVocabulary) else ()

    @property
    def table(self) -> NDArray[np.float32]:
        """What is known of each image as numbers, (N, A): a column an attribute, NaN where it is not given."""
        if isinstance(self.conditions, Attributes):
            return self.conditions.table.numpy()
        return np.empty((len(self), 0), np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents: shape, attributes, and every image's digest, condition and side of the split."""
        digest = hashlib.sha256(repr((self.images.shape, self.attributes)).encode())
        if self.whole is not None:
            digest.update(repr(self.whole.shape).encode())
        if self.format != EIGHT:  # bytes had fingerprints before there were other depths
            digest.update(repr(self.format).encode())
        digest.update("".join(self.digests).encode("ascii"))
        digest.update(self.table.astype("<f4").tobytes() + self.held_out.astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many images have each value of each attribute; those of a number are counted under "given"."""
        found = {}
        for attribute, column in zip(self.attributes, self.table.T, strict=True):
            given = column[~np.isnan(column)]
            if attribute.values:
                counts = np.bincount(given.astype(np.int64), minlength=len(attribute.values)).tolist()
                found[attribute.name] = dict(zip(attribute.values, counts, strict=True))
            else:
                found[attribute.name] = {"given": len(given)}
        return found

    def batch(self, positions: Tensor, seed: int) -> Batch:
        """Gather positions of the training stream.

        Args:
            positions: (B,) int64 >= 0, in any order; they may straddle epochs.
            seed: the run's seed.

        Returns:
            The images, mirrored where the stream says so, and what is known of them.
        """
        count = len(self.train)
        epochs, places = positions // count, positions % count
        index = torch.empty_like(positions)
        for epoch in set(epochs.tolist()):
            now = epochs == epoch
            index[now] = torch.from_numpy(self.train)[_order(seed, count, epoch)[places[now]]]
        x, condition = self.rows(index)
        if self.whole is not None:
            x = self._cut_out(index, uniform(seed, Purpose.CROP, positions, (2,)))
        if self.config.flip:
            mirrored = _mirrored(seed, positions)
            plain = x.view(torch.int16) if x.dtype == torch.uint16 else x  # torch can't mirror uint16
            plain[mirrored] = plain[mirrored].flip(-1)
        return Batch(x, condition, index)

    def rows(self, index: Tensor) -> tuple[Tensor, Condition | None]:
        """Return images by row, copied.

        Args:
            index: (B,) int64, rows of `images`.

        Returns:
            Stored values (B, C, H, W), and what is known of them.
        """
        known = None if self.conditions is None else self.conditions.take(index)
        return torch.from_numpy(np.array(self.images[index.numpy()])), known

    def _cut_out(self, index: Tensor, u: Tensor) -> Tensor:
        """Cut images out of the larger pictures, where uniform numbers (B, 2) say: every place is equally likely."""
        assert self.whole is not None
        _, height, width = self.shape
        room = torch.tensor(self.whole.shape[2:]) - torch.tensor([height, width])
        corners = (u * (room + 1)).long().tolist()
        rows = zip(index.tolist(), corners, strict=True)
        parts = [self.whole[row, :, top : top + height, left : left + width] for row, (top, left) in rows]
        return torch.from_numpy(np.stack(parts))

    def shown(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return rows of `images` as bytes to look at, (n, C, H, W)."""
        bytes_: NDArray[np.uint8] = self.format.shown(np.asarray(self.images[rows]))
        return bytes_

    def summary(self) -> str:
        """Return a few lines for people: how many of what, the labels, what was left out, the notes."""
        shape, deep = "x".join(map(str, self.shape)), "" if self.format == EIGHT else f", {self.format.words}"
        lines = [
            f"{self.source_name}: {len(self):,} images of {shape} (channels x height x width){deep}, "
            f"{len(self.train):,} to train on and {len(self.held_out):,} held out"
        ]
        for attribute, counts in zip(self.attributes, self.counts.values(), strict=True):
            shown = [f"{name} {count:,}" for name, count in list(counts.items())[:12]]
            more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
            scale = "" if attribute.values else f"a number, mean {attribute.mean:.4g}, deviation {attribute.std:.4g}, "
            lines.append(f"{attribute.name}: {scale}{', '.join(shown)}{more}")
        lines += [f"- {note}" for note in self.notes]
        if self.quarantined:
            lines.append(f"- {len(self.quarantined):,} files left out:")
            lines += [f"    {origin}: {reason}" for origin, reason in self.quarantined[:8]]
            lines += ["    ..."] if len(self.quarantined) > 8 else []
        return "\n".join(lines)


def open_data(
    config: DataConfig,
    cache: Path | None = None,
    on_progress: Progress | None = None,
    source: Source | None = None,
) -> Dataset:
    """Open what a config asks for: find the source, decode it once, split it.

    Args:
        config: which images, and how.
        cache: the folder of decoded stores; None is $SFUMATO_CACHE or the user's cache folder.
        on_progress: called with (pictures done, pictures in all) while images are decoded; not at all when they
            were decoded before.
        source: the pictures themselves, in place of those that `config.source` names: what `from_arrays`,
            `from_dataset` or `from_huggingface` made, or a source of your own.

    Returns:
        The data set.

    Raises:
        UserError: the source doesn't exist or holds fewer than two images, labels are asked for and there are none or
            their file can't be used, or the cache can't be written.
    """
    source = source or open_source(config.source, config.background)
    if isinstance(source, FolderSource):
        _keep_apart(source.folder, cache_folder(cache))
    stored = open_store(source, config, cache, on_progress)
    if len(stored.digests) < 2:
        raise UserError(f"'{source.name}' holds one readable image: a model needs at least 2, and a good one thousands")
    depth, reach_note = _depth(stored, config)
    labels = _labels(stored, config, source.name)
    train, held_out, split_note = split(stored.digests, config.held_out)
    return Dataset(
        config=config,
        source_name=source.name,
        images=_centre(stored.images, stored.size),
        whole=stored.images if stored.images.shape[2:] != stored.size else None,
        vocabulary=AttributeVocabulary(labels.attributes) if labels.attributes else None,
        conditions=Attributes(torch.from_numpy(labels.conditions)) if labels.attributes else None,
        origins=stored.origins,
        digests=stored.digests,
        train=train,
        held_out=held_out,
        quarantined=stored.quarantined,
        notes=(*stored.notes, *labels.notes, *_warnings(stored, len(train)), *filter(None, (split_note, reach_note))),
        format=depth,
    )


def split(digests: Sequence[str], held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64], str | None]:
    """Divide images into those that train and those held out, by content.

    Args:
        digests: the SHA-256 of each image, in hexadecimal.
        held_out: the share to hold out, in [0, 1).

    Returns:
        The rows that train, the rows held out, both ascending, and a sentence where the share could not be kept.
    """
    u = np.array([int(digest[:13], 16) / 2**52 for digest in digests])
    out, note = u < held_out, None
    if held_out > 0 and not out.any():
        if len(u) < FEWEST_TO_SPLIT:
            note = f"nothing is held out: fewer than {FEWEST_TO_SPLIT} images"
        else:
            out = u == u.min()
            note = f"the share {held_out:g} holds out no image; the one with the smallest hash was taken"
    if out.all():
        out, note = np.zeros_like(out), "nothing is held out: it would leave nothing to train on"
    return np.flatnonzero(~out).astype(np.int64), np.flatnonzero(out).astype(np.int64), note


def _centre(images: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle of pictures (N, C, H, W), a view."""
    top, left = ((own - wanted) // 2 for own, wanted in zip(images.shape[2:], size, strict=True))
    return images[:, :, top : top + size[0], left : left + size[1]]


def _depth(stored: Stored, config: DataConfig) -> tuple[PixelFormat, str | None]:
    """What the values are, in the range that the configuration gives, and a sentence where it doesn't hold them all.

    Raises:
        UserError: a range for what is not floats.
    """
    found = stored.depth
    if config.range is None:
        return found, None
    if found.levels is not None:
        raise UserError(
            f"data.range is of floats, and the images are {found.words}: set data.depth=float, or leave it out"
        )
    depth = PixelFormat("float", *config.range)
    if found.low >= depth.low and found.high <= depth.high:
        return depth, None
    return depth, f"values reach from {found.low:.5g} to {found.high:.5g}, beyond data.range: clipped samples do not"


def _labels(stored: Stored, config: DataConfig, name: str) -> Labels:
    """What the configuration wants to be known of the images."""
    own = Labels(stored.attributes, stored.conditions)
    if config.labels == "none":
        known = ", ".join(attribute.name for attribute in own.attributes[:6]) + ", ..." * (len(own.attributes) > 6)
        note = f"what is known of them ({known}) is not used; data.labels=source trains with it"
        return Labels((), own.conditions[:, :0], (note,) if own.attributes else ())
    if config.labels != "source":
        return read_labels(Path(config.labels).expanduser(), stored.origins, config.attributes)
    if not own.attributes:
        raise UserError(
            f"data.labels is source, but '{name}' carries no labels: put images in one sub-folder a class, or name a "
            "CSV or JSON Lines file"
        )
    return pick(own, config.attributes, name)


def _mirrored(seed: int, positions: Tensor) -> Tensor:
    """Which positions are mirrored, (B,) bool: those where the stream's own number is below a half."""
    blocks = positions // BLOCK
    found = torch.empty(positions.shape, dtype=torch.bool)
    for block in set(blocks.tolist()):
        now = blocks == block
        found[now] = _mirrored_block(seed, block)[positions[now] - block * BLOCK]
    return found


@lru_cache(maxsize=4)
def _mirrored_block(seed: int, block: int) -> Tensor:
    """Which positions of a block are mirrored; kept, since drawing sixteen numbers costs as much as a thousand."""
    return uniform(seed, Purpose.FLIP, torch.arange(block * BLOCK, (block + 1) * BLOCK), ()) < 0.5


@lru_cache(maxsize=4)
def _order(seed: int, count: int, epoch: int) -> Tensor:
    """The order of an epoch: place -> number of the training image; kept, since every batch of the epoch asks."""
    return permutation(seed, Purpose.ORDER, count, step=epoch)


def _warnings(stored: Stored, num_train: int) -> list[str]:
    """What the images let expect: copies and too few of them."""
    notes = []
    most, copies = Counter(stored.digests).most_common(1)[0][1], len(stored.digests) - len(set(stored.digests))
    if most == len(stored.digests):
        notes.append("all images are identical")
    elif copies:
        notes.append(f"{copies:,} images are exact copies of others; all copies are on one side of the split")
    if num_train < FEW:
        notes.append(f"only {num_train:,} training images: expect a model to repeat them rather than invent new ones")
    return notes


def _keep_apart(folder: Path, cache: Path) -> None:
    """Refuse a cache that the next listing of the folder would meet."""
    cache = cache.resolve()
    if cache.is_relative_to(folder) and not any(part.startswith(".") for part in cache.relative_to(folder).parts):
        raise UserError(f"the image cache '{cache}' lies inside the images' folder: set SFUMATO_CACHE to another place")
