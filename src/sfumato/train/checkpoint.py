"""Checkpoints: a run can be cut off at any moment, even during a save, and continue as if it had not been.

A checkpoint is a folder named by the images seen, `checkpoints/000000012800/`:

    raw.safetensors    the weights            (each a complete weights file, see `sfumato.weights`)
    ema.safetensors    their average
    optim.safetensors  the optimiser's moments and step counts
    manifest.json      the position of the run, and the SHA-256 of every file

It holds no random state: noise, times, order and dropout are functions of the images seen.

It is written under a hidden name, each file flushed, then the folder is renamed, which is atomic, and its parent
flushed. Then it is read back and compared, and only then are all but the newest two deleted. The manifest carries
its own checksum, so a flipped bit anywhere is noticed, and the run resumes from the checkpoint before it.
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

import safetensors.torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.files import sync, write_synced
from sfumato.run.folder import Run

KEPT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Position:
    """The position of a run, and what must be the same when it continues: the digest of the configuration, the
    fingerprint of the data, the versions of torch and sfumato."""

    images: int
    step: int
    seconds: float
    config: str
    fingerprint: str
    torch: str
    sfumato: str


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _manifest(position: Position, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest: the position and the files' checksums, with a checksum of both."""
    hashes = {name: {"bytes": len(content), "sha256": _sha(content)} for name, content in files.items()}
    body = {"format": 1, **asdict(position), "files": hashes}
    return json.dumps({"body": body, "sha256": _sha(json.dumps(body).encode())}, indent=1).encode()


def save(run: Run, position: Position, files: Mapping[str, bytes]) -> Path:
    """Write files by name as a checkpoint, read it back, delete all but the newest two, and return its folder.

    Raises:
        OSError: it could not be written, or did not read back as written; older checkpoints are untouched.
    """
    final = run.checkpoint(position.images)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.mkdir()
        for name, content in {**files, MANIFEST: _manifest(position, files)}.items():
            write_synced(part / name, content)
        sync(part)
        os.rename(part, final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync(final.parent)
    damage = find_damage(final)
    if damage:
        raise OSError(f"{final} does not read back as it was written: {damage}")
    for old in run.list_checkpoints()[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def find_damage(checkpoint: Path) -> str | None:
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


def newest(run: Run, warn: Callable[[str], None]) -> tuple[Path, Position] | None:
    """Return the folder and position of the newest good checkpoint; None where there is none.

    A damaged newer one is reported by `warn` and renamed to NAME.damaged, not deleted.

    Raises:
        UserError: every checkpoint is damaged.
    """
    for part in run.checkpoints.glob(".*.part"):  # cut off during a save
        shutil.rmtree(part, ignore_errors=True)
    damaged: list[tuple[Path, str]] = []
    for checkpoint in run.list_checkpoints():
        damage = find_damage(checkpoint)
        if damage is None:
            for bad, reason in damaged:
                warn(
                    f"checkpoint {bad.name} is damaged ({reason}): renamed to {bad.name}.damaged; resuming from "
                    f"{checkpoint.name}"
                )
                aside = bad.with_name(f"{bad.name}.damaged")
                with suppress(OSError):
                    shutil.rmtree(aside, ignore_errors=True)
                    os.rename(bad, aside)
            return checkpoint, read_position(checkpoint)
        damaged.append((checkpoint, damage))
    if damaged:
        reasons = ", ".join(f"{bad.name}: {reason}" for bad, reason in damaged)
        raise UserError(f"no checkpoint in {run.checkpoints} is readable ({reasons}): start again with another --run")
    return None


def read_position(checkpoint: Path) -> Position:
    """Return the position of a checkpoint in which `find_damage` finds nothing."""
    body = json.loads((checkpoint / MANIFEST).read_bytes())["body"]
    return Position(**{name: body[name] for name in Position.__annotations__})


def load(checkpoint: Path) -> dict[str, dict[str, Tensor]]:
    """Return a checkpoint's tensors by file (`raw`, `ema`, `optim`), then by name."""
    return {path.stem: safetensors.torch.load(path.read_bytes()) for path in checkpoint.glob("*.safetensors")}
