"""Files of torch.save, of both formats: the same values as torch reads; hostile and damaged ones are one line."""

from __future__ import annotations

import io
import json.tool
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato.data.formats import torch_file
from sfumato.data.formats.plain_pickle import NotPlain
from sfumato.data.formats.torch_file import Object, Stored, read_torch, tensors_in
from sfumato.errors import UserError

BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])


def save(value: Any, path: Path, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def opened(value: Any) -> Any:
    if isinstance(value, Stored):
        return value.tensor()
    if isinstance(value, dict):
        return {key: opened(item) for key, item in value.items()}
    return [opened(item) for item in value] if isinstance(value, list | tuple) else value


@BOTH
def test_a_checkpoint_is_read_as_it_was_written(zipped: bool, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    optimiser = torch.optim.Adam(net.parameters())
    wide = torch.arange(24.0).reshape(4, 6)
    table = {
        "model": net.state_dict(), "opt": optimiser.state_dict(), "step": torch.tensor(7), "scaler": None,
        "x": [1, 2.5, "a"],
        "views": {"column": wide[:, 1], "rows": wide.T, "part": wide[1:3, 2:5], "empty": torch.empty(0, 3)},
        "parameter": torch.nn.Parameter(torch.ones(3)), "ordered": OrderedDict(a=1), "size": torch.Size([2, 3]),
        "number": np.float64(1.5), "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    }  # fmt: skip
    found = read_torch(save(table, tmp_path / "x.pt", zipped))
    for name, value in table["model"].items():
        assert torch.equal(found["model"][name].tensor(), value)
    for name, value in table["views"].items():
        assert torch.equal(found["views"][name].tensor(), value)
    assert torch.equal(found["parameter"].tensor(), table["parameter"])
    assert opened(found["opt"])["param_groups"][0]["lr"] == 1e-3
    assert (found["step"].tensor(), found["scaler"], found["x"]) == (torch.tensor(7), None, [1, 2.5, "a"])
    assert (found["ordered"], found["number"]) == ({"a": 1}, 1.5)
    np.testing.assert_array_equal(found["array"], table["array"])


@BOTH
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool]
)  # fmt: skip
def test_every_type_of_numbers(dtype: torch.dtype, zipped: bool, tmp_path: Path) -> None:
    x = torch.arange(12).reshape(3, 4).to(dtype)
    (read,) = tensors_in(read_torch(save({"x": x}, tmp_path / "x.pt", zipped))).values()
    assert read.dtype == dtype
    assert torch.equal(read, x)


def test_only_what_is_used_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = save({"a": torch.ones(3), "b": torch.ones(1000)}, tmp_path / "x.pt"), []
    monkeypatch.setattr(torch_file, "_member", lambda p, name: read.append(name) or zipfile.ZipFile(p).read(name))
    table = read_torch(path)
    assert read == []
    table["a"].tensor()
    assert len(read) == 1


class Calls:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@BOTH
@pytest.mark.parametrize("objects", [(), ("training.", "torch.nn.modules.")])
def test_nothing_in_a_file_is_run(
    zipped: bool, objects: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    for hostile in (
        Calls(os.system, f"touch {trace}"),
        Calls(eval, f"open({str(trace)!r}, 'w')"),
        Calls(getattr, "text", "upper"),
    ):
        path = save({"model": {"w": torch.ones(2)}, "x": hostile}, tmp_path / "x.pt", zipped)
        with pytest.raises(UserError, match="it names") as caught:
            read_torch(path, objects)
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    save({"x": Calls(json.tool.main)}, tmp_path / "x.pt", zipped)
    monkeypatch.delitem(sys.modules, "json.tool")
    with pytest.raises(UserError, match=r"names json\.tool\.main"):
        read_torch(tmp_path / "x.pt", objects)
    assert "json.tool" not in sys.modules, "a name is not imported"
    save(Calls(eval, "1"), path, zipped)
    with pytest.raises(pickle.UnpicklingError):  # torch's own guard refuses it too; without it, it would run
        torch.load(path, weights_only=True)


def test_objects_of_named_modules_are_names_with_their_state(tmp_path: Path) -> None:
    path = save({"net": torch.nn.Linear(2, 3)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_torch(path)
    net = read_torch(path, ("torch.nn.modules.",))["net"]
    assert isinstance(net, Object)
    assert net.name == "torch.nn.modules.linear Linear"
    assert net.state["_parameters"]["weight"].shape == (3, 2)


def rewritten(path: Path, change: Any) -> Path:
    """The archive with its members changed by a function (name, bytes) -> bytes, stored or not."""
    members = [(info.filename, zipfile.ZipFile(path).read(info)) for info in zipfile.ZipFile(path).infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            for new, data, kind in change(name, content):
                archive.writestr(new, data, kind)
    return path


def kept(name: str, content: bytes) -> list[Any]:
    return [(name, content, zipfile.ZIP_STORED)]


CHANGES: dict[str, Any] = {
    "compressed": lambda n, c: [(n, c, zipfile.ZIP_DEFLATED)],
    "a bomb beside it": lambda n, c: [*kept(n, c), (f"{n}.bomb", bytes(10**7), zipfile.ZIP_DEFLATED)],
    "two pickles": lambda n, c: [*kept(n, c), *([("other/data.pkl", c, 0)] if n.endswith("data.pkl") else [])],
    "a missing storage": lambda n, c: [] if n.endswith("data/0") else kept(n, c),
    "a short storage": lambda n, c: kept(n, c[:-4] if n.endswith("data/0") else c),
    "a long storage": lambda n, c: kept(n, c + bytes(4) if n.endswith("data/0") else c),
    "big-endian": lambda n, c: kept(n, b"big" if n.endswith("byteorder") else c),
    "no pickle": lambda n, c: [] if n.endswith("data.pkl") else kept(n, c),
    "a shape that lies": lambda n, c: kept(n, c.replace(b"K\x03K\x04\x86", b"K\x03K\x7f\x86")),
    "a negative shape": lambda n, c: kept(n, c.replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\xffK\x04\x86")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_archives_that_lie_are_refused(name: str, tmp_path: Path) -> None:
    path = rewritten(save({"x": torch.arange(12.0).reshape(3, 4)}, tmp_path / "x.pt"), kept)
    assert torch.equal(read_torch(path)["x"].tensor(), torch.arange(12.0).reshape(3, 4))  # rewriting alone does no harm
    rewritten(path, CHANGES[name])
    with pytest.raises((UserError, NotPlain)) as caught:
        read_torch(path)["x"].tensor()
    assert "\n" not in str(caught.value)


def test_a_row_repeated_without_bytes_of_its_own_is_refused(tmp_path: Path) -> None:
    """A stride of 0 would make a tensor of any size from a few bytes."""
    path = save({"x": torch.ones(1, 4).expand(1000, 4)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="larger than its storage"):
        read_torch(path)


@BOTH
def test_a_file_cut_off_anywhere_is_one_line(zipped: bool, tmp_path: Path) -> None:
    whole = save({"x": torch.ones(8), "y": torch.zeros(3)}, tmp_path / "x.pt", zipped).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 60)):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(UserError) as caught:
            tensors_in(read_torch(tmp_path / "x.pt"))
        assert "\n" not in str(caught.value)


@BOTH
def test_bytes_changed_at_random_never_crash(zipped: bool, tmp_path: Path) -> None:
    whole = save(
        {"x": torch.ones(8), "y": [1, (2, 3)], "z": {"k": torch.zeros(3)}}, tmp_path / "x.pt", zipped
    ).read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(300):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            changed[place] = rng.integers(0, 256)
        (tmp_path / "x.pt").write_bytes(bytes(changed))
        with suppress(UserError, NotPlain):
            opened(read_torch(tmp_path / "x.pt"))


def test_a_long_program_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + b"N" * 5000 + b".")
    with pytest.raises(UserError, match="more than 1,000 instructions"):
        read_torch(tmp_path / "x.pkl")
    monkeypatch.setattr(torch_file, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="more than 100 bytes"):
        read_torch(tmp_path / "x.pkl")


def test_storages_pickled_alone_are_read(tmp_path: Path) -> None:
    """A tensor in an ordinary pickle brings its storage as bytes in the format before torch 1.6."""
    content = io.BytesIO()
    pickle.dump({"x": torch.arange(6.0).reshape(2, 3), "p": torch.nn.Parameter(torch.ones(2))}, content)
    (tmp_path / "x.pkl").write_bytes(content.getvalue())
    found = read_torch(tmp_path / "x.pkl")
    assert torch.equal(found["x"].tensor(), torch.arange(6.0).reshape(2, 3))
    assert torch.equal(found["p"].tensor(), torch.ones(2))
