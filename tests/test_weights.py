"""Weights files: one file rebuilds the denoiser bit for bit, and any other file is refused in one line."""

from __future__ import annotations

import json
import math
import pickle
import random
import struct
from pathlib import Path
from unittest.mock import patch

import pytest
import safetensors.torch
import torch

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.config.config import fit, to_dict
from sfumato.config.presets import resolve
from sfumato.errors import UserError
from sfumato.nets.unet.unet import UNet
from sfumato.run.folder import Run
from sfumato.weights import _digest, pack, save_weights

SHAPE = (3, 8, 8)
KINDS, AGE = Attribute("class", ("cat", "dög")), Attribute("age", mean=3.25, std=0.1)
ATTRIBUTES = (KINDS, AGE)


@pytest.fixture(scope="module")
def config():
    overrides = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.attention": "1"}
    return fit(resolve("faces", None, {**overrides, "data.labels": "source"}), SHAPE, ATTRIBUTES)


@pytest.fixture(scope="module")
def net(config):
    torch.manual_seed(0)
    net = UNet(config.net).eval()
    for weight in net.parameters():  # nothing may stay at its special first value
        torch.nn.init.normal_(weight, std=0.1)
    return net


@pytest.fixture(scope="module")
def content(config, net):
    return pack(net.state_dict(), config, "ema", 1234, ATTRIBUTES, SHAPE)


