"""Pickles that would run something, and pickles that are only data."""

from __future__ import annotations

import builtins
import codecs
import os
import pickle
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from sfumato.data.formats import plain_pickle
from sfumato.data.formats.plain_pickle import NotPlain, read_guarded, read_plain
from sfumato.data.sources.opening import open_source
from sfumato.data.sources.published import find_cifar
from sfumato.errors import UserError


class Calls:
    """A pickle of this calls a function when it is read."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that make a file, or worse, where they are read as pickles."""
    command = f"open({str(mark)!r}, 'w')"
    objects = np.array([Calls(builtins.eval, command)], dtype=object)
    made = {
        "system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(builtins.eval, command),
        "exec": Calls(builtins.exec, command),
        "open": Calls(open, str(mark), "w"),
        "run": Calls(subprocess.run, ["touch", str(mark)]),
        "objects": objects,
        "in a dict": {b"data": Calls(builtins.eval, command)},
        "in a list": [1, 2, [Calls(os.system, f"touch {mark}")]],
        "getattr": Calls(getattr, "text", "upper"),
        "encode": Calls(codecs.encode, "text", "rot13"),
    }
    found = {f"{name}, protocol {p}": pickle.dumps(thing, p) for name, thing in made.items() for p in (0, 2, 4, 5)}
    found["inst"] = f"(S'touch {mark}'\nios\nsystem\n.".encode()
    found["obj"] = b"(cos\nsystem\n" + f"S'touch {mark}'\no.".encode()
    found["newobj"] = b"\x80\x02cos\nsystem\n(S'true'\nt\x81."
    found["persistent"] = b"S'name'\nQ."
    found["extension"] = b"\x80\x02\x82\x01."
    found["by memo"] = b"cnumpy\ndtype\np0\ncos\nsystem\np0\n0g0\n(S'true'\ntR."
    found["attribute"] = b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93."
    return found


NAMES = sorted(hostile(Path("x")))


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_pickle_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    before = set(sys.modules)
    with pytest.raises(NotPlain):
        read_plain(hostile(mark)[name])
    assert not mark.exists()
    assert not [module for module in set(sys.modules) - before if not module.startswith("encodings.")]


def test_the_same_pickles_do_run_something_where_pickle_reads_them(tmp_path: Path) -> None:
    """So that the test above tests something."""
    for name in ("system, protocol 2", "eval, protocol 4", "objects, protocol 2", "inst", "obj"):
        mark = tmp_path / "mark"
        pickle.loads(hostile(mark)[name])
        assert mark.exists(), name
        mark.unlink()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_come_back_as_they_went(protocol: int) -> None:
    table = {
        "label_names": ["cat", "dög", "🙂"],
        "labels": list(range(300)),
        "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 1.5],
        "rest": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, b"", b"\x00\xff" * 200],
        7: {"deep": [{"er": "x" * 300}]},
    }
    table["twice"] = table["labels"]
    if protocol < 3:  # Python 3 writes bytes of these protocols as a call of bytes(), where they are empty
        table["rest"] = [x for x in table["rest"] if x != b""]  # type: ignore[attr-defined]
    assert read_plain(pickle.dumps(table, protocol)) == table


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_bytes_come_back(protocol: int, order: str) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(5, 12).copy(order)  # type: ignore[call-overload]
    if protocol == 5:  # it has other names for the same; CIFAR is older
        with pytest.raises(NotPlain):
            read_plain(pickle.dumps(array, protocol))
        return
    np.testing.assert_array_equal(read_plain(pickle.dumps(array, protocol)).value, array)


def test_the_text_of_python_2_is_bytes() -> None:
    raw = bytes(range(256)) * 12
    old = b"}q\x00U\x04dataq\x01T" + struct.pack("<i", len(raw)) + raw + b"q\x02s."
    assert read_plain(old) == {b"data": raw} == pickle.loads(old, encoding="bytes")


def shape_lies(shape: bytes) -> bytes:
    """An array whose shape isn't what it holds."""
    good = pickle.dumps(np.zeros((3, 4), np.uint8), 2)
    assert b"K\x03K\x04\x86" in good
    return good.replace(b"K\x03K\x04\x86", shape)


