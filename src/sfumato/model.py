"""A trained model: the network of a weights file with everything that sampling, editing and scoring need.

A file is not trusted before its digest and its shapes are checked. The network is first built without memory (torch's
meta device), the shapes are compared, and only then is memory allocated; a header with a thousand blocks or a billion
channels is refused at once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato import session
from sfumato.codec import format as formats
from sfumato.codec.protocol import Codec
from sfumato.conditions.attributes import Attribute, plain
from sfumato.conditions.protocol import Vocabulary
from sfumato.conditions.registry import from_plain
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config import tree
from sfumato.config.config import Config, from_stored, own_files, to_dict
from sfumato.config.data import LARGEST_SIDE, MOST_CHANNELS, DataConfig
from sfumato.data.dataset import Dataset, open_data
from sfumato.data.sources.builtin import BUILTIN
from sfumato.data.sources.protocol import printable
from sfumato.diffusion import NetworkDenoiser, Schedule
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.nets import Interface, Network, NetworkConfig
from sfumato.nets.cost import Cost
from sfumato.plugins import changed, missing
from sfumato.run.folder import WEIGHTS, Run
from sfumato.run.locate import locate, run_of
from sfumato.run.places import located
from sfumato.weights import pack, read, unusable

LOG = logging.getLogger("sfumato")

MOST_ATTRIBUTES = 1000


@dataclass(frozen=True)
class Model:
    """A network from a weights file, ready to sample from.

    Attributes:
        net: the network, in evaluation mode.
        config: the configuration that it was trained with.
        denoiser: the network with its schedule and parameterisation.
        codec: converts stored images to x_0 and back.
        vocabulary: of its conditions; None where it has none.
        images: number of training images seen.
        kind: `ema`, the average of the weights, or `raw`.
        path: the file; empty for a model in training.
        file_sha256: the hash of the file as it was read; empty where it is to be computed.
        origin: the library and the file that it was imported from; empty where it was trained here.
    """

    net: Network = field(repr=False)
    config: Config = field(repr=False)
    denoiser: NetworkDenoiser = field(repr=False)
    codec: Codec
    vocabulary: Vocabulary | None
    images: int = 0
    kind: str = "ema"
    path: Path = Path()
    file_sha256: str = field(default="", repr=False)
    origin: str = field(default="", repr=False)

    def __repr__(self) -> str:
        names = "".join(f", {attribute.name}" for attribute in self.attributes)
        size, path = "x".join(map(str, self.shape)), str(self.path) if self.path.name else "in training"
        return f"<Model {path}: {self.kind} weights of {self.images} images seen, makes {size}{names}>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x_0."""
        return self.codec.shape

    @property
    def schedule(self) -> Schedule:
        """The noise levels of its chain."""
        return self.denoiser.schedule

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The attributes of the vocabulary; () where it is of another kind."""
        return self.vocabulary.attributes if isinstance(self.vocabulary, AttributeVocabulary) else ()

    @cached_property
    def sha256(self) -> str:
        """The hash of the file: it identifies the model in results."""
        if self.file_sha256:
            return self.file_sha256
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def describe(self) -> dict[str, Any]:
        """Return the facts in the weights file, as JSON has them."""
        cost = self.net.cost(*self.shape[1:])
        return {
            "parameters": cost.parameters,
            "flops": cost.flops,
            "shape": self.codec.image_shape,
            "channels": self.codec.image_shape[0],
            "depth": formats.plain(self.codec.format),
            "attributes": [plain(attribute) for attribute in self.attributes],
            "vocabulary": None if self.vocabulary is None else self.vocabulary.plain(),
            "images_seen": self.images,
            "weights": str(self.path),
            "weights_kind": self.kind,
            "weights_bytes": self.path.stat().st_size,
            "origin": self.origin,
        }

    def header(self) -> dict[str, Any]:
        """Return the facts that a file of this model has of itself, from which `load` rebuilds it."""
        return _header(self.config, self.codec, self.vocabulary, self.kind, self.images)

    def data(self, **options: Any) -> Dataset:
        """Open the images that it was trained on, in its size also where another would be chosen today; options and
        errors as `open_data`, and those of `data_config`."""
        config, size = self.data_config(), self.codec.image_shape[1:]
        images = open_data(config, **options)
        return images if config.size or images.shape[1:] == size else open_data(replace(config, size=size), **options)

    def data_config(self, source: str | None = None) -> DataConfig:
        """Return the configuration of its own images, or of others, `source`, that are read as its own are; the labels
        come with them where only the file names a path of labels.

        A weights file may come from a stranger, who must not decide what is opened here. Only the config.toml of its
        run folder may name a path or a download; a file alone can name built-in images. Raises `UserError` where it
        names anything else, and no source is given.
        """
        run, data = None if self.path == Path() else run_of(self.path), self.config.data
        if run is not None:
            data = located(run)
        elif self.path != Path():
            if data.labels not in ("none", "source"):
                data = replace(data, labels="source") if source is not None else data
            if source is None and (data.source not in BUILTIN or data.labels not in ("none", "source")):
                raise UserError(
                    f"{self.path} names '{data.source}' with labels '{data.labels}' as its images, and a weights file "
                    "alone can't have them opened: give its run folder, or name the images with --data"
                )
        return data if source is None else replace(data, source=source)


def untrained(config: Config, data: Dataset) -> Network:
    """Return the network that a configuration would train on data, on the meta device: it can be counted, not run."""
    channels = config.codec.build(data.format, data.shape).shape[0]
    with torch.device("meta"):
        return config.net.build(config.interface(channels, data.vocabulary))


def cost_of(config: Config, data: Dataset) -> Cost:
    """Return the cost of an image for the network that a configuration would train on data."""
    _, height, width = config.codec.build(data.format, data.shape).shape
    return untrained(config, data).cost(height, width)


def packed(
    state: Mapping[str, Tensor],
    config: Config,
    codec: Codec,
    vocabulary: Vocabulary | None = None,
    kind: str = "ema",
    images: int = 0,
    origin: str = "",
) -> bytes:
    """Return the content of a weights file.

    Args:
        state: the network's `state_dict()`.
        config: the configuration that it was trained with.
        codec: of its images.
        vocabulary: of its conditions; None where it has none.
        kind: `ema` or `raw`.
        images: number of training images seen.
        origin: the library and the file that it was imported from.
    """
    facts = _header(config, codec, vocabulary, kind, images)
    return pack(state, facts | ({"origin": origin} if origin else {}))


def _header(config: Config, codec: Codec, vocabulary: Vocabulary | None, kind: str, images: int) -> dict[str, Any]:
    """The facts that a weights file has of itself."""
    assert kind in ("ema", "raw"), kind
    facts = {
        "kind": kind,
        "images": images,
        "shape": list(codec.image_shape),
        "depth": formats.plain(codec.format),
        "vocabulary": None if vocabulary is None else vocabulary.plain(),
        "config": to_dict(config),
    }
    return facts | ({"plugins": own} if (own := own_files(config)) else {})


def save(path: Path | str, state: Mapping[str, Tensor], config: Config, codec: Codec, **facts: Any) -> None:
    """Write a weights file, whole or not at all; arguments as `packed`, `OSError` as the file system has it.

    Weights in float16, half the bytes, are read as float32.
    """
    write_atomic(Path(path), packed(state, config, codec, **facts))


def load(path: Path | str | Run, weights: str = "ema", device: torch.device | str = "cpu") -> Model:
    """Rebuild a model from a weights file.

    Args:
        path: a weights file, a run folder, one of its checkpoints, a name of `SHIPPED`, or an ONNX file of
            `sfumato export`, which onnxruntime runs on the CPU.
        weights: which of a run folder's weights, `ema`, `raw` or `best`, or a weights file.
        device: for the network.

    Raises:
        UserError: no such file, not written by sfumato, truncated, altered, or with other tensors than its header's
            network.
    """
    file = locate(path, weights)
    exported = file.suffix.lower() == session.SUFFIX
    facts, content, sha256 = session.read(file) if exported else read(file)
    try:
        config = from_stored(_plausible(facts["config"]))
        channels, height, width = facts["shape"]
        shape = _whole(channels, 1, MOST_CHANNELS), _whole(height, 1, LARGEST_SIDE), _whole(width, 1, LARGEST_SIDE)
        codec = config.codec.build(formats.from_plain(facts.get("depth")), shape)
        vocabulary, images, kind = from_plain(facts["vocabulary"]), _whole(facts["images"], 0, 2**53), facts["kind"]
        if isinstance(vocabulary, AttributeVocabulary) and len(vocabulary.attributes) > MOST_ATTRIBUTES:
            raise ValueError(f"{len(vocabulary.attributes):,} attributes")
        if kind not in WEIGHTS[:2]:
            raise ValueError(f"weights of kind {str(kind)[:40]!r}")
        schedule = config.diffusion.build_schedule()
        if not 0 < float(schedule(0.5).alpha) < 1:
            raise ValueError("a schedule without noise levels")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if needed := missing(facts.get("plugins")):
            raise UserError(f"{file}: {str(error)[:300]}{needed}") from None
        raise unusable(file, error) from None  # a UserError is a ValueError
    if change := changed(facts.get("plugins"), own_files(config)):
        LOG.warning("%s", change)
    interface = config.interface(codec.shape[0], vocabulary)
    net: Network
    if isinstance(content, bytes):
        net = session.SessionNetwork(content, facts, interface, codec.shape, file).eval()
    else:
        net = _build(config.net, interface, content, file).to(device)
    denoiser = NetworkDenoiser(net, schedule, config.diffusion.build_parameterization())
    origin = printable(str(facts.get("origin", ""))[:200])
    return Model(net, config, denoiser, codec, vocabulary, images, kind, file, sha256, origin)


def _plausible(table: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's table, unless a number of its network is so large that even checking it takes too long.
    Raises ValueError for such a number."""
    lists = [value if isinstance(value, list) else [value] for value in tree.flatten(table["net"]).values()]
    if any(len(values) > 1000 or any(isinstance(n, int) and n > 1_000_000 for n in values) for values in lists):
        raise ValueError("its network is too large to be built")
    return table


def _whole(value: Any, least: int, most: int) -> int:
    """Return a whole number within bounds; raises ValueError for anything else."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number from {least:,} to {most:,}")
    return value


def _build(config: NetworkConfig, interface: Interface, tensors: dict[str, Tensor], file: Path) -> Network:
    """Build the network and give it the tensors; raise `UserError` where they do not fit."""
    mismatch = UserError(f"{file}: its tensors do not fit the network in its header: use another file")
    if config.least_tensors > len(tensors):  # too few tensors: do not even build it
        raise mismatch
    with torch.device("meta"):
        net = config.build(interface)
    expected: dict[str, Any] = net.state_dict()
    tensors = {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
    if {name: (t.shape, t.dtype) for name, t in tensors.items()} != {
        name: (t.shape, t.dtype) for name, t in expected.items()
    }:
        raise mismatch
    net.load_state_dict(tensors, assign=True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)
