"""The training stream and the held-out set: the order of images is a function of random keys alone.

Position n of the stream with seed s is index n mod N of epoch n div N, where N images train. Each epoch visits all of
them once, in the order `permutation(s, ORDER, N, step=epoch)`; `augment` says how an image is cut out and mirrored
there. There is no other state, so batches of any size, made by any number of processes or after any interruption,
are slices of the same stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from sfumato.data.augment import cut_out, mirror
from sfumato.data.findings import Finding, findings, too_large
from sfumato.data.label_files import check_labels, label_file, read_labels, unlabelled, with_tables
from sfumato.data.labels import pick
from sfumato.data.sources.builtin import BUILTIN
from sfumato.data.sources.opening import open_source
from sfumato.data.sources.protocol import Labels, Pixels, Source, folder_of, layout_of, printable
from sfumato.data.split import split, split_as, trained, warnings
from sfumato.data.store.build import Progress
from sfumato.data.store.format import Stored, row_digest
from sfumato.data.store.open import cache_folder, open_store
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.noise import Purpose, permutation
from sfumato.errors import UserError, plural

MOST_ATTRIBUTES = 256
"""Each is a part of the network, and takes time to build."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A slice of the training stream.

    Attributes:
        x: (B, C, H, W), stored values.
        condition: of each image; None where there are none.
        index: (B,) int64, the rows of `Dataset.images`.
    """

    x: Tensor
    condition: Condition | None
    index: Tensor

    def __repr__(self) -> str:
        labelled = "" if self.condition is None else ", labelled"
        return f"Batch({len(self.x)} of {'x'.join(map(str, self.x.shape[1:]))}{labelled})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Checked, decoded images.

    Attributes:
        config: the configuration that they were opened with.
        source_name: the built-in name, or the absolute path.
        images: (N, C, H, W), stored values, mapped from the store.
        vocabulary: of the conditions, as `config.labels` chooses; None where there are none.
        conditions: N rows, one an image; None where there are none.
        origins: where each image comes from.
        digests: the SHA-256 of each image's pixels, in hexadecimal.
        train: int64, the rows that train.
        held_out: int64, the other rows.
        skipped: (origin, reason) of every file that could not be used.
        notes: choices, findings and warnings, in sentences.
        format: of the stored values.
        whole: (N, C, H', W') the larger pictures out of which `images` are cut from the centre, and `batch` at random;
            None where there are none.
        findings: what is probably wrong with the values; also among the notes.
        captions: a text for each image, empty where it has none; None where no image has one. Nothing trains on them.
        offered: the source's own labels, used or not.
    """

    config: DataConfig
    source_name: str
    images: Pixels
    vocabulary: Vocabulary | None
    conditions: Condition | None
    origins: Sequence[str]
    digests: Sequence[str]
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    skipped: list[tuple[str, str]]
    notes: tuple[str, ...]
    format: PixelFormat = EIGHT
    whole: Pixels | None = None
    captions: tuple[str, ...] | None = None
    findings: tuple[Finding, ...] = ()
    offered: Labels | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        labels = "".join(f", {attribute.name}" for attribute in self.attributes)
        size = "x".join(map(str, self.shape))
        return f"<Dataset {self.source_name}: {len(self.train)} + {len(self.held_out)} images of {size}{labels}>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the images; () where the vocabulary is of another kind."""
        return getattr(self.vocabulary, "attributes", ())

    @property
    def table(self) -> NDArray[np.float32]:
        """The attributes of each image as numbers, (N, A), NaN where one is not given."""
        if not self.attributes:
            return np.empty((len(self), 0), np.float32)
        assert isinstance(self.conditions, Attributes)
        return self.conditions.table.numpy()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents: shape, attributes, and every image's digest, condition and side of the split."""
        digest = hashlib.sha256(repr((self.images.shape, self.attributes)).encode())
        if self.whole is not None:
            digest.update(repr(self.whole.shape).encode())
        if self.format != EIGHT:  # in the format of the first version, so that its runs resume
            own = self.format
            digest.update(f"Depth(kind={own.kind!r}, low={own.low!r}, high={own.high!r})".encode())
        if self.vocabulary is not None and not self.attributes:
            rows = self.vocabulary.describe(self.conditions)
            digest.update(json.dumps([self.vocabulary.plain(), rows], sort_keys=True).encode())
        for each in self.digests:
            digest.update(each.encode("ascii"))
        digest.update(self.table.astype("<f4").tobytes() + self.held_out.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def unlabelled(self) -> str:
        """The fingerprint of the images without their labels: the same for the same images with other labels."""
        return replace(self, vocabulary=None, conditions=None).fingerprint

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many images have each value of each attribute; those of a number are counted under "given"."""
        counts = {}
        for attribute, column in zip(self.attributes, self.table.T, strict=True):
            indices = column[~np.isnan(column)].astype(np.int64)
            each = (
                np.bincount(indices, minlength=len(attribute.values)).tolist() if attribute.values else [len(indices)]
            )
            counts[attribute.name] = dict(zip(attribute.values or ("given",), each, strict=True))
        return counts

    def batch(self, positions: Tensor, seed: int) -> Batch:
        """Return positions of the training stream.

        Args:
            positions: (B,) int64 >= 0, in any order; they may straddle epochs.
            seed: the run's seed.
        """
        count = len(self.train)
        epochs, within = positions // count, positions % count
        index = torch.empty_like(positions)
        for epoch in set(epochs.tolist()):
            here = epochs == epoch
            index[here] = torch.from_numpy(self.train)[_order(seed, count, epoch)[within[here]]]
        x, condition = self.rows(index)
        if self.whole is not None:
            x = torch.from_numpy(cut_out(self.whole, self.shape[1:], index.numpy(), seed, positions))
        if self.config.flip:
            mirror(x, seed, positions)
        return Batch(x, condition, index)

    def rows(self, index: Tensor) -> tuple[Tensor, Condition | None]:
        """Return images by row: stored values (B, C, H, W), copied, and their conditions.

        Args:
            index: (B,) int64, rows of `images`.

        Raises:
            UserError: the pixels of a row are no longer those that were stored.
        """
        self._verify(index.numpy())
        condition = None if self.conditions is None else self.conditions.take(index)
        return torch.from_numpy(np.array(self.images[index.numpy()])), condition

    @cached_property
    def _verified(self) -> NDArray[np.bool_]:
        """Which rows were compared with their digests."""
        return np.zeros(len(self), bool)

    def _verify(self, rows: NDArray[np.int64]) -> None:
        """Compare rows of a store on the disk with their digests, each when it is first met."""
        stored = self.images if self.whole is None else self.whole
        if isinstance(stored, np.memmap):
            for row in rows[~self._verified[rows]].tolist():
                if row_digest(stored[row].tobytes(), stored.shape[1]) != self.digests[row]:
                    raise UserError(
                        f"{stored.filename} is damaged, at the pixels of '{self.origins[row]}': delete this file, and "
                        "the images are decoded again"
                    )
                self._verified[row] = True

    def shown(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return rows of `images` as bytes to look at, (n, C, H, W)."""
        bytes_: NDArray[np.uint8] = self.format.shown(np.asarray(self.images[rows]))
        return bytes_

    def summary(self, names: int = 8) -> str:
        """Return a few lines for people: counts, labels, notes, the names of the first skipped files."""
        shape, deep = "x".join(map(str, self.shape)), "" if self.format == EIGHT else f", {self.format.words}"
        lines = [
            f"{self.source_name}: {plural(len(self), 'image')} of {shape} (channels x height x width){deep}, "
            f"{len(self.train):,} to train on and {len(self.held_out):,} held out"
        ]
        for attribute, counts in zip(self.attributes, self.counts.values(), strict=True):
            shown = [f"{name} {count:,}" for name, count in list(counts.items())[:12]]
            more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
            scale = "" if attribute.values else f"a number, mean {attribute.mean:.4g}, deviation {attribute.std:.4g}, "
            lines.append(f"{attribute.name}: {scale}{', '.join(shown)}{more}")
        if self.captions is not None:
            lines.append(f"{plural(sum(map(bool, self.captions)), 'image', 'have')} captions")
        lines += [f"- {note}" for note in self.notes]
        if self.skipped:
            lines.append(f"- {plural(len(self.skipped), 'file')} skipped{':' if names else ''}")
            lines += [f"    {origin}: {reason}" for origin, reason in self.skipped[:names]]
            lines += ["    ..."] if len(self.skipped) > names > 0 else []
        return "\n".join(lines)


def open_data(
    config: DataConfig, cache: Path | None = None, on_progress: Progress | None = None, source: Source | None = None
) -> Dataset:
    """Open the images of a configuration: find the source, decode it once, split it.

    Args:
        config: the images and their size, depth, labels, ...
        cache: the folder of decoded stores; None is $SFUMATO_CACHE or the user's cache folder.
        on_progress: called with (pictures done, pictures in all) while images are decoded.
        source: the pictures themselves, in place of those that `config.source` names: what `from_arrays`,
            `from_dataset` or `from_huggingface` made, or a source of your own.

    Raises:
        UserError: the source doesn't exist or holds fewer than two images, labels are requested but missing or
            unreadable, or the cache can't be written.
    """
    source = source or open_source(config.source)
    if (folder := folder_of(source)) is not None:
        _keep_apart(folder, cache_folder(cache))
    check_labels(config.labels, source)  # before all pictures are decoded
    stored = open_store(source, config, cache, on_progress)
    if len(stored.digests) < 2:
        raise UserError(
            f"'{source.name}' holds only one readable image: training needs at least 2, and a good model thousands"
        )
    format, range_note = _format(stored, config)
    offered, labels = _labels(stored, config, source)
    train, held_out, split_note = _split(stored, config, source)
    labels = trained(labels, train)
    conditions = torch.from_numpy(labels.conditions)
    found = findings(stored.values, format, stored.mixed)
    flip = "each training image is mirrored with probability 1/2 (data.flip=false does not)" if config.flip else None
    if len(labels.attributes) > MOST_ATTRIBUTES:
        raise UserError(
            f"the labels have {len(labels.attributes):,} attributes, and at most {MOST_ATTRIBUTES} can be used: name "
            "them with data.attributes"
        )
    own_notes = (*warnings(stored.digests, len(train)), split_note, range_note, flip)
    local = Path(config.source).is_dir() and config.source in BUILTIN
    same = f"'{config.source}' is the built-in data set, and not the folder here: that is ./{config.source}"
    notes = (*([same] if local else []), *stored.notes, *labels.notes, *own_notes, *(finding.text for finding in found))
    return Dataset(
        config=config,
        source_name=source.name,
        images=_centre(stored.images, stored.size),
        whole=stored.images if stored.images.shape[2:] != stored.size else None,
        vocabulary=AttributeVocabulary.of(labels.attributes, conditions[train]) if labels.attributes else None,
        conditions=Attributes(conditions) if labels.attributes else None,
        origins=stored.origins,
        digests=stored.digests,
        train=train,
        held_out=held_out,
        skipped=stored.skipped,
        notes=tuple(filter(None, notes)),
        format=format,
        captions=None if labels.captions is None else tuple(caption or "" for caption in labels.captions),
        findings=tuple(found),
        offered=offered,
    )


def _centre(images: Pixels, size: tuple[int, int]) -> Pixels:
    """The middle of pictures (N, C, H, W), a view."""
    top, left = ((own - wanted) // 2 for own, wanted in zip(images.shape[2:], size, strict=True))
    return images[:, :, top : top + size[0], left : left + size[1]]


def _format(stored: Stored, config: DataConfig) -> tuple[PixelFormat, str | None]:
    """What the values are, in the range that the configuration gives, and a sentence where it doesn't hold them all."""
    own = stored.format
    if config.range is None:
        if (reason := too_large(own)) is not None:
            raise UserError(reason)
        return own, None
    format = PixelFormat("float", *config.range)
    if config.clamp or (own.low >= format.low and own.high <= format.high):
        return format, None
    return (
        format,
        f"values reach from {own.low:.5g} to {own.high:.5g}, beyond data.range, and are not clamped (data.clamp=true "
        "clamps them); clipped samples don't leave the range",
    )


def _split(
    stored: Stored, config: DataConfig, source: Source
) -> tuple[NDArray[np.int64], NDArray[np.int64], str | None]:
    """The rows that train and those held out, as the source's own parts say or by content, and a sentence about it."""
    layout = layout_of(source)
    if layout.held_out is None:
        return split(stored.digests, config.held_out)
    if not config.held_out:
        return *split(stored.digests, 0.0)[:2], f"{layout.where} are trained on too, since data.held_out is 0"
    held_out = {source.origin(i) for i in np.flatnonzero(layout.held_out).tolist()}
    return split_as(stored.digests, np.array([origin in held_out for origin in stored.origins]), layout.where)


def _labels(stored: Stored, config: DataConfig, source: Source) -> tuple[Labels, Labels]:
    """The labels that the source offers, and those that the configuration chooses."""
    own, tables = stored.labels, layout_of(source).tables
    if config.labels not in ("none", "source"):
        labels = _from_file(config.labels, stored, config, source)
        return own, labels if labels.captions else replace(labels, captions=own.captions)
    try:
        own = with_tables(own, tables, stored.origins)
    except UserError as error:
        if config.labels == "source":
            raise
        own = replace(own, notes=(str(error),))
    if config.labels == "none":
        names = ", ".join(attribute.name for attribute in own.attributes[:6]) + ", ..." * (len(own.attributes) > 6)
        files = f", some in {', '.join(table.origin for table in tables[:3])}" if tables else ""
        note = f"the source's labels ({names}{files}) are not used; data.labels=source trains with them"
        notes = (note,) if own.attributes else own.notes
        return own, Labels((), own.conditions[:, :0], notes, own.captions)
    if not own.attributes:
        raise unlabelled(source)
    return own, pick(own, config.attributes, source.name)


def _from_file(name: str, stored: Stored, config: DataConfig, source: Source) -> Labels:
    """The labels of a file, on the disk or in the source."""
    file = label_file(name, source)
    inside = [table for table in layout_of(source).tables if table.origin == printable(name)]
    if inside and not file.is_file():
        return pick(with_tables(Labels.none(len(stored.origins)), inside, stored.origins), config.attributes, name)
    return read_labels(file, stored.origins, config.attributes)  # which says what is wrong with it


@lru_cache(maxsize=4)
def _order(seed: int, count: int, epoch: int) -> Tensor:
    """The training images of an epoch in order; cached, since every batch of the epoch needs it."""
    return permutation(seed, Purpose.ORDER, count, step=epoch)


def _keep_apart(folder: Path, cache: Path) -> None:
    """Refuse a cache inside the folder of images, which the next listing would include."""
    cache = cache.resolve()
    if cache.is_relative_to(folder) and not any(part.startswith(".") for part in cache.relative_to(folder).parts):
        raise UserError(
            f"the image cache '{cache}' lies inside the images' folder: set SFUMATO_CACHE to a folder outside it"
        )
