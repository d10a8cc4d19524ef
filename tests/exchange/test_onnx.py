"""ONNX files: onnxruntime gives the network's numbers, all samplers work on them, nothing damaged is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config, from_dict
from sfumato.diffusion import SAMPLERS
from sfumato.errors import UserError, command
from sfumato.exchange import graph
from sfumato.exchange.export import export
from sfumato.generate.compiled import compiled
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import Model, load
from sfumato.session import SessionNetwork, pack

from .models import NET, random_model

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TRANSFORMER = {"kind": "transformer", "width": 16, "depth": 1, "heads": 2, "patch": 2}
LABELS = AttributeVocabulary((Attribute("class", ("cat", "dog", "eel")), Attribute("age", mean=40.0, std=10.0)))


def config(net: dict[str, Any], **diffusion: Any) -> Config:
    return from_dict({"net": net, "diffusion": {"schedule": {"kind": "cosine", "num_steps": 50}, **diffusion}})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """A U-Net with labels, patches and sides that are extended, and the same as an ONNX file."""
    folder = tmp_path_factory.mktemp("onnx")
    model = random_model(folder / "x.safetensors", config(NET | {"patch": 2}), (1, 7, 9), LABELS)
    export(model, "onnx", folder / "x.onnx")
    return model, load(folder / "x.onnx")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A transformer with a learned variance and no labels, and where its ONNX file with halved weights is."""
    folder = tmp_path_factory.mktemp("onnx")
    chosen = config(TRANSFORMER, variance="learned", objective="hybrid")
    model = random_model(folder / "t.safetensors", chosen, (3, 8, 8))
    written = export(model, "onnx", folder / "t.onnx", {"dtype": "float16"})
    assert written.lines[-1] == command("sample", folder / "t.onnx"), "a command that runs"
    return model, folder / "t.onnx"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_the_same_images(sampler: str, pair: tuple[Model, Model]) -> None:
    recipe = Recipe(sampler, steps=4, guidance=2.0)
    ours, theirs = (sample(model, 3, recipe, seed=3, condition="dog", batch=2) for model in pair)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=0)


def test_conditions_that_are_not_given_and_batches_of_any_size(pair: tuple[Model, Model]) -> None:
    model, session = pair
    for num in (1, 7):
        x, time = torch.randn(num, 1, 7, 9), torch.rand(num) * 49
        for condition in (None, LABELS.rows([[torch.nan, 1.5]] * num), LABELS.rows([[2.0, torch.nan]] * num)):
            torch.testing.assert_close(
                session.net(x, time, condition), model.net(x, time, condition), atol=1e-5, rtol=1e-5
            )


def test_other_programs_find_what_they_need(pair: tuple[Model, Model]) -> None:
    import onnx

    model, session = pair
    proto = onnx.load(session.path)
    onnx.checker.check_model(proto)
    assert b"stack_trace" not in session.path.read_bytes()
    assert b".py" not in session.path.read_bytes(), "no path of the machine that wrote it"
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]
    (entry,) = proto.metadata_props
    facts = json.loads(entry.value)
    assert facts["predicts"] == "v"
    assert facts["vocabulary"]["attributes"][0]["values"] == ["cat", "dog", "eel"]
    steps = torch.arange(1, 51, dtype=torch.float64) / 50
    np.testing.assert_array_equal(facts["abar"], model.schedule(steps).abar)


def test_the_facts_are_those_of_the_weights(pair: tuple[Model, Model]) -> None:
    model, session = pair
    assert (session.config, session.codec, session.vocabulary) == (model.config, model.codec, model.vocabulary)
    assert session.net.cost(7, 9) == model.net.cost(7, 9)
    assert isinstance(session.net, SessionNetwork)


