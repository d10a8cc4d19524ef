"""What can happen to a checkpoint on a disk: bits, lengths, files, manifests; a function for each, drawn at random."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch

Mutation = Callable[[Random, Path, Path], None]
"""Changes a checkpoint at random; it is given the one before it too."""


def pick(chance: Random, folder: Path, pattern: str = "*") -> Path:
    """One of its files."""
    return chance.choice(sorted(folder.glob(pattern)))


def edited(change: Callable[[Random, bytearray], bytes | bytearray]) -> Mutation:
    """Change the content of a file."""

    def mutate(chance: Random, folder: Path, older: Path) -> None:
        file = pick(chance, folder)
        file.write_bytes(change(chance, bytearray(file.read_bytes())))

    return mutate


def flip(chance: Random, content: bytearray) -> bytearray:
    """Flip one bit."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def flips(chance: Random, content: bytearray) -> bytearray:
    """Flip a few bits, anywhere."""
    for _ in range(chance.randint(2, 40)):
        flip(chance, content)
    return content


def zeros(chance: Random, content: bytearray) -> bytearray:
    """Zero a block, as of a file that was never flushed."""
    at = chance.randrange(len(content))
    size = min(len(content) - at, chance.choice([1, 64, 512, 4096]))
    content[at : at + size] = bytes(size) if any(content[at : at + size]) else b"\1" * size
    return content


def moved(chance: Random, content: bytearray) -> bytearray:
    """Swap two halves of a part."""
    at, size = chance.randrange(len(content) - 2), chance.randint(1, 600)
    part = content[at : at + 2 * size]
    half = len(part) // 2
    return content[:at] + part[half:] + part[:half] + content[at + 2 * size :]


def cut(chance: Random, content: bytearray) -> bytearray:
    """Cut the end off."""
    return content[: chance.randrange(len(content))]


def longer(chance: Random, content: bytearray) -> bytearray:
    """Append bytes."""
    return content + chance.randbytes(chance.choice([1, 8, 5000]))


def noise(chance: Random, content: bytearray) -> bytes:
    """As many other bytes."""
    return chance.randbytes(len(content))


def missing(chance: Random, folder: Path, older: Path) -> None:
    pick(chance, folder).unlink()


def swapped(chance: Random, folder: Path, older: Path) -> None:
    """Exchange two files."""
    one, other = chance.sample(sorted(folder.iterdir()), 2)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])


def mixed(chance: Random, folder: Path, older: Path) -> None:
    """Some files, not all, are of the checkpoint before."""
    names = sorted(path.name for path in folder.iterdir())
    for name in chance.sample(names, chance.randint(1, len(names) - 1)):
        shutil.copy(older / name, folder / name)


def special(chance: Random, folder: Path, older: Path) -> None:
    """A pipe, a device, a folder or a dangling link in place of a file."""
    file, kind = pick(chance, folder), chance.randrange(4)
    file.unlink()
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == 2 else "nowhere")


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, with its checksum."""
    body = json.loads((folder / "manifest.json").read_bytes())["body"]
    change(body)
    seal = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"body": body, "sha256": seal}))


def manifest_without(chance: Random, folder: Path, older: Path) -> None:
    """A key is missing, the checksum is right."""
    resealed(folder, lambda body: body.pop(chance.choice(sorted(body))))


def manifest_of_other_types(chance: Random, folder: Path, older: Path) -> None:
    """A value is of another type or out of range, the checksum is right."""
    numbers = ("images", "step", "seconds", "format")
    key = chance.choice([*numbers, "config", "torch", "files"])
    values = ["8", None, [], -1, True, 1.5e400, 10**400] if key in numbers else [7, None, [], {}]
    resealed(folder, lambda body: body.update({key: chance.choice(values)}))


def manifest_of_other_files(chance: Random, folder: Path, older: Path) -> None:
    """It names a file outside, or misses one, or says another size; the checksum is right."""

    def change(body: dict[str, Any]) -> None:
        name = chance.choice(["raw.safetensors", "ema.safetensors"])
        entry = body["files"].pop(name)
        if (kind := chance.randrange(4)) != 0:
            outside = [f"../{older.name}/{name}", "/etc/passwd", "", name]
            body["files"][outside[kind]] = entry if kind < 3 else {**entry, "bytes": str(entry["bytes"])}

    resealed(folder, change)


def manifest_of_another_kind(chance: Random, folder: Path, older: Path) -> None:
    texts = ["[" * 100_000, "[]", "null", "{}", '{"body": 3, "sha256": 4}', " " * 2**21, "\0", '{"body": {}}']
    (folder / "manifest.json").write_text(chance.choice(texts))


def renamed(chance: Random, folder: Path, older: Path) -> None:
    """It is a checkpoint of fewer images than its name says."""
    shutil.rmtree(folder)
    shutil.copytree(older, folder)
    if chance.random() < 0.5:
        resealed(folder, lambda body: body.update(images=body["images"] + 1))


def stray(chance: Random, folder: Path, older: Path) -> None:
    """Other files and folders beside it, copies too; they are not ours."""
    kind = chance.randrange(6)
    if kind == 0:
        (folder / "._raw.safetensors").write_bytes(b"Mac OS X")
    elif kind == 1:
        (folder / "more.safetensors").write_bytes(b"")
    elif kind == 2:
        shutil.copytree(folder, folder.with_name("20261126"))
    elif kind == 3:
        shutil.copytree(older, folder.with_name("999999999999"))
    elif kind == 4:
        folder.with_name("999999999999x").mkdir()
    else:
        shutil.copytree(older, folder.with_name(f".{folder.name}.77.part"))


def spaces(chance: Random, folder: Path, older: Path) -> None:
    """The same manifest in other words."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()), indent=chance.choice([None, 0, 3])))


DAMAGE: dict[str, Mutation] = {
    **{change.__name__: edited(change) for change in (flip, flips, zeros, moved, cut, longer, noise)},
    "missing": missing, "swapped": swapped, "mixed": mixed, "special": special, "renamed": renamed,
    "manifest without a key": manifest_without, "manifest of other types": manifest_of_other_types,
    "manifest of other files": manifest_of_other_files, "manifest of another kind": manifest_of_another_kind,
}  # fmt: skip
"""After each of these the checkpoint must not be taken, unless nothing that it says has changed."""
HARMLESS: dict[str, Mutation] = {"stray": stray, "spaces": spaces}
"""After each of these the checkpoint must be taken, unchanged."""


def forge(chance: Random, folder: Path) -> str:
    """Put a value that is not finite, or a tensor of another shape or type, into a file, and mend every checksum."""
    file, kind = pick(chance, folder, "*.safetensors"), chance.choice(["value", "shape", "dtype"])
    tensors = safetensors.torch.load(file.read_bytes())
    floats = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 1]
    name = chance.choice(sorted(name for name in floats if not name.startswith("watch/")))
    tensor = tensors[name].clone()
    if kind == "value":
        tensor.view(-1)[chance.randrange(tensor.numel())] = chance.choice([float("nan"), float("inf")])
    tensors[name] = {"value": tensor, "shape": tensor.reshape(-1)[1:], "dtype": tensor.half()}[kind]
    with safetensors.safe_open(file, "pt") as opened:
        facts = opened.metadata()
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, facts)
    file.write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    resealed(folder, lambda body: body["files"].update({file.name: entry}))
    assert isinstance(tensor, torch.Tensor)
    return f"{kind} of {file.stem}/{name}"
