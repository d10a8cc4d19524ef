"""Checkpoints: a run can be cut off at any moment, also in the middle of a save, and go on as if it had not been.

A checkpoint is a folder named by the images seen, `checkpoints/000000012800/`:

    raw.safetensors    the weights            (each a complete weights file, see `sfumato.weights`)
    ema.safetensors    their average
    optim.safetensors  the optimiser's moments and step counts
    manifest.json      where the run stands, and the SHA-256 of every file

No generator's state is in it, since there is none: noise, times, order and dropout are functions of the clock.

It is written under a hidden name, each file flushed, then the folder is renamed, which happens wholly or not at all,
and the parent flushed. Then it is read back and compared. Only after that are older ones deleted, and two are kept. A
manifest carries its own checksum, so that a flipped bit anywhere is noticed, and the checkpoint before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.files import sync_folder

__all__ = ["KEPT", "Position", "load", "newest", "save"]

KEPT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Position:
    """Where a run stands, and what it must find again to go on.

    Attributes:
        images: images seen.
        step: steps taken.
        seconds: spent training.
        config: digest of the configuration.
        fingerprint: of the data.
        torch: its version, without which the same bits can't be promised.
        sfumato: likewise.
    """

    images: int
    step: int
    seconds: float
    config: str
    fingerprint: str
    torch: str
    sfumato: str


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _manifest(position: Position, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest: the position and the files' checksums, under a checksum of their own."""
    hashes = {name: {"bytes": len(content), "sha256": _sha(content)} for name, content in files.items()}
    body = {"format": 1, **asdict(position), "files": hashes}
    return json.dumps({"body": body, "sha256": _sha(json.dumps(body).encode())}, indent=1).encode()


def save(folder: Path, position: Position, files: Mapping[str, bytes]) -> Path:
    """Write a checkpoint, read it back, and delete all but the newest two.

    Args:
        folder: the run's `checkpoints`.
        position: where the run stands.
        files: contents by name.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: it could not be written, or not be read back as it was written; older checkpoints are untouched.
    """
    final = folder / f"{position.images:012d}"
    part = folder / f".{final.name}.{os.getpid()}.part"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        part.mkdir()
        for name, content in {**files, MANIFEST: _manifest(position, files)}.items():
            _write(part / name, content)
        sync_folder(part)
        os.rename(part, final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder)
    damage = _damage(final)
    if damage:
        raise OSError(f"{final} does not read back as it was written: {damage}")
    for old in _complete(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _complete(folder: Path) -> list[Path]:
    """The checkpoints' folders, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: p.name, reverse=True)


def _damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        body = manifest["body"]
        if manifest["sha256"] != _sha(json.dumps(body).encode()):
            return f"{MANIFEST} was altered"
        for name, entry in body["files"].items():
            content = (checkpoint / name).read_bytes()
            if len(content) != entry["bytes"]:
                return f"{name} has {len(content)} bytes of {entry['bytes']}"
            if _sha(content) != entry["sha256"]:
                return f"{name} was altered"
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def newest(folder: Path, warn: Callable[[str], None]) -> tuple[Path, Position] | None:
    """Find the newest good checkpoint; a damaged newer one is set aside under another name.

    Args:
        folder: the run's `checkpoints`.
        warn: told of every damaged one, together with the one that is taken instead.

    Returns:
        Its folder and position; None where there never was a checkpoint.

    Raises:
        UserError: there are checkpoints and none is good.
    """
    for part in folder.glob(".*.part"):  # cut off in the middle of a save
        shutil.rmtree(part, ignore_errors=True)
    damaged: list[tuple[Path, str]] = []
    for checkpoint in _complete(folder):
        damage = _damage(checkpoint)
        if damage is None:
            for bad, reason in damaged:
                warn(f"checkpoint {bad.name} is damaged ({reason}): set aside, going on from {checkpoint.name}")
                _set_aside(bad)
            return checkpoint, _position(checkpoint)
        damaged.append((checkpoint, damage))
    if damaged:
        listing = ", ".join(f"{bad.name}: {reason}" for bad, reason in damaged)
        raise UserError(f"no checkpoint in {folder} is readable ({listing}): start anew with another --run folder")
    return None


def _set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that its place is free and nothing of it is lost."""
    aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
    with suppress(OSError):
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(checkpoint, aside)


def _position(checkpoint: Path) -> Position:
    body: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_bytes())["body"]
    return Position(**{name: body[name] for name in Position.__annotations__})


def load(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """Return a checkpoint's tensors by file (`raw`, `ema`, `optim`), then by name."""
    return {path.stem: safetensors.torch.load(path.read_bytes()) for path in checkpoint.glob("*.safetensors")}
