"""Where a run's images are. A configuration keeps the path as it was typed, since a run may be moved with its images;
`environment.json` keeps the working folder that it was typed in, so that they are found from elsewhere too.

Two spellings of one path (`photos`, `photos/`, `./photos`, the full one) are the same images. A folder of images that
was moved is known by what is in it, not by its path: `train.plan.check_source`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sfumato.config.data import DataConfig
from sfumato.data.sources.builtin import BUILTIN
from sfumato.run.folder import Run


def located(run: Run) -> DataConfig:
    """Return the `data` of a run's configuration, with its relative paths found from any folder; errors as
    `Run.config`."""
    data, folder = run.config().data, _working_folder(run)
    if folder is None:
        return data

    def find(path: str) -> str:
        place = Path(folder, path)
        there = place.parent.is_dir() if set(path) & set("*?[{") else place.exists()
        return str(place) if there and not Path(path).is_absolute() else path

    return _each(data, find)


def spelled_as_begun(data: DataConfig, run: Run) -> DataConfig:
    """Return `data` with the paths spelled as in a run's configuration, where they lead to the same place."""
    if not run.exists():
        return data
    begun, folder = run.config().data, _working_folder(run)
    known: dict[str, str] = {}
    for path in (begun.source, begun.labels):
        known[_full(path)] = path
        if folder is not None:
            known[_full(path, folder)] = path
    return _each(data, lambda path: known.get(_full(path), path))


def remembered(data: DataConfig, run: Run) -> DataConfig:
    """Return `data` with the paths that a run's configuration does not have as they are found again: full, unless they
    were typed in the folder where the run was begun."""
    begun, folder = run.config().data, _working_folder(run)
    if folder is not None and _full(folder) == _full(""):
        return data
    known = begun.source, begun.labels
    return _each(data, lambda path: path if path in known else os.path.abspath(Path(path).expanduser()))


def is_path(source: str) -> bool:
    """Whether a source is a path, not the name of built-in or of downloaded images."""
    return source not in BUILTIN and not source.startswith("hf:") and bool(source.strip())


def is_gone(source: str) -> bool:
    """Whether a source is the path of something that is not there."""
    return is_path(source) and not set(source) & set("*?[{") and not Path(source).expanduser().exists()


def _each(data: DataConfig, change: Callable[[str], str]) -> DataConfig:
    """Change the source and the labels, where these are paths."""
    source, labels = data.source, data.labels
    if is_path(source):
        source = change(source)
    if labels not in ("none", "source"):
        labels = change(labels)
    return replace(data, source=source, labels=labels)


def _full(path: str, folder: str = "") -> str:
    """A path as it is compared: absolute, without links, dots or a slash at its end."""
    return os.path.realpath(Path(folder, Path(path).expanduser()))


def _working_folder(run: Run) -> str | None:
    """The folder in which a run was begun; None where it is not known."""
    folder = (run.read(run.environment_path) or {}).get("folder")
    return folder if isinstance(folder, str) and "\0" not in folder else None
