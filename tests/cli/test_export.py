"""`sfumato export`: where it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sfumato.exchange.formats import EXPORTS
from sfumato.model import load

from .conftest import Command


def test_weights_are_written_and_read_again(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    result = sfumato("export", plain, "--to", "safetensors", "--json", "--out", "out")
    assert json.loads(result.out)["out"] == "out"
    again, model = load(tmp_path / "out" / "model.safetensors"), load(plain)
    assert all(torch.equal(value, again.net.state_dict()[key]) for key, value in model.net.state_dict().items())
    facts = json.loads((tmp_path / "out" / "sfumato.json").read_text())
    assert facts["weights"]["sha256"] == model.sha256
    assert len(facts["abar"]) == model.schedule.num_steps
    assert facts["config"]["net"]["base"] == 8


def test_half_precision_takes_half_the_bytes(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    for name, words in (("whole", []), ("half", ["--set", "dtype=float16"])):
        assert sfumato("export", plain, "--to", "safetensors", "--out", name, *words).code == 0
    whole, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half"))
    assert 0.45 < half / whole < 0.65
    x, time = torch.randn(1, 1, 8, 8), torch.tensor([3.0])
    outputs = [load(tmp_path / name / "model.safetensors").net(x, time) for name in ("whole", "half")]
    torch.testing.assert_close(*outputs, atol=1e-2, rtol=1e-2)


def test_an_earlier_export_is_replaced_only_by_force_and_nothing_else_is(
    sfumato: Command, refused, plain: Path, tmp_path: Path
) -> None:
    assert sfumato("export", plain, "--to", "safetensors").code == 0  # RUN-FORMAT here
    out = tmp_path / "plain-safetensors"
    assert "--force" in refused("export", plain, "--to", "safetensors")
    assert sfumato("export", plain, "--to", "diffusers", "--out", out, "--force").code == 0
    assert (out / "model_index.json").exists()
    assert not (out / "model.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "no export wrote" in refused("export", plain, "--to", "safetensors", "--out", "mine", "--force")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_mistakes_are_one_line(refused, plain: Path, tmp_path: Path) -> None:
    assert "give --to" in refused("export", plain)
    assert "did you mean 'diffusers'" in refused("export", plain, "--to", "difusers")
    assert "give KEY=VALUE" in refused("export", plain, "--to", "safetensors", "--set", "half")
    assert "unknown key" in refused("export", plain, "--to", "safetensors", "--set", "type=half")
    assert "dtype is 'half'" in refused("export", plain, "--to", "safetensors", "--set", "dtype=half")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused("export", plain, "--to", "safetensors", "--out", "file")
    assert "does not exist" in refused("export", "nowhere", "--to", "safetensors")


def test_every_format_is_there() -> None:
    from importlib import import_module
    from importlib.util import find_spec

    for form in EXPORTS.values():
        if form.package and find_spec(form.package) is None:
            continue
        assert callable(import_module(form.module).FORMAT().write), form
