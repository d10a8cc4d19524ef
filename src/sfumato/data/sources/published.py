"""Data sets in their published formats: CelebA, CIFAR-10 and CIFAR-100, and MNIST's idx files.

**CelebA** (Liu et al. 2015, "Deep Learning Face Attributes in the Wild"), pictures and lists:

    img_align_celeba/000001.jpg ...        beside it, or in `Anno` and `Eval`:
    list_attr_celeba.txt                   40 attributes, yes or no (`labels` reads it)
    list_eval_partition.txt                a line a picture: 0 to train, 1 to validate, 2 to test

Kaggle's copy has the lists as .csv and the pictures one folder deeper. Where the second list is there, the pictures to
validate and to test on are held out.

**CIFAR** (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"):

    binary     data_batch_1.bin ... test_batch.bin, batches.meta.txt      a record: label, 3072 bytes
               train.bin, test.bin, fine_label_names.txt, coarse_...      a record: coarse label, fine label, 3072 bytes
    "python"   data_batch_1 ... test_batch, batches.meta; train, test, meta: pickles, read without running them

The 3072 bytes are (3, 32, 32). A folder is its training images; a binary file given by path is that file. Labels are
the attribute `class`, in CIFAR-100 the fine label, and `superclass` the coarse one.

**idx** (LeCun, Cortes and Burges, "The MNIST database of handwritten digits"), plain arrays, perhaps gzipped:

    byte 0, 1: zero;  byte 2: type, 0x08 = uint8;  byte 3: number of dimensions n;  n big-endian uint32 sizes;  the data

A folder holds pairs such as `train-images-idx3-ubyte.gz` (N, H, W) and `train-labels-idx1-ubyte.gz` (N,).
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.data.formats.plain_pickle import read_guarded
from sfumato.data.label_files import read_labels
from sfumato.data.sources.arrays import Arrays, ArraySource
from sfumato.data.sources.files import FileSource, folder_source, hashed, state_of
from sfumato.data.sources.protocol import Labels, Layout, Pixels, printable
from sfumato.errors import UserError

# CelebA


def find_celeba(folder: Path) -> tuple[Path, Path, Path | None] | None:
    """Return a folder's pictures, list of attributes and list of parts (None where it has none), if it is CelebA's."""
    places = [folder, folder / "Anno", folder / "Eval"]
    names = ("list_attr_celeba", "list_eval_partition")
    lists, parts = (_there(places, f"{name}.txt", f"{name}.csv") for name in names)
    pictures = folder / "img_align_celeba"
    pictures = pictures / pictures.name if (pictures / pictures.name).is_dir() else pictures
    return (pictures, lists[0], parts[0] if parts else None) if lists and pictures.is_dir() else None


def celeba_source(folder: Path, attributes: Path, partition: Path | None) -> FileSource:
    """Return a source of CelebA's pictures and attributes, in the files that `find_celeba` found; raises `UserError`
    where the pictures can't be listed, or no picture trains."""
    parts = {} if partition is None else _parts(partition)
    faces = folder_source(folder, parts if partition else None)
    names = [faces.origin(i) for i in range(len(faces))]
    held_out = np.array([parts.get(name) != "0" for name in names], bool)
    if partition is not None and held_out.all():
        raise UserError(f"'{printable(str(partition))}' names none of the pictures in '{faces.name}' to train on")
    layout = Layout(held_out, f"parts 1 and 2 of {partition.name}") if partition is not None else None
    key = hashed(f"{faces.key()}; {state_of([attributes])}")
    labels = lambda: read_labels(attributes, names)  # noqa: E731
    return FileSource(faces.name, len(faces), faces.origin, faces.file, key, labels, faces.folder, layout=layout)