@pytest.mark.parametrize(
    "shape", [b"K\x03K\x05\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"NK\x05\x86", b"K\x0c"]
)
def test_a_shape_that_lies_is_refused(shape: bytes) -> None:
    with pytest.raises(NotPlain):
        read_plain(shape_lies(shape))


@pytest.mark.parametrize("kind", ["O", "f4", "i8", "M8[s]", "V3"])
def test_arrays_of_other_things_are_refused(kind: str) -> None:
    with pytest.raises(NotPlain):
        read_plain(pickle.dumps(np.zeros(3, kind), 2))


def recursion() -> dict[str, bytes]:
    """Programs that make a reader recurse, grow or loop."""
    deep = b"]" * 100_000 + b"a" * 99_999 + b"."
    itself = b"]q\x00h\x00a."
    laughs = b"]q\x00" + b"".join(b"]q" + bytes([k + 1]) + (b"h" + bytes([k]) + b"a") * 10 for k in range(60)) + b"."
    return {
        "deep": deep,
        "itself": itself,
        "laughs": laughs,
        "promise": b"T" + struct.pack("<i", 2**31 - 1) + b"x.",
        "negative": b"T" + struct.pack("<i", -1) + b".",
        "long number": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
        "bytes8": b"\x8e" + struct.pack("<Q", 2**63) + b".",
        "marks": b"(" * 200_000 + b"t" * 200_000 + b".",
        "empty": b"",
        "no stop": b"]",
        "underflow": b"aaaa.",
    }


@pytest.mark.parametrize("name", sorted(recursion()))
def test_programs_that_would_exhaust_a_reader_end_soon(name: str, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(recursion()[name])
    with pytest.raises(UserError) as caught:
        read_guarded([tmp_path / "batch"])
    assert "\n" not in str(caught.value)


def test_bytes_changed_at_random_never_crash(tmp_path: Path) -> None:
    table = {"data": np.arange(64, dtype=np.uint8).reshape(2, 32), "labels": [1, 2], "names": [b"a", "b"]}
    rng = np.random.default_rng(1)
    for protocol in (0, 2, 4):
        data = pickle.dumps(table, protocol)
        for _ in range(1000):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                changed[place] = rng.integers(0, 256)
            with suppress(NotPlain):
                read_plain(bytes(changed))


# ---- the process ----


def test_another_process_hands_back_plain_arrays(tmp_path: Path) -> None:
    table = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3], "names": ["a", b"b"], "x": {}}
    (tmp_path / "one").write_bytes(pickle.dumps(table, 2))
    (tmp_path / "two").write_bytes(pickle.dumps({"labels": [2**40]}, 2))
    one, two = read_guarded([tmp_path / "one", tmp_path / "two"])
    assert sorted(one) == ["data", "labels", "names"]
    np.testing.assert_array_equal(one["data"], table[b"data"])
    assert one["names"].tolist() == ["a", "b"]
    assert two["labels"].tolist() == [2**40]


def test_a_hostile_batch_of_cifar_is_one_line_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "data_batch_1").write_bytes(hostile(mark)["in a dict, protocol 2"])
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a"]}, 2))
    assert find_cifar(tmp_path) == [tmp_path / "data_batch_1"]
    with pytest.raises(UserError, match=r"data_batch_1' can't be read: it names .*eval") as caught:
        len(open_source(str(tmp_path)))
    assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of the system")
@pytest.mark.parametrize("limit", ["MEMORY", "SECONDS"])
def test_a_batch_that_takes_too_much_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """The other process sets its own limits, which it is told."""
    monkeypatch.setattr(plain_pickle, limit, 2**27 if limit == "MEMORY" else 1)
    large = b"B" + struct.pack("<I", 2**24) + bytes(2**24)
    program = b"\x80\x02" + (large if limit == "MEMORY" else b"N" + b"q\x00" * 10_000_000) + b"."
    (tmp_path / "batch").write_bytes(program)
    with pytest.raises(UserError, match=r"be read: (it needs more memory|the decoder crashed|decoding took)"):
        read_guarded([tmp_path / "batch"])
