"""Open the source that the user names: a built-in name, a path, a pattern of paths, an id.

The contents of a path decide its kind. A folder is CelebA's, or one of idx files, of CIFAR's batches, of shards
(nothing but tar archives, with perhaps a list or a note beside them), of Parquet files, and else a folder of images; a
file is idx, a batch of CIFAR, an array, a zip or tar archive, Parquet, or a list of images' paths.

A new kind of source is one file with a class or function that makes it, and one line here.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

from sfumato.data.formats.decode import header_size
from sfumato.data.formats.foreign import HEAD, TORCH, ZIP, foreign
from sfumato.data.sources.archives import is_tar, is_zip, tar_source, zip_source
from sfumato.data.sources.arrays import array_source, is_array_file
from sfumato.data.sources.builtin import BUILTIN
from sfumato.data.sources.files import folder_source
from sfumato.data.sources.listing import SUFFIX, list_source
from sfumato.data.sources.protocol import Source, Unreadable, printable
from sfumato.data.sources.published import (
    celeba_source,
    cifar_source,
    find_celeba,
    find_cifar,
    find_idx,
    idx_source,
    is_idx,
)
from sfumato.data.sources.tables import open_huggingface, parquet_source
from sfumato.errors import UserError, likely, nearest, similar

_DATA = {"", ".zip", ".npy", ".npz", ".parquet", ".txt", ".gz", ".pt", ".pth", ".bin", ".pkl"}
_BESIDE = (".json", ".jsonl", ".txt", ".md", ".csv", ".tsv")
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MOST_SHARDS = 100_000
KINDS = "a folder of images, a zip or tar archive, .npy, .npz, .parquet, idx files, CIFAR's batches or a .txt of paths"


def open_source(name: str) -> Source:
    """Return the source that a name stands for.

    Args:
        name: what the user wrote: a built-in name first (a folder of that name in the working directory is reached as
            `./faces`), a path, a pattern of tar or Parquet files (`shard-{000..009}.tar`, `*.parquet`), or `hf:` and
            the id of a data set.

    Raises:
        UserError: it does not exist, or is of another kind.
    """
    if name in BUILTIN:
        return BUILTIN[name].open()
    if name.startswith("hf:"):
        return open_huggingface(name)
    if not name.strip():
        raise UserError(f"no data is given: name {KINDS}, or one of {', '.join(BUILTIN)}")
    path, shown = Path(name).expanduser(), printable(name)
    try:
        if path.is_dir():
            return _folder(path)
        if path.exists():
            return _file(path)
        if paths := _matching(name):
            return _several(paths, shown)
    except OSError as error:
        raise UserError(f"'{shown}' cannot be read: {error.strerror or error}") from None
    near = printable(similar(path, may_be_data))
    if "/" in name or "\\" in name or name.startswith(("~", ".")):
        raise UserError(f"there is no '{shown}': give a folder of images that exists{near}")
    near = likely(name, BUILTIN) or near or nearest(name, BUILTIN)
    raise UserError(f"there is no folder and no built-in data '{shown}'{near}")


def may_be_data(path: Path) -> bool:
    """Return whether a path is a folder, or a file that is called as one of images is."""
    return path.is_dir() or (path.is_file() and (is_tar(path) or path.suffix.lower() in _DATA))


def _folder(path: Path) -> Source:
    if (faces := find_celeba(path)) is not None:
        return celeba_source(*faces)
    if (images := find_idx(path)) is not None:
        return idx_source(images)
    if batches := find_cifar(path):
        return cifar_source(path, batches)
    for kind, opener in ((is_tar, tar_source), (_is_parquet, parquet_source)):
        if files := _alone(path, kind):
            return opener(files, printable(str(path.resolve())))
    return folder_source(path)


def _alone(folder: Path, kind: Callable[[Path], bool]) -> list[Path]:
    """The files of a kind in a folder that holds nothing else except lists and notes; [] where it does."""
    paths = []
    with os.scandir(folder) as items:
        for item in items:
            path = Path(item.path)
            if kind(path) and item.is_file(follow_symlinks=False):
                paths.append(path)
            elif not item.name.startswith(".") and path.suffix.lower() not in _BESIDE:
                return []  # at the first image: there may be a million of them
    return sorted(paths)


def _file(path: Path) -> Source:
    if is_idx(path):
        return idx_source(path)
    if batches := find_cifar(path):
        return cifar_source(path, batches)
    if is_array_file(path):
        return array_source(path)
    if is_tar(path) or _is_parquet(path):
        return _several([path], None)
    if not path.is_file():
        raise UserError(f"'{printable(str(path))}' is neither a file nor a folder: give {KINDS}")
    with path.open("rb") as file:
        head = file.read(HEAD)
    name, way = foreign(head) or ("a file of an unsupported kind", "")
    if is_zip(path) and name != TORCH:
        return zip_source(path)
    if name == ZIP:  # the list of the members is at the end
        name, way = "a zip archive that is damaged or cut short", "its end is missing; copy or download it again"
    if path.suffix.lower() == SUFFIX:
        return list_source(path)
    with suppress(Unreadable):
        header_size(path)
        name, way = "a file of a single picture", "give the folder that holds it"
    raise UserError(f"'{printable(str(path))}' is {name}: {way or f'give {KINDS}'}")


def _several(paths: list[Path], name: str | None) -> Source:
    if all(map(is_tar, paths)):
        return tar_source(paths, name)
    if all(map(_is_parquet, paths)):
        return parquet_source(paths, name)
    raise UserError(f"'{name}' must match only tar archives, or only Parquet files: it also matches '{paths[0].name}'")


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _matching(name: str) -> list[Path]:
    """The files that a pattern names; raises `UserError` where a range in braces names one that isn't there."""
    name = str(Path(name).expanduser())
    if _BRACES.search(name):
        paths, shown = list[Path](), printable(name)
        for path in map(Path, _spelled(name)):
            if not path.is_file():
                raise UserError(f"there is no '{printable(str(path))}', which '{shown}' names")
            paths.append(path)
        return paths
    return sorted(Path(each) for each in glob.glob(name) if Path(each).is_file()) if glob.has_magic(name) else []


def _spelled(name: str) -> Iterator[str]:
    """Spell out `{000..009}`, one after another: every number, with as many digits as the first."""
    text, *ranges = re.split(r"(?=\{\d{1,9}\.\.\d{1,9}\})", name)
    matches = [match for part in ranges if (match := _BRACES.match(part))]
    numbers = [range(int(match[1]), int(match[2]) + 1) for match in matches]
    if math.prod(map(len, numbers)) > _MOST_SHARDS:
        raise UserError(f"'{printable(name)}' names more than {_MOST_SHARDS:,} files")
    for chosen in product(*numbers):
        parts = zip(chosen, matches, ranges, strict=True)
        yield text + "".join(str(n).zfill(len(match[1])) + part[match.end() :] for n, match, part in parts)
