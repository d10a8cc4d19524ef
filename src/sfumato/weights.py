"""Self-describing weights files: one file is enough to rebuild the denoiser, or to refuse it.

A weights file is a safetensors file, tensors behind a JSON header, so reading one can't run code. The header's metadata
has one entry, "sfumato", itself JSON (only one, since safetensors writes several in random order, and equal weights
should give equal files):

    version   of this layout                kind         "ema" or "raw"
    config    the whole configuration       images       seen when it was written
    shape     (C, H, W) of a stored image   depth        the format of its values (`codec.format`); without it, bytes
    sha256    of everything else here       vocabulary   of the conditions; null where there are none
              and of every tensor

Safetensors itself has no checksum, and one flipped bit loads silently as another weight; hence the digest, over the
names, types, shapes and bytes of the tensors and the rest of the entry. A file is opened once and read whole, so that
one that a training replaces meanwhile is read as it was.

Version 2 listed attributes in place of the vocabulary. Version 1 knew one list of classes, which is read as the
attribute `class`. Both are turned into the present layout after their digest is checked.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.files import read_regular
from sfumato.run.folder import Run
from sfumato.run.locate import SHIPPED, remedy

ENTRY, VERSION = "sfumato", 3
MOST_BYTES = 2**36
"""The largest file that is read."""

Facts = dict[str, Any]
"""The header's entry."""


def tensors_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors needs them: on the CPU, contiguous, none sharing memory with another."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """SHA-256 of the facts and of every tensor's name, type, shape and bytes, in order of the names."""
    described = {name: value for name, value in facts.items() if name != "sha256"}
    sha = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def pack(state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """Return the content of a weights file: a network's `state_dict()`, and the facts kind, config, images, shape,
    depth and vocabulary, as the module's docstring has them."""
    tensors = tensors_of(state)
    entry = {"version": VERSION, **facts}
    content: bytes = safetensors.torch.save(tensors, {ENTRY: json.dumps(entry | {"sha256": _digest(tensors, entry)})})
    return content


def read(file: Path) -> tuple[Facts, dict[str, Tensor], str]:
    """Return a weights file's facts, in the present layout, its tensors, and the SHA-256 of the file; raises
    `UserError` for a file not written by sfumato, truncated, altered, of a later version, or with a tensor that is not
    finite."""
    content = b""
    try:
        content = read_regular(file, MOST_BYTES)
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except (OSError, safetensors.SafetensorError, MemoryError, RuntimeError, ValueError, KeyError) as error:
        if kind := _other_kind(content):
            raise UserError(
                f"{file} is not a weights file but {kind}: give a run folder, a weights file (.safetensors), or a "
                f"model that comes along ({', '.join(SHIPPED)})"
            ) from None
        reason = " ".join((getattr(error, "strerror", None) or str(error) or "out of memory").split())[:120]
        raise UserError(
            f"{file} is not a readable weights file ({reason}): it may be cut short{_remedy(file)}"
        ) from None
    facts = facts_of(_entry(content), file)
    if facts.get("sha256") != _digest(tensors, facts):
        instead = _remedy(file) or "; take another copy or checkpoint"
        raise UserError(f"{file} is damaged: its checksum is not that of its content{instead}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(
            f"{file}: its weights are not finite, since the training diverged: take weights/best.safetensors of the run"
        )
    try:
        return *_upgraded(facts, tensors), hashlib.sha256(content).hexdigest()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise unusable(file, error) from None


def _remedy(file: Path) -> str:
    """What can be done in place of reading a damaged file, if it is one of a run's weights."""
    run = Run(file.parent.parent)
    instead = remedy(run, file.stem) if file == run.weights_file(file.stem) and run.exists() else ""
    return f"; {instead}" if instead else ""


_KINDS = {
    "a picture": (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*"),
    "a web page": (b"<!doctype html", b"<html"),
    "a ZIP archive, such as .npz or .pt (sfumato import reads other libraries' weights)": (b"PK\x03\x04",),
}
"""Files that are taken for weights, by their first bytes."""


def _other_kind(content: bytes) -> str:
    """Return what a file is that can't be weights; empty where it is of no known kind."""
    start = content[:64].lstrip()
    kinds = (kind for kind, starts in _KINDS.items() if any(x.startswith(starts) for x in (start, start.lower())))
    return next(kinds, "a text file" if _is_text(content[:4096]) else "")


def _is_text(content: bytes) -> bool:
    """Return whether bytes are UTF-8 text, perhaps cut within a character."""
    with suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(content)
        return bool(text.strip()) and all(letter.isprintable() or letter.isspace() for letter in text)
    return False


def _entry(content: bytes) -> str | None:
    """Return the metadata's entry in the header of a safetensors file that was parsed before."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return (header.get("__metadata__") or {}).get(ENTRY)


def unusable(file: Path, error: Exception) -> UserError:
    """Return the message for a header whose facts describe no model."""
    return UserError(f"{file}: its header can't be used ({str(error)[:300]}); was it written by another version?")


def facts_of(entry: str | None, file: Path) -> Facts:
    """Return the facts of a header's entry, after a check of its version; raises `UserError` where there are none."""
    try:
        facts = json.loads(entry or "null")
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{file} was not written by sfumato: give the weights file of a run")
    if facts.get("version") not in range(1, VERSION + 1):
        raise UserError(f"{file} has layout version {facts.get('version')}; this sfumato reads versions 1 to {VERSION}")
    return facts


def _upgraded(facts: Facts, tensors: dict[str, Tensor]) -> tuple[Facts, dict[str, Tensor]]:
    """Return a file of an earlier version in the present layout."""
    if facts["version"] == 1:
        classes, config = [str(name) for name in facts["classes"]], facts["config"]
        attributes = [{"name": "class", "values": classes}] if config["net"]["num_classes"] else []
        facts = {**facts, "version": 2, "attributes": attributes}
        old, new = "classes.table.weight", "condition.parts.0.table.weight"
        tensors = {new if name == old else name: tensor for name, tensor in tensors.items()}
    if facts["version"] == 2:
        attributes = facts["attributes"]
        vocabulary = {"kind": "attributes", "attributes": attributes} if attributes else None
        facts = {**facts, "version": 3, "vocabulary": vocabulary}
    return facts, tensors
