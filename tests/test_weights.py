"""Weights files: one file rebuilds the denoiser bit for bit, and any other file is refused in one line."""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfumato.config import fit, resolve, to_dict
from sfumato.errors import UserError
from sfumato.nets import UNet
from sfumato.run import Run
from sfumato.weights import load_weights, pack, save_weights

SHAPE = (3, 8, 8)
CLASSES = ("cat", "dög")


@pytest.fixture(scope="module")
def config():
    overrides = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.attention": "1"}
    return fit(resolve("faces", None, {**overrides, "data.labels": "true"}), SHAPE, CLASSES)


@pytest.fixture(scope="module")
def net(config):
    torch.manual_seed(0)
    net = UNet(config.net).eval()
    for weight in net.parameters():  # nothing may stay at its special first value
        torch.nn.init.normal_(weight, std=0.1)
    return net


@pytest.fixture(scope="module")
def content(config, net):
    return pack(net.state_dict(), config, "ema", 1234, CLASSES, SHAPE)


def header(content: bytes) -> dict:
    """What a weights file says of itself, read with nothing but the safetensors layout."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["sfumato"])


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_weights(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


def test_one_file_rebuilds_the_denoiser(tmp_path, config, net):
    path = tmp_path / "w.safetensors"
    save_weights(path, net.state_dict(), config, "raw", 77, CLASSES, SHAPE)
    model = load_weights(path)
    assert (model.config, model.kind, model.images, model.classes, model.shape) == (config, "raw", 77, CLASSES, SHAPE)
    assert model.path == path
    assert not model.net.training
    assert not any(weight.requires_grad for weight in model.net.parameters())
    x, t, labels = torch.randn(2, *SHAPE), torch.tensor([0.3, 1.0], dtype=torch.float64), torch.tensor([0, -1])
    with torch.no_grad():
        assert torch.equal(model.net(x, t.float(), labels), net(x, t.float(), labels))
        prediction = model.denoiser(x, t, labels)
    level = config.diffusion.build_schedule()(t).like(x)
    assert torch.allclose(level.alpha * prediction.x0 + level.sigma * prediction.eps, x, atol=1e-5)


def test_a_run_folder_stands_for_its_average(tmp_path, config, net, content):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        load_weights(run)
    run.weights.mkdir(parents=True)
    with pytest.raises(UserError, match="no weights yet"):
        load_weights(run.path)
    (run.weights / "ema.safetensors").write_bytes(content)
    for place in (run, run.path, str(run.path)):
        assert load_weights(place).images == 1234


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
            load_weights(path)
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
        path.write_bytes(pack(net.state_dict(), config, "ema", 0, CLASSES, SHAPE))
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
        ({"num_classes": 0}, "not those of the network"),
        ({"base": "big"}, "header"),
        ({"kind": "os.system"}, "unknown key diffusion.kind"),
        ({"schedule": {"kind": "os.system"}}, "os.system"),
        ({"schedule": {"kind": "linear", "num_steps": 10**12}}, "num_steps"),
    ],
)
def test_a_configuration_that_lies_is_refused(tmp_path, net, config, monkeypatch, changes, words):
    refused(forged(tmp_path / "w.safetensors", net, config, monkeypatch, **changes), words)


@pytest.mark.parametrize("fact", ["config", "images", "classes", "shape", "kind", "sha256"])
def test_a_header_without_a_fact_is_refused(tmp_path, content, fact):
    path = tmp_path / "w.safetensors"
    facts = header(content)
    facts.pop(fact)
    safetensors.torch.save_file(safetensors.torch.load(content), path, {"sfumato": json.dumps(facts)})
    refused(path, "checksum")


def test_equal_weights_are_equal_files(config, net, content):
    assert pack(net.state_dict(), config, "ema", 1234, CLASSES, SHAPE) == content


def test_another_dtype_is_refused(tmp_path, config, net):
    path = tmp_path / "w.safetensors"
    save_weights(path, {k: v.half() for k, v in net.state_dict().items()}, config, "ema", 0, CLASSES, SHAPE)
    refused(path, "not those of the network")


def test_the_header_is_readable_without_us(content):
    assert header(content)["classes"] == list(CLASSES)
    assert header(content)["config"]["net"]["base"] == 8