def header(content: bytes) -> dict:
    """What a weights file says of itself, read with nothing but the safetensors layout."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["sfumato"])


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_one_file_rebuilds_the_denoiser(tmp_path, config, net):
    path = tmp_path / "w.safetensors"
    save_weights(path, net.state_dict(), config, "raw", 77, ATTRIBUTES, SHAPE)
    model = load(path)
    assert (model.config, model.kind, model.images, model.attributes, model.shape) == (
        config,
        "raw",
        77,
        ATTRIBUTES,
        SHAPE,
    )
    assert model.path == path
    assert not model.net.training
    assert not any(weight.requires_grad for weight in model.net.parameters())
    x, t = torch.randn(2, *SHAPE), torch.tensor([0.3, 1.0], dtype=torch.float64)
    told = torch.tensor([[0, math.nan], [math.nan, -0.7]])
    with torch.no_grad():
        assert torch.equal(model.net(x, t.float(), told), net(x, t.float(), told))
        prediction = model.denoiser(x, t, told)
    level = config.diffusion.build_schedule()(t).like(x)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, x, atol=1e-5)


def test_a_run_folder_stands_for_its_average(tmp_path, config, net, content):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        load(run)
    run.weights.mkdir(parents=True)
    with pytest.raises(UserError, match="no weights yet"):
        load(run.path)
    (run.weights / "ema.safetensors").write_bytes(content)
    for place in (run, run.path, str(run.path)):
        assert load(place).images == 1234


def test_every_flipped_bit_is_noticed(tmp_path, content):
    path, draw = tmp_path / "w.safetensors", random.Random(0)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    places = [0, 3, 8, header - 1, header, len(content) - 1]
    places += [draw.randrange(8, header) for _ in range(60)] + [draw.randrange(header, len(content)) for _ in range(20)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            load(path)
        assert "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 200, 0.5, -1])
def test_truncated_files_are_refused(tmp_path, content, size):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content[: size if isinstance(size, int) else int(size * len(content))])
    refused(path, "readable")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_foreign_files_are_refused_and_nothing_of_them_is_run(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "readable")
    torch.save({"a": torch.zeros(3)}, path)
    refused(path, "readable")
    safetensors.torch.save_file({"a": torch.zeros(3)}, path)
    refused(path, "not written by sfumato")
    safetensors.torch.save_file({"a": torch.zeros(3)}, path, {"format": "pt"})
    refused(path, "not written by sfumato")
    for entry in ("[1]", "{", "[" * 100_000):
        safetensors.torch.save_file({"a": torch.zeros(3)}, path, {"sfumato": entry})
        refused(path, "not written by sfumato")
    safetensors.torch.save_file({"a": torch.zeros(3)}, path, {"sfumato": '{"version": 99}'})
    refused(path, "version 99")
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(path, "readable")


def forged(path: Path, net, config, monkeypatch, **changes: object) -> Path:
    """Write a weights file whose checksum is right and whose configuration lies."""
    table = to_dict(config)
    for key, value in changes.items():
        table["net" if key in table["net"] else "diffusion"][key] = value
    with monkeypatch.context() as patch:
        patch.setattr("sfumato.weights.to_dict", lambda _: table)
        path.write_bytes(pack(net.state_dict(), config, "ema", 0, ATTRIBUTES, SHAPE))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": 16}, "not those of the network"),
        ({"base": 2**40, "groups": 1}, "absurdly large"),  # a petabyte, were it built
        ({"blocks": 10**9}, "absurdly large"),
        ({"blocks": 10**6}, "not those of the network"),
        ({"multipliers": [1] * 10**5, "attention": []}, "absurdly large"),
        ({"multipliers": [1] * 1000, "attention": []}, "not those of the network"),
        ({"conditions": []}, "not those of the network"),
        ({"base": "big"}, "header"),
        ({"kind": "os.system"}, "unknown key diffusion.kind"),
        ({"schedule": {"kind": "os.system"}}, "os.system"),
        ({"schedule": {"kind": "linear", "num_steps": 10**12}}, "num_steps"),
    ],
)
def test_a_configuration_that_lies_is_refused(tmp_path, net, config, monkeypatch, changes, words):
    refused(forged(tmp_path / "w.safetensors", net, config, monkeypatch, **changes), words)


@pytest.mark.parametrize("fact", ["config", "images", "attributes", "shape", "kind", "sha256"])
def test_a_header_without_a_fact_is_refused(tmp_path, content, fact):
    path = tmp_path / "w.safetensors"
    facts = header(content)
    facts.pop(fact)
    safetensors.torch.save_file(safetensors.torch.load(content), path, {"sfumato": json.dumps(facts)})
    refused(path, "checksum")


def test_equal_weights_are_equal_files(config, net, content):
    assert pack(net.state_dict(), config, "ema", 1234, ATTRIBUTES, SHAPE) == content


def test_another_dtype_is_refused(tmp_path, config, net):
    path = tmp_path / "w.safetensors"
    save_weights(path, {k: v.half() for k, v in net.state_dict().items()}, config, "ema", 0, ATTRIBUTES, SHAPE)
    refused(path, "not those of the network")


def test_the_header_is_readable_without_us(content):
    assert header(content)["attributes"] == [
        {"name": "class", "values": ["cat", "dög"]},
        {"name": "age", "mean": 3.25, "std": 0.1},
    ]
    assert header(content)["config"]["net"]["base"] == 8


@pytest.mark.parametrize(
    "attributes", [None, [{}], [{"name": "a"}], [{"name": "a", "std": 0, "mean": 0}], [{"name": "", "values": ["x"]}]]
)
def test_attributes_that_can_not_be_are_refused(tmp_path, net, config, monkeypatch, attributes):
    path = tmp_path / "w.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("sfumato.weights.plain", lambda attribute: None)
        patch.setattr("sfumato.weights.json", Lying(attributes))
        path.write_bytes(pack(net.state_dict(), config, "ema", 0, ATTRIBUTES, SHAPE))
    refused(path, "header")


class Lying:
    """The json module, but for the attributes of what it writes."""

    def __init__(self, attributes):
        self.attributes = attributes

    def dumps(self, value, **options):
        return json.dumps({**value, "attributes": self.attributes} if isinstance(value, dict) else value, **options)


def first_version(net, config, labels: bool) -> bytes:
    """A file as version 1 wrote it: a list of classes, their number in the network, and one table."""
    table = to_dict(config)
    del table["data"]["attributes"]
    table["data"]["labels"] = labels
    count = table["net"].pop("conditions")
    table["net"]["num_classes"] = count[0] if labels else 0
    names = {"condition.parts.0.table.weight": "classes.table.weight"}
    tensors = {names.get(name, name): tensor.contiguous() for name, tensor in net.state_dict().items()}
    facts = {"version": 1, "kind": "ema", "images": 7, "shape": list(SHAPE), "config": table}
    facts["classes"] = list(KINDS.values) if labels else []
    facts["sha256"] = _digest(tensors, facts)
    return safetensors.torch.save(tensors, {"sfumato": json.dumps(facts)})


@pytest.mark.parametrize("labels", [True, False])
def test_a_file_of_the_first_version_is_the_same_network(tmp_path, labels):
    overrides = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.attention": "1"}
    known = (KINDS,) if labels else ()
    config = fit(resolve("faces", None, {**overrides, "data.labels": "source" if labels else "none"}), SHAPE, known)
    torch.manual_seed(0)
    net = UNet(config.net).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    path = tmp_path / "old.safetensors"
    path.write_bytes(first_version(net, config, labels))
    model = load(path)
    assert (model.config, model.attributes, model.images) == (config, known, 7)
    x, told = torch.randn(3, *SHAPE), torch.tensor([[0], [math.nan], [1]]) if labels else None
    with torch.no_grad():
        assert torch.equal(model.net(x, torch.ones(3), told), net(x, torch.ones(3), told))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    refused(path, "checksum")


@pytest.mark.parametrize("depth", [SIXTEEN, PixelFormat("float", -0.25, 300.0)])
def test_the_depth_is_kept_and_files_without_one_are_of_bytes(tmp_path, config, net, content, depth):
    path = tmp_path / "w.safetensors"
    save_weights(path, net.state_dict(), config, "ema", 1, ATTRIBUTES, SHAPE, depth)
    assert load(path).depth == depth
    path.write_bytes(content)
    assert load(path).depth == EIGHT
    with patch("sfumato.weights.depths.plain", lambda depth: None):
        path.write_bytes(pack(net.state_dict(), config, "ema", 1, ATTRIBUTES, SHAPE))
    assert header(path.read_bytes())["depth"] is None
    assert load(path).depth == EIGHT
    with patch("sfumato.weights.depths.plain", lambda depth: {"kind": "7", "low": 0, "high": 1}):
        path.write_bytes(pack(net.state_dict(), config, "ema", 1, ATTRIBUTES, SHAPE))
    refused(path, "depth '7'")
