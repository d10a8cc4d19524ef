"""Weights files: one file rebuilds the denoiser bit for bit, and any other file is refused in one line."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import random
import struct
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.conditions.attributes import Attribute, plain
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import to_dict, to_toml
from sfumato.config.presets import resolve
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.model import load, packed, save
from sfumato.run.folder import Run
from sfumato.weights import _digest, pack, read

SHAPE = (3, 8, 8)
KINDS, AGE = Attribute("class", ("cat", "dög")), Attribute("age", mean=3.25, std=0.1)
ATTRIBUTES = (KINDS, AGE)
VOCABULARY, CODEC = AttributeVocabulary(ATTRIBUTES), Pixels(EIGHT, SHAPE)


@pytest.fixture(scope="module")
def config():
    overrides = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.attention": "1"}
    return resolve("small16", None, {**overrides, "data.labels": "source"})


@pytest.fixture(scope="module")
def net(config):
    torch.manual_seed(0)
    net = config.net.build(config.interface(3, VOCABULARY)).eval()
    for weight in net.parameters():  # nothing may stay at its special first value
        torch.nn.init.normal_(weight, std=0.1)
    return net


@pytest.fixture(scope="module")
def content(config, net):
    return packed(net.state_dict(), config, CODEC, VOCABULARY, "ema", 1234)


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
    save(path, net.state_dict(), config, CODEC, vocabulary=VOCABULARY, kind="raw", images=77)
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
    condition = Attributes(torch.tensor([[0, math.nan], [math.nan, -0.7]]))
    with torch.no_grad():
        assert torch.equal(model.net(x, t.float(), condition), net(x, t.float(), condition))
        prediction = model.denoiser(x, t, condition)
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
    refused(path, "is not a weights file but a ZIP archive")
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


def forged(path: Path, net, facts: dict, **changes: object) -> Path:
    """Write a weights file whose checksum is right and whose facts lie."""
    path.write_bytes(pack(net.state_dict(), {**facts, **changes}))
    return path


@pytest.fixture
def facts(content) -> dict:
    known = header(content)
    return {name: known[name] for name in known if name not in ("version", "sha256")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": 16}, "do not fit the network"),
        ({"base": 2**40, "groups": 1}, "too large to be built"),  # a petabyte, were it built
        ({"blocks": 10**9}, "too large to be built"),
        ({"blocks": 10**6}, "do not fit the network"),
        ({"multipliers": [1] * 10**5, "attention": []}, "too large to be built"),
        ({"multipliers": [1] * 1000, "attention": []}, "do not fit the network"),
        ({"base": "big"}, "header"),
        ({"kind": "os.system"}, "unknown key diffusion.kind"),
        ({"schedule": {"kind": "os.system"}}, "os.system"),
        ({"schedule": {"kind": "linear", "num_steps": 10**12}}, "num_steps"),
    ],
)
def test_a_configuration_that_lies_is_refused(tmp_path, net, config, facts, changes, words):
    table = to_dict(config)
    for key, value in changes.items():
        table["net" if key in table["net"] and key != "kind" else "diffusion"][key] = value
    refused(forged(tmp_path / "w.safetensors", net, facts, config=table), words)


@pytest.mark.parametrize("shape", [[3, 8], [0, 8, 8], [2**40, 8, 8], "big", None])
def test_a_shape_that_lies_is_refused(tmp_path, net, facts, shape):
    refused(forged(tmp_path / "w.safetensors", net, facts, shape=shape), "header")


@pytest.mark.parametrize("fact", ["config", "images", "vocabulary", "shape", "kind", "sha256"])
def test_a_header_without_a_fact_is_refused(tmp_path, content, fact):
    path = tmp_path / "w.safetensors"
    facts = header(content)
    facts.pop(fact)
    safetensors.torch.save_file(safetensors.torch.load(content), path, {"sfumato": json.dumps(facts)})
    refused(path, "checksum")


def test_equal_weights_are_equal_files(config, net, content):
    assert packed(net.state_dict(), config, CODEC, VOCABULARY, "ema", 1234) == content


def test_another_dtype_is_refused(tmp_path, config, net):
    path = tmp_path / "w.safetensors"
    save(path, {k: v.double() for k, v in net.state_dict().items()}, config, CODEC, vocabulary=VOCABULARY)
    refused(path, "do not fit the network")


def test_the_header_is_readable_without_us(content):
    assert header(content)["vocabulary"]["attributes"] == [
        {"name": "class", "values": ["cat", "dög"]},
        {"name": "age", "mean": 3.25, "std": 0.1},
    ]
    assert header(content)["config"]["net"]["base"] == 8


@pytest.mark.parametrize(
    "vocabulary",
    [
        {"kind": "attributes", "attributes": attributes}
        for attributes in (
            None,
            [{}],
            [{"name": "a"}],
            [{"name": "a", "std": 0, "mean": 0}],
            [{"name": "", "values": ["x"]}],
        )
    ]
    + [{}, {"kind": "os.system"}, 7],
)
def test_vocabularies_that_can_not_be_are_refused(tmp_path, net, facts, vocabulary):
    refused(forged(tmp_path / "w.safetensors", net, facts, vocabulary=vocabulary), "header")


def earlier(net, config, version: int, labels: bool) -> bytes:
    """A file as version 1 or 2 wrote it: with the network's channels and conditions in its configuration, and a list of
    classes and one table for them (1), or a list of attributes (2)."""
    table = to_dict(config)
    del table["codec"], table["net"]["kind"]
    table["net"] |= {"channels": 3, "learned_variance": False, "augment": 0}
    tensors = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    facts = {"version": version, "kind": "ema", "images": 7, "shape": list(SHAPE), "config": table}
    if version == 1:
        del table["data"]["attributes"], table["net"]["augment"]
        table["data"]["labels"], table["net"]["num_classes"] = labels, 2 * labels
        names = {"condition.parts.0.table.weight": "classes.table.weight"}
        tensors = {names.get(name, name): tensor for name, tensor in tensors.items()}
        facts["classes"] = list(KINDS.values) if labels else []
    else:
        table["net"]["conditions"] = [2] * labels
        facts |= {"attributes": [{"name": "class", "values": list(KINDS.values)}] * labels, "depth": None}
    facts["sha256"] = _digest(tensors, facts)
    return safetensors.torch.save(tensors, {"sfumato": json.dumps(facts)})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("labels", [True, False])
def test_a_file_of_an_earlier_version_is_the_same_network(tmp_path, version, labels):
    overrides = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.attention": "1"}
    known = (KINDS,) if labels else ()
    config = resolve("small16", None, {**overrides, "data.labels": "source" if labels else "none"})
    torch.manual_seed(0)
    net = config.net.build(config.interface(3, AttributeVocabulary(known) if labels else None)).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    path = tmp_path / "old.safetensors"
    path.write_bytes(earlier(net, config, version, labels))
    model = load(path)
    assert (model.config, model.attributes, model.images) == (config, known, 7)
    condition = Attributes(torch.tensor([[0], [math.nan], [1]])) if labels else None
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.equal(model.net(x, torch.ones(3), condition), net(x, torch.ones(3), condition))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    refused(path, "checksum")


@pytest.mark.parametrize("format", [SIXTEEN, PixelFormat("float", -0.25, 300.0)])
def test_the_format_is_kept_and_files_without_one_are_of_bytes(tmp_path, config, net, facts, format):
    path = tmp_path / "w.safetensors"
    save(path, net.state_dict(), config, Pixels(format, SHAPE), vocabulary=VOCABULARY)
    assert load(path).codec == Pixels(format, SHAPE)
    assert load(forged(path, net, facts, depth=None)).codec == CODEC
    refused(forged(path, net, facts, depth={"kind": "7", "low": 0, "high": 1}), "depth '7'")


def test_which_weights_of_a_run(tmp_path, content):
    run = Run(tmp_path / "run")
    run.weights.mkdir(parents=True)
    (run.weights / "best.safetensors").write_bytes(content)
    assert load(run, "best").path.name == "best.safetensors"
    assert load(run, str(run.weights / "best.safetensors")).images == 1234
    with pytest.raises(UserError, match="no raw weights"):
        load(run, "raw")


# --- facts of strangers


@pytest.mark.parametrize(
    ("fact", "values"),
    [
        ("kind", [None, 7, "best", "os.system", ["ema"], {}]),
        ("images", [-1, 1.5, "7", True, None, math.inf, 2**60, [1]]),
        (
            "shape",
            [
                [1, -8, 8],
                [3, 0, 0],
                [3, True, 8],
                [3, 8.0, 8],
                [3, math.inf, 8],
                [3, 8, 10**7],
                [10**5, 8, 8],
                [3, 8, 8, 8],
                {"a": 1},
                7,
            ],
        ),
        (
            "vocabulary",
            [{"kind": "attributes", "attributes": [{"name": f"a{i}", "values": ["x"]} for i in range(1001)]}],
        ),
        ("depth", [7, [], {"kind": "float", "low": math.inf, "high": 1}]),
        ("config", [None, [], "x", {"net": 3}]),
    ],
)
def test_facts_that_can_not_be_are_refused(tmp_path, net, facts, fact, values):
    for value in values:
        refused(forged(tmp_path / "w.safetensors", net, facts, **{fact: value}), "header|tensors do not fit")


def test_another_number_of_channels_or_attributes_is_refused(tmp_path, net, facts):
    refused(forged(tmp_path / "w.safetensors", net, facts, shape=[1, 8, 8]), "do not fit")
    one = {"kind": "attributes", "attributes": [{"name": "class", "values": ["cat"]}]}
    refused(forged(tmp_path / "w.safetensors", net, facts, vocabulary=one), "do not fit")


@pytest.mark.parametrize("shift", [1e308, -1e308, 1e6])
def test_a_schedule_without_noise_is_refused(tmp_path, net, config, facts, shift):
    table = to_dict(config)
    table["diffusion"]["logsnr_shift"] = shift
    refused(forged(tmp_path / "w.safetensors", net, facts, config=table), "header")


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "a\nb", "\u202e", "\x9b"])
def test_control_characters_in_attributes_are_refused(tmp_path, net, facts, text):
    for attribute in ({"name": text, "values": ["x", "y"]}, {"name": "class", "values": ["x", f"y{text}"]}):
        vocabulary = {"kind": "attributes", "attributes": [attribute, plain(AGE)]}
        path = forged(tmp_path / "w.safetensors", net, facts, vocabulary=vocabulary)
        refused(path, "control character")
        with pytest.raises(UserError) as error:
            load(path)
        assert str(error.value).isprintable()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, config, net, value):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    next(reversed(state.values())).view(-1)[-1] = value
    path = tmp_path / "w.safetensors"
    save(path, state, config, CODEC, vocabulary=VOCABULARY)
    refused(path, r"not finite.*weights/best\.safetensors")


def test_special_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "w")
    for path in (tmp_path / "w", Path("/dev/zero")):
        with pytest.raises(UserError, match=r"does not exist|readable"):
            load(path)
        with pytest.raises(UserError, match="not a regular file"):
            read(path)


def test_reading_beside_a_training_is_no_damage(tmp_path, config, net, content):
    """A file that is replaced while it is read is read as it was, the header and the tensors of one moment."""
    path = tmp_path / "w.safetensors"
    other = packed({name: t + 1 for name, t in net.state_dict().items()}, config, CODEC, VOCABULARY, "ema", 5678)
    write_atomic(path, content)
    ended = threading.Event()

    def replace():
        while not ended.is_set():
            for each in (other, content):
                part = path.with_name("part")
                part.write_bytes(each)
                part.replace(path)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        seen = [(facts["images"], sha256) for facts, _, sha256 in (read(path) for _ in range(300))]
    finally:
        ended.set()
        thread.join()
    assert set(seen) <= {(n, hashlib.sha256(c).hexdigest()) for n, c in ((1234, content), (5678, other))}


# --- which images a file can have opened


def named(config, source: str, labels: str):
    return {**to_dict(config), "data": {**to_dict(config)["data"], "source": source, "labels": labels}}


STRANGE = [("hf:evil/set", "source"), ("/etc", "none"), ("~root", "none"), ("faces", "/etc/passwd"), ("../x", "source")]


@pytest.mark.parametrize(("source", "labels"), STRANGE)
def test_a_file_alone_opens_no_path_and_no_download(tmp_path, net, config, facts, source, labels):
    path = forged(tmp_path / "w.safetensors", net, facts, config=named(config, source, labels))
    model, opened = load(path), []
    watching = [True]
    sys.addaudithook(
        lambda event, arguments: opened.append(arguments[:1]) if watching[0] and event in AUDITED else None
    )
    try:
        with pytest.raises(UserError, match=r"--data") as error:
            model.data()
    finally:
        watching[0] = False
    assert source in str(error.value)
    assert opened == []
    assert model.data_config("digits").source == "digits"
    assert model.data_config("digits").labels == ("source" if "/" in labels else labels)


AUDITED = ("open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo", "subprocess.Popen")


def test_a_run_folder_names_its_own_images(tmp_path, net, config, facts):
    run = Run(tmp_path / "run")
    run.weights.mkdir(parents=True)
    forged(run.weights_file(), net, facts, config=named(config, "/etc", "/etc/passwd"))
    with pytest.raises(UserError, match="--data"):
        load(run).data_config()
    own = replace(config, data=replace(config.data, source="/photos", labels="/photos/labels.csv"))
    run.config_path.write_text(to_toml(own))
    assert load(run).data_config() == own.data
    assert load(run).data_config("/others") == replace(own.data, source="/others")
