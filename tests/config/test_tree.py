"""Trees of dataclasses: every source of values gives the same tree, and every mistake is named."""

from __future__ import annotations

import random
import string
import tomllib
from dataclasses import dataclass, field

import pytest

from sfumato.config.tree import Text, convert, difference, flatten, merge, nest, plain, to_toml
from sfumato.errors import UserError


class Shape:
    """An abstract type, to be chosen by kind."""


@dataclass(frozen=True)
class Square(Shape):
    side: float = 1.0


@dataclass(frozen=True)
class Polygon(Shape):
    corners: tuple[int, ...] = (3,)


@dataclass(frozen=True)
class Leaf:
    name: str = "leaf"
    limit: float | None = None
    size: tuple[int, int] | None = None
    on: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit = {self.limit}: must not be negative")


@dataclass(frozen=True)
class Root:
    count: int = 3
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)
    leaf: Leaf = field(default_factory=Leaf)
    shape: Shape = field(default_factory=Square)


CHOICES = {Shape: {"square": Square, "polygon": Polygon}}


def read(table: dict) -> Root:
    return convert(Root, table, CHOICES)


def random_root(draw: random.Random) -> Root:
    letters = string.printable + "é\x00\x1f\x7f\"\\\n😀'"
    text = "".join(draw.choice(letters) for _ in range(draw.randrange(12)))
    number = draw.choice([draw.uniform(-1e9, 1e9), 10.0 ** draw.randrange(-300, 300), 0.1 + 0.2, -0.0, 5e-324])
    leaf = Leaf(
        text if text != "none" else "",
        draw.choice([None, abs(number)]),
        draw.choice([None, (draw.randrange(99), draw.randrange(99))]),
        draw.random() < 0.5,
    )
    shape = draw.choice([Square(number), Polygon(tuple(draw.randrange(9) for _ in range(draw.randrange(4))))])
    return Root(draw.randrange(-(10**18), 10**18), number, tuple(range(draw.randrange(5))), leaf, shape)


def test_toml_and_json_read_back_what_was_written():
    draw = random.Random(0)
    for _ in range(300):
        root = random_root(draw)
        table = plain(root, CHOICES)
        assert read(table) == root
        assert read(tomllib.loads(to_toml(table))) == root


def test_command_line_text_reads_as_the_same_values():
    root = Root(7, 2.5e-4, (4, 5, 6), Leaf("a=b", 2.0, (8, 9), True), Polygon((3, 4)))
    texts = {
        "count": "7",
        "rate": "2.5e-4",
        "widths": "4,5,6",
        "leaf.name": "a=b",
        "leaf.limit": "2",
        "leaf.size": "(8, 9)",
        "leaf.on": "true",
        "shape.kind": "polygon",
        "shape.corners": "[3, 4,]",
    }
    assert read(merge(plain(Root(), CHOICES), nest(texts))) == root


def test_none_is_a_word_where_it_is_allowed():
    assert read(nest({"leaf.limit": "none", "leaf.size": "none"})).leaf == Leaf()
    assert read({"leaf": {"limit": None}}).leaf == Leaf()
    assert read(nest({"leaf.name": "none"})).leaf.name == "none"


def test_a_new_kind_starts_from_its_own_defaults():
    base = plain(Root(shape=Square(9.0)), CHOICES)
    assert read(merge(base, nest({"shape.kind": "polygon"}))).shape == Polygon()
    assert read(merge(base, nest({"shape.kind": "square"}))).shape == Square(9.0)
    assert read(merge(base, nest({"shape.side": "2"}))).shape == Square(2.0)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"cuont": 3}, ["cuont", "'count'"]),
        ({"leaf": {"nmae": "x"}}, ["leaf.nmae", "'leaf.name'"]),
        ({"shape": {"kind": "sqare"}}, ["shape.kind", "sqare", "'square'"]),
        ({"shape": {"side": 1.0}}, ["shape", "kind", "polygon"]),
        ({"shape": {"kind": "square", "corners": [1]}}, ["shape.corners"]),
        ({"shape": "square"}, ["shape.kind=square"]),
        ({"shape": "round"}, ["shape", "table", "shape.KEY"]),
        ({"count": 3.0}, ["count", "3.0", "whole number"]),
        ({"count": True}, ["count", "whole number"]),
        ({"count": "3"}, ["count", '"3"', "whole number"]),
        ({"rate": "fast"}, ["rate", '"fast"', "a number"]),
        ({"rate": True}, ["rate", "a number"]),
        ({"rate": float("nan")}, ["rate", "a number"]),
        ({"leaf": {"on": 1}}, ["leaf.on", "true or false"]),
        ({"leaf": {"name": 3}}, ["leaf.name", "text"]),
        ({"leaf": {"size": [1]}}, ["leaf.size", "2 values"]),
        ({"widths": 3}, ["widths", "list"]),
        ({"widths": [1, "b"]}, ["widths", '"b"', "whole number"]),
        ({"leaf": {"limit": -1}}, ["leaf.limit", "-1", "not be negative"]),
        ({"leaf": 3}, ["leaf", "table"]),
        (nest({"count": "many"}), ["count", '"many"', "whole number"]),
        (nest({"rate": "inf"}), ["rate", "a number"]),
        (nest({"leaf.on": "yes"}), ["leaf.on", "true or false"]),
        (nest({"leaf.size": "64"}), ["leaf.size", "2 values"]),
        (nest({"count.deeper": "1"}), ["count", "whole number"]),
    ],
)
def test_mistakes_are_named(table, words):
    with pytest.raises(UserError) as error:
        read(table)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_given_twice_is_refused():
    for keys in (["leaf", "leaf.name"], ["leaf.name", "leaf"]):
        with pytest.raises(UserError, match="leaf"):
            nest(dict.fromkeys(keys, "x"))


def test_an_int_serves_as_a_float():
    rate = read({"rate": 2}).rate
    assert rate == 2.0
    assert type(rate) is float


def test_what_the_register_does_not_name_is_not_written():
    class Circle(Square):
        pass

    with pytest.raises(UserError, match="Circle"):
        plain(Root(shape=Circle()), CHOICES)


def test_text_that_no_file_can_hold_is_refused():
    with pytest.raises(UserError, match="Unicode"):
        to_toml({"name": "bad\udcff"})


def test_difference_lists_what_changed_and_nothing_else():
    old, new = plain(Root(), CHOICES), plain(Root(count=4, shape=Polygon((5,))), CHOICES)
    lines = difference(old, new)
    assert lines == [
        "count 3 -> 4",
        'shape.corners "none" -> [5]',
        'shape.kind "square" -> "polygon"',
        'shape.side 1.0 -> "none"',
    ]
    assert difference(old, old) == []


def test_flatten_keeps_order_and_leaves():
    assert list(flatten({"b": {"x": 1, "a": {"y": 2}}, "a": 3}).items()) == [("b.x", 1), ("b.a.y", 2), ("a", 3)]


def test_text_is_text():
    assert Text("5") == "5"
    assert isinstance(Text("5"), str)
