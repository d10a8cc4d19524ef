"""Checkpoints: a run can be cut off at any moment, even during a save, and continue as if it had not been.

A checkpoint is a folder named by the images seen, `checkpoints/000000012800/`:

    raw.safetensors    the weights            (each a complete weights file, see `sfumato.weights`)
    ema.safetensors    their average
    optim.safetensors  the optimiser's moments and step counts
    manifest.json      the position of the run, and the SHA-256 of every file

It holds no random state: noise, times, order and dropout are functions of the images seen.

It is written under a hidden name, each file flushed, then the folder is renamed, which is atomic, and its parent
flushed. Then it is read back and compared, and only then are older ones deleted, all but one that is verified too and
those whose manifest says that they are kept, each renamed to a hidden name first: a folder under its final name is
whole at every moment. The manifest carries its own checksum, so a flipped bit anywhere is noticed, and the run resumes
from the checkpoint before it.

A checkpoint's name is the number of images in its own manifest. Anything else in the folder (a copy, a file that a
system leaves behind) is not ours: it is neither read nor counted nor deleted.

The weights files of a run are copies of the newest good checkpoint's. `publish` makes them so, however often it is
called.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.files import MEGABYTE, hidden, read_regular, sync, write_atomic, write_synced
from sfumato.run.folder import Run

KEPT = 2
MANIFEST = "manifest.json"
FORMAT = 1
PUBLISHED = ("raw.safetensors", "ema.safetensors")
"""The files that are copied to the run's weights."""
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}

State = dict[str, dict[str, Tensor]]
"""Tensors by file (`raw`, `ema`, `optim`), then by name."""


class _Damage(OSError):
    """What is wrong with a checkpoint."""


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


def _manifest(position: Position, files: Mapping[str, bytes], kept: bool) -> bytes:
    """Return the manifest: the position and the files' checksums, with a checksum of both."""
    hashes = {name: {"bytes": len(content), "sha256": _sha(content)} for name, content in files.items()}
    body = {"format": FORMAT, **asdict(position), **({"kept": True} if kept else {}), "files": hashes}
    return json.dumps({"body": body, "sha256": _sha(json.dumps(body).encode())}, indent=1).encode()


def save(run: Run, position: Position, files: Mapping[str, bytes], kept: bool = False) -> Path:
    """Write files by name as a checkpoint, read it back, delete all older ones but the newest good one and those that
    are kept, and return its folder.

    A good checkpoint of the same state is left as it is, so saving twice is no error.

    Args:
        kept: the checkpoint is to stay when newer ones are there; recorded in its manifest.

    Raises:
        OSError: it could not be written, or did not read back as written; older checkpoints are untouched.
    """
    final = run.checkpoint(position.images)
    manifest = _manifest(position, files, kept or is_kept(final))
    if not _is_good_copy(final, manifest):
        final.parent.mkdir(exist_ok=True)
        _write(final, {**files, MANIFEST: manifest})
    sync(final.parent)
    damage = find_damage(final)
    if damage:
        raise OSError(f"{final} does not read back as it was written: {damage}")
    prune(run, final)
    return final


def prune(run: Run, good: Path) -> None:
    """Delete the checkpoints older than a good one, all but `KEPT` - 1 that are verified too and those to be kept."""
    older = [
        path for path in run.list_checkpoints() if int(path.name) < int(good.name) and _images(path) == int(path.name)
    ]
    verified = 1
    for old in older if len(older) >= KEPT else ():
        if verified == KEPT:
            if not is_kept(old):
                _remove(old)
        elif find_damage(old) is None:
            verified += 1