def _parts(partition: Path) -> dict[str, str]:
    """The part of each picture in a list, "0" to train."""
    try:
        lines = [re.split(r"[\s,]+", line.strip()) for line in partition.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{printable(str(partition))}' can't be read: {error}") from None
    return {line[0]: line[1] for line in lines if len(line) == 2 and line[1] in ("0", "1", "2")}


def _there(folders: Sequence[Path], *names: str) -> list[Path]:
    """The files of these names in the folders."""
    return [folder / name for folder in folders for name in names if (folder / name).is_file()]


# CIFAR

_BATCH = re.compile(r"(data_batch_\d+|test_batch|train|test)\.bin")
_PIXELS = 3 * 32 * 32
_NAMES = {  # the attribute: its names in the binary version, in the pickles, and of its labels in the pickles
    10: {"class": ("batches.meta.txt", "label_names", "labels")},
    100: {
        "superclass": ("coarse_label_names.txt", "coarse_label_names", "coarse_labels"),
        "class": ("fine_label_names.txt", "fine_label_names", "fine_labels"),
    },
}


def find_cifar(path: Path) -> list[Path]:
    """Return the files of a path that is CIFAR's: a folder's training batches, or a binary batch; else none."""
    if path.is_file():
        return [path] if _BATCH.fullmatch(path.name) else []
    ten = [f"data_batch_{k}" for k in range(1, 10)]
    batches = _there([path], *(f"{name}.bin" for name in ten)) or _there([path], "train.bin")
    if not batches and _there([path], "batches.meta"):
        batches = _there([path], *ten)
    if not batches and len(_there([path], "meta", "train", "test")) == 3:
        batches = [path / "train"]
    return batches


def cifar_source(path: Path, batches: Sequence[Path]) -> ArraySource:
    """Return a source of the images in the batches that `find_cifar` found at a path."""
    folder = path if path.is_dir() else path.parent
    classes = 100 if batches[0].name.removesuffix(".bin") in ("train", "test") else 10
    load = _binary if batches[0].suffix == ".bin" else _pickled
    return ArraySource(printable(str(path.resolve())), state_of(batches), lambda: load(folder, batches, classes))


def _binary(folder: Path, batches: Sequence[Path], classes: int) -> Arrays:
    files = {key: folder / names[0] for key, names in _NAMES[classes].items()}
    length, sizes = _PIXELS + len(files), [batch.stat().st_size for batch in batches]
    data, end = np.empty(sum(sizes), np.uint8), 0
    for batch, size in zip(batches, sizes, strict=True):
        begin, end = end, end + size
        with batch.open("rb") as file:
            if not size or size % length or file.readinto(data[begin:end].data) < size:
                shown = printable(str(batch))
                raise UserError(f"'{shown}' is not a batch of CIFAR-{classes}: records have {length} bytes")
    table = data.reshape(-1, length)
    names = {key: file.read_text("utf-8", "replace").split() if file.is_file() else [] for key, file in files.items()}
    return _cifar(table[:, len(files) :], {key: table[:, k] for k, key in enumerate(files)}, names, folder)


def _pickled(folder: Path, batches: Sequence[Path], classes: int) -> Arrays:
    meta, *tables = read_guarded([folder / ("batches.meta" if classes == 10 else "meta"), *batches])
    try:
        images = np.concatenate([table["data"] for table in tables])
        labels = {key: np.concatenate([table[own] for table in tables]) for key, (_, _, own) in _NAMES[classes].items()}
        names = {key: [str(name) for name in meta[own]] for key, (_, own, _) in _NAMES[classes].items()}
    except (KeyError, ValueError):
        raise UserError(f"'{printable(str(batches[0]))}' lacks the images and labels of CIFAR-{classes}") from None
    return _cifar(images, labels, names, folder)


def _cifar(images: Pixels, labels: dict[str, NDArray[np.integer]], names: dict[str, list[str]], folder: Path) -> Arrays:
    """Images (N, 3072) and their labels, checked against one another."""
    shown, columns, attributes = printable(str(folder)), [], []
    if images.ndim != 2 or images.shape[1] != _PIXELS:
        raise UserError(f"the batches in '{shown}' don't hold images of 3x32x32")
    for key, own in labels.items():
        texts = names[key] or [str(k) for k in range(int(own.max()) + 1)]
        if own.shape != images.shape[:1] or own.min() < 0 or own.max() >= len(texts):
            raise UserError(f"the batches in '{shown}' have labels beyond the {len(texts)} names of {key}")
        attributes.append(Attribute(key, tuple(printable(text) for text in texts)))
        columns.append(own.astype(np.float32))
    pixels = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # no copy: the set is in memory once
    return Arrays(pixels, Labels(tuple(attributes), np.stack(columns, 1)))


# idx

MOST_BYTES = 2**32
_IMAGES = re.compile(r"(.*)images([.-])idx3([.-])ubyte(\.gz)?")


def find_idx(folder: Path) -> Path | None:
    """Return a folder's idx file of images; of several the one that says "train", of a file and its gzip the file.
    Raises `UserError` for several files of which not exactly one says so."""
    files = sorted(path for path in folder.iterdir() if _IMAGES.fullmatch(path.name))
    files = [path for path in files if not (path.suffix == ".gz" and path.with_suffix("") in files)]
    chosen = [path for path in files if "train" in path.name] if len(files) > 1 else files
    if files and len(chosen) != 1:
        names = ", ".join(path.name for path in files)
        raise UserError(f"several idx files of images in '{folder}' ({names}): give the path of one of them")
    return chosen[0] if chosen else None


def is_idx(path: Path) -> bool:
    """Return whether a file's name is one of idx images."""
    return _IMAGES.fullmatch(path.name) is not None


def read_idx(path: Path) -> Pixels:
    """Read one idx file of bytes, gzipped where its name ends in .gz; returns uint8 of the shape that its header says.
    Raises `UserError` for a file that is not idx, not bytes, damaged, shorter or longer than it says, or of more than 4
    GiB."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08" or not 1 <= start[3] <= 4:
                raise UserError(f"'{path}' is not an idx file of bytes")
            sizes = file.read(4 * start[3])
            shape = struct.unpack(f">{start[3]}I", sizes) if len(sizes) == 4 * start[3] else (0,)
            count = math.prod(shape)
            # one byte more reaches the end, where gzip verifies its checksum
            data = file.read(count + 1) if 0 < count <= MOST_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' cannot be read as idx: {error}") from None
    if not data or len(data) != count:
        says = "x".join(map(str, shape))
        raise UserError(f"'{path}' is not as long as its header says ({says} bytes, at most 4 GiB)")
    return np.frombuffer(data, np.uint8).reshape(shape)


def idx_source(images: Path, classes: tuple[str, ...] | None = None, name: str | None = None) -> ArraySource:
    """Return a source of the images in an idx file, with the labels of the file beside it.

    Args:
        images: the file of images (N, H, W).
        classes: the names of labels 0, 1, ...; None names them by their numbers.
        name: None is the file's absolute path.
    """
    match = _IMAGES.fullmatch(images.name)
    assert match is not None
    stem, first, second, _ = match.groups()
    labels = f"{stem}labels{first}idx1{second}ubyte"
    files = [images, *_there([images.parent], labels, f"{labels}.gz")[:1]]
    return ArraySource(name or str(images.resolve()), state_of(files), lambda: _idx(files, classes))


def _idx(files: Sequence[Path], classes: tuple[str, ...] | None) -> Arrays:
    images, *rest = map(read_idx, files)
    if images.ndim != 3:
        raise UserError(f"'{files[0]}' has {images.ndim} dimensions, where images have 3")
    if not rest:
        return Arrays(images[..., None], Labels.none(len(images)))
    labels, most = rest[0], int(rest[0].max())
    if labels.shape != images.shape[:1]:
        raise UserError(f"'{files[1]}' has {len(labels):,} labels for {len(images):,} images")
    names = classes or tuple(str(k) for k in range(most + 1))
    if most >= len(names):
        raise UserError(f"'{files[1]}' holds label {most}, where there are {len(names)} classes")
    return Arrays(images[..., None], Labels.of_classes(names, labels))
