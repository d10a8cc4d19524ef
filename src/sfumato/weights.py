"""Weights files that say what they are: one file is enough to rebuild the denoiser, or to refuse.

A weights file is a safetensors file, tensors behind a JSON header, so reading one can't run code. The header's metadata
has one entry, "sfumato", itself JSON (one, since safetensors writes several in random order, and equal weights should
be equal files):

    version   of this layout                kind      "ema" or "raw"
    config    the whole configuration       images    seen when it was written
    shape     (C, H, W) of an image         attributes   what can be asked for
    depth     what its values are (`depth.Depth`); without it, bytes
    sha256    of all of the above and of every tensor

Safetensors itself has no checksum, and one flipped bit loads silently as another weight; hence the digest, over the
names, types, shapes and bytes of the tensors and the rest of the entry.

A file is a stranger until its digest and its shapes are right. The network is first built without memory (torch's meta
device), the shapes are compared, and only then are the weights given any; a header that promises a thousand blocks or a
billion channels is refused for the price of reading it.

Files of version 1 knew one list of classes in place of attributes; they are read as having the attribute `class`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sfumato.codec import pixels as depths
from sfumato.codec.pixels import EIGHT, Depth
from sfumato.conditions.attributes import Attribute, from_plain, plain
from sfumato.config.config import Config, from_dict, to_dict
from sfumato.diffusion import NetworkDenoiser
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.nets import UNet, UNetConfig
from sfumato.run.folder import Run

__all__ = ["Model", "load", "load_weights", "pack", "save_weights", "tensors_of"]

ENTRY, VERSION = "sfumato", 2


@dataclass(frozen=True)
class Model:
    """A network out of a weights file, ready to sample from.

    Attributes:
        net: the network, in evaluation mode.
        config: the configuration that it was trained with.
        denoiser: the network with its schedule and parameterisation.
        shape: (C, H, W) of its images.
        attributes: what can be asked for; empty for nothing.
        images: how many images it had seen.
        kind: `ema`, the average of the weights, or `raw`.
        path: the file.
        depth: what the values of its images are.
    """

    net: UNet
    config: Config
    denoiser: NetworkDenoiser
    shape: tuple[int, int, int]
    attributes: tuple[Attribute, ...]
    images: int
    kind: str
    path: Path
    depth: Depth = EIGHT


def tensors_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors wants them: on the CPU, in one piece, none sharing memory with another."""
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


def pack(
    state: Mapping[str, Tensor],
    config: Config,
    kind: str,
    images: int,
    attributes: Sequence[Attribute],
    shape: tuple[int, int, int],
    depth: Depth = EIGHT,
) -> bytes:
    """Return the content of a weights file. Arguments as `save_weights`."""
    assert kind in ("ema", "raw"), kind
    facts = {
        "version": VERSION,
        "kind": kind,
        "images": images,
        "shape": list(shape),
        "depth": depths.plain(depth),
        "attributes": [plain(attribute) for attribute in attributes],
        "config": to_dict(config),
    }
    tensors = tensors_of(state)
    facts["sha256"] = _digest(tensors, facts)
    content: bytes = safetensors.torch.save(tensors, {ENTRY: json.dumps(facts)})
    return content


def save_weights(
    path: Path | str,
    state: Mapping[str, Tensor],
    config: Config,
    kind: str = "ema",
    images: int = 0,
    attributes: Sequence[Attribute] = (),
    shape: tuple[int, int, int] = (3, 32, 32),
    depth: Depth = EIGHT,
) -> None:
    """Write a weights file, whole or not at all.

    Args:
        path: the file.
        state: the network's `state_dict()`.
        config: the configuration that it was trained with.
        kind: `ema` or `raw`.
        images: how many images it has seen.
        attributes: what it learnt of them.
        shape: (C, H, W) of its images.
        depth: what the values of its images are.

    Raises:
        OSError: as the file system has it.
    """
    write_atomic(Path(path), pack(state, config, kind, images, attributes, shape, depth))