def test_half_the_bytes_and_only_the_rounding_of_the_weights(learned: tuple[Model, Path]) -> None:
    import onnx

    model, file = learned
    stored = dict.fromkeys((onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16), 0)
    for tensor in onnx.load(file).graph.initializer:
        if tensor.data_type in stored:
            stored[tensor.data_type] += int(np.prod(tensor.dims))
    assert stored[onnx.TensorProto.FLOAT16] > 0.8 * model.net.cost(8, 8).parameters > 5 * stored[onnx.TensorProto.FLOAT]
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 40.0])
    output, expected = load(file).net(x, time), graph.rounded(model).net(x, time)
    assert output.shape == (2, 6, 8, 8)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(output, model.net(x, time), atol=1e-6, rtol=0)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    model = random_model(tmp_path / "x.safetensors", config(TRANSFORMER), (1, 4, 4))
    with torch.no_grad():
        model.net.blocks[0].widen.weight[0, 0] = 1e6
    with pytest.raises(UserError, match="beyond the range of float16"):
        export(model, "onnx", tmp_path / "x.onnx", {"dtype": "float16"})
    assert not (tmp_path / "x.onnx").exists()


def test_a_graph_that_gives_other_numbers_is_not_written(
    learned: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = learned
    content = file.read_bytes()
    other = random_model(tmp_path / "o.safetensors", model.config, model.shape)
    with torch.no_grad():
        other.net.exit.dense.bias += 0.01
    monkeypatch.setattr("sfumato.exchange.onnx.graph", lambda *_, **__: content)
    monkeypatch.setattr("sfumato.exchange.onnx.pack", lambda graph, *_: graph)
    with pytest.raises(UserError, match="other numbers"):
        export(other, "onnx", tmp_path / "o.onnx", {"dtype": "float16"})
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("change", ["weight", "fact", "cut", "grown"])
def test_a_damaged_file_is_refused(change: str, learned: tuple[Model, Path], tmp_path: Path) -> None:
    content = bytearray(learned[1].read_bytes())
    if change == "weight":
        content[len(content) // 3] ^= 1
    elif change == "fact":
        content = content.replace(b'"images": 1', b'"images": 2')
    elif change == "cut":
        content = content[:-5]
    else:
        content += b"\x08\x01"  # another field of the same message
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|was not written by sfumato"):
        load(tmp_path / "bad.onnx")


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, content in {"text": b"hello, world", "empty": b"", "foreign": b"\x08\x08\x12\x07pytorch"}.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(UserError, match="was not written by sfumato"):
            load(tmp_path / f"{name}.onnx")


def test_a_header_of_another_graph_is_refused(learned: tuple[Model, Path], tmp_path: Path) -> None:
    model, file = learned
    import onnx

    facts = json.loads(onnx.load(file).metadata_props[0].value)
    content = file.read_bytes()[: facts["graph"]]
    kept = {name: facts[name] for name in ("kind", "images", "shape", "depth", "vocabulary", "config")}
    for name, changed in {
        "size": kept | {"shape": [3, 9, 9]}, "labels": kept | {"vocabulary": LABELS.plain()},
        "truth": kept, "kind": kept | {"kind": "best"},
    }.items():  # fmt: skip
        (tmp_path / f"{name}.onnx").write_bytes(pack(content, changed, model.net.cost(8, 8)))
    assert load(tmp_path / "truth.onnx").shape == (3, 8, 8)
    for name, message in {"size": "inputs are not those", "labels": "inputs are not those", "kind": "kind"}.items():
        with pytest.raises(UserError, match=message):
            load(tmp_path / f"{name}.onnx")


def test_what_a_session_cannot_do_is_said(pair: tuple[Model, Model], tmp_path: Path) -> None:
    _, session = pair
    with pytest.raises(UserError, match="has no gradients"):
        session.net(torch.zeros(1, 1, 7, 9, requires_grad=True), torch.zeros(1))
    with pytest.raises(UserError, match="takes images of 1x7x9, not 1x8x8"):
        session.net(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    with pytest.raises(UserError, match="can't be converted"):
        export(session, "onnx", tmp_path / "again.onnx")
    with pytest.raises(UserError, match="leave --compile out"):
        compiled(session, 4)