def _write(final: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files under a hidden name, and rename it; one that has the name already is removed."""
    with hidden(final) as part:
        part.mkdir()
        for name, content in files.items():
            write_synced(part / name, content)
        sync(part)
        if final.exists():
            _remove(final)
        os.rename(part, final)


def _remove(folder: Path) -> None:
    """Remove a folder that is never seen half removed under its own name."""
    with suppress(OSError):
        os.rename(folder, aside := folder.with_name(f".{folder.name}.old.{os.getpid()}.part"))
        shutil.rmtree(aside, ignore_errors=True)


def _is_good_copy(checkpoint: Path, manifest: bytes) -> bool:
    """Whether a checkpoint is good and of the same state as a manifest describes; only the clock may differ."""
    if find_damage(checkpoint):
        return False
    return {**_body(checkpoint), "seconds": 0} == {**json.loads(manifest)["body"], "seconds": 0}


def _images(checkpoint: Path) -> int | None:
    """The images in a folder's manifest, None where it has no manifest that can be used."""
    with suppress(OSError):
        return read_position(checkpoint).images
    return None


def hash_of(checkpoint: Path, name: str) -> str:
    """Return the SHA-256 of one of a checkpoint's files, as its manifest has it; raises `OSError`."""
    return str(_body(checkpoint)["files"][name]["sha256"])


def is_kept(checkpoint: Path) -> bool:
    """Whether a checkpoint is to stay when newer ones are there."""
    with suppress(OSError):
        return _body(checkpoint).get("kept") is True
    return False


def _body(checkpoint: Path) -> dict[str, Any]:
    """Return what a manifest says, its checksum verified; raises OSError."""
    content = read_regular(checkpoint / MANIFEST, MEGABYTE)
    try:
        manifest = json.loads(content)
        body, sha = manifest["body"], manifest["sha256"]
        entries = [(Path(name).name == name, entry["bytes"], entry["sha256"]) for name, entry in body["files"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Damage(f"{MANIFEST} is not readable") from None
    if sha != _sha(json.dumps(body).encode()):
        raise _Damage(f"{MANIFEST} was altered")
    if body.get("format") != FORMAT:
        raise _Damage(f"format {body.get('format')!r}, which this version of sfumato does not read")
    plain = all(plain and type(size) is int and type(sha) is str for plain, size, sha in entries)
    if not plain or not body["files"].keys() >= set(PUBLISHED):
        raise _Damage(f"{MANIFEST} lists files that no checkpoint has")
    _position(body)
    return dict(body)


def _position(body: Mapping[str, Any]) -> Position:
    """Return the position in a manifest; raises `_Damage` where a value is missing or of another type."""
    values: dict[str, Any] = {field.name: body.get(field.name) for field in fields(Position)}
    for field in fields(Position):
        value, kinds = values[field.name], _TYPES[str(field.type)]
        if type(value) not in kinds or not (isinstance(value, str) or 0 <= value < 2**63):
            raise _Damage(f"{field.name} in {MANIFEST} is {str(value)[:40]!r}")
    return Position(**values)


def _contents(checkpoint: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file that the manifest lists, verified; raises OSError."""
    for name, entry in _body(checkpoint)["files"].items():
        if (size := (checkpoint / name).stat().st_size) != entry["bytes"]:
            raise _Damage(f"{name} has {size} bytes of {entry['bytes']}")
        content = read_regular(checkpoint / name, entry["bytes"])
        if _sha(content) != entry["sha256"]:
            raise _Damage(f"{name} was altered")
        yield name, content


def find_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        for _ in _contents(checkpoint):
            pass
        images = read_position(checkpoint).images
    except _Damage as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} can't be read ({error.strerror})"
    return None if checkpoint.name == f"{images:012d}" else f"it is a checkpoint of {images} images"


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
        if _images(checkpoint) in (None, int(checkpoint.name)):  # else a copy under another name: not ours
            damaged.append((checkpoint, damage))
    if damaged:
        reasons = ", ".join(f"{bad.name}: {reason}" for bad, reason in damaged)
        raise UserError(f"no checkpoint in {run.checkpoints} is readable ({reasons}): start again with another --run")
    return None


def last_good(run: Run) -> Position | None:
    """Return the position of the newest good checkpoint, None where there is none; nothing is changed."""
    good = (checkpoint for checkpoint in run.list_checkpoints() if find_damage(checkpoint) is None)
    return next(map(read_position, good), None)


def read_position(checkpoint: Path) -> Position:
    """Return the position of a checkpoint in which `find_damage` finds nothing."""
    return _position(_body(checkpoint))


def load(checkpoint: Path, like: State) -> State:
    """Return the tensors of a checkpoint in which `find_damage` finds nothing.

    Args:
        like: the state that it is for.

    Raises:
        UserError: it was altered meanwhile, its tensors have other types or shapes, or are not finite.
    """
    try:
        state = {Path(name).stem: safetensors.torch.load(content) for name, content in _contents(checkpoint)}
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"checkpoint {checkpoint} can't be read ({error}): use another copy") from None
    for kind, tensors in like.items():
        for name in tensors.keys() & state.get(kind, {}).keys():
            ours, theirs = tensors[name], state[kind][name]
            if ours.dtype != theirs.dtype or (ours.shape != theirs.shape and ours.numel()):
                raise UserError(f"the checkpoint {checkpoint} is of another network: {kind}/{name} differs")
    if bad := not_finite(state):
        raise UserError(f"the checkpoint {checkpoint} has values that are not finite, in {bad}: use an earlier one")
    return state


def not_finite(state: State) -> str | None:
    """Return the name of a tensor with a value that is not finite, or None; losses that were only watched may be."""
    for kind, tensors in state.items():
        for name, tensor in tensors.items():
            if not name.startswith("watch/") and not tensor.isfinite().all():
                return f"{kind}/{name}"
    return None


def publish(run: Run, checkpoint: Path) -> None:
    """Make weights/raw and weights/ema copies of a good checkpoint's, where they are not; raises OSError."""
    files = _body(checkpoint)["files"]
    for name in PUBLISHED:
        path, entry = run.weights / name, files[name]
        with suppress(OSError):
            if _sha(read_regular(path, entry["bytes"])) == entry["sha256"]:
                continue
        content = read_regular(checkpoint / name, entry["bytes"])
        if _sha(content) != entry["sha256"]:
            raise _Damage(f"{checkpoint / name} was altered")
        write_atomic(path, content, parents=False)