def load_weights(path: Path | str | Run, device: torch.device | str = "cpu") -> Model:
    """Rebuild a network from a weights file.

    Args:
        path: a weights file, or a run folder (its `weights/ema.safetensors` is taken).
        device: where the network shall live.

    Raises:
        UserError: no such file, not one of ours, truncated, altered, or its tensors are not the network's that its
            header describes.
    """
    file = _locate(path)
    facts, tensors = _read(file)
    if facts.get("sha256") != _digest(tensors, facts):
        raise UserError(f"{file} is damaged: its checksum is not that of its content; take another copy or checkpoint")
    try:
        if facts["version"] == 1:
            facts, tensors = _upgraded(facts, tensors)
        config = from_dict(_plausible(facts["config"]))
        images, kind = int(facts["images"]), str(facts["kind"])
        attributes = tuple(from_plain(table) for table in facts["attributes"])
        channels, height, width = (int(size) for size in facts["shape"])
        depth = depths.from_plain(facts.get("depth"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a UserError is a ValueError
        raise UserError(f"{file}: its header can't be used ({error}); was it written by another version?") from None
    net = _build(config.net, tensors, file).to(device)
    denoiser = NetworkDenoiser(net, config.diffusion.build_schedule(), config.diffusion.build_parameterization())
    return Model(net, config, denoiser, (channels, height, width), attributes, images, kind, file, depth)


load = load_weights


def _locate(path: Path | str | Run) -> Path:
    """Return the weights file that a path means."""
    place = path.path if isinstance(path, Run) else Path(path)
    file = place / "weights" / "ema.safetensors" if place.is_dir() else place
    if not file.is_file():
        missing = "has no weights yet" if place.is_dir() else "does not exist"
        raise UserError(f"{place} {missing}: give a weights file, or a run folder that has saved a checkpoint")
    return file


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a weights file's header and tensors, none of them trusted yet."""
    try:
        with safetensors.safe_open(file, framework="pt", device="cpu") as content:
            facts = _facts((content.metadata() or {}).get(ENTRY), file)
            return facts, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} is not a readable weights file ({reason}): it may be cut short") from None


def _facts(entry: str | None, file: Path) -> dict[str, Any]:
    """Return what the header's entry says, if it is ours and of this version."""
    try:
        facts = json.loads(entry or "null")
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{file} was not written by sfumato: give the weights file of a run")
    if facts.get("version") not in (1, VERSION):
        raise UserError(f"{file} has layout version {facts.get('version')}; this sfumato reads versions 1 to {VERSION}")
    return facts


def _upgraded(facts: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a file of version 1 as one of this version: its classes are the attribute `class`."""
    config, classes = facts["config"], tuple(str(name) for name in facts["classes"])
    net = {name: value for name, value in config["net"].items() if name != "num_classes"}
    net["conditions"] = [len(classes)] * bool(config["net"]["num_classes"])
    data = {**config["data"], "labels": "source" if config["data"]["labels"] else "none"}
    attributes = [plain(Attribute("class", classes))] if net["conditions"] else []
    old, new = "classes.table.weight", "condition.parts.0.table.weight"
    return (
        {**facts, "config": {**config, "net": net, "data": data}, "attributes": attributes},
        {new if name == old else name: tensor for name, tensor in tensors.items()},
    )


def _plausible(table: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's table, unless its network has a number so absurd that even checking it takes for ever.

    Raises:
        ValueError: such a number.
    """
    lists = [value if isinstance(value, list) else [value] for value in table["net"].values()]
    if any(len(values) > 1000 or any(isinstance(n, int) and n > 1_000_000 for n in values) for values in lists):
        raise ValueError("its network is absurdly large")
    return table


def _build(config: UNetConfig, tensors: dict[str, Tensor], file: Path) -> UNet:
    """Build the network around the tensors, or refuse when they are not its own."""
    mismatch = UserError(f"{file}: its tensors are not those of the network that its header describes; take another")
    if len(config.multipliers) * config.blocks > len(tensors):  # each block has tensors: it can't be built, nor in time
        raise mismatch
    with torch.device("meta"):
        net = UNet(config)
    wanted: dict[str, Any] = net.state_dict()
    if {name: (t.shape, t.dtype) for name, t in tensors.items()} != {
        name: (t.shape, t.dtype) for name, t in wanted.items()
    }:
        raise mismatch
    net.load_state_dict(tensors, assign=True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)
