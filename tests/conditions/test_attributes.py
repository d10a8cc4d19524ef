"""Words for what images should be: every spelling, back and forth, and every mistake in one line."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest

from sfumato.conditions.attributes import Attribute, describe, every_value, from_plain, plain, rows
from sfumato.errors import UserError

HAIR, GLASSES = Attribute("hair", ("short", "long")), Attribute("glasses", ("none", "clear", "dark"))
HAT, SMILING = Attribute("hat", ("none", "red", "dark")), Attribute("smiling", ("no", "yes"))
AGE = Attribute("age", mean=41.0, std=12.0)
FACES = (HAIR, GLASSES, AGE, SMILING)
DIGITS = (Attribute("class", tuple("0123456789")),)
CLOTHES = (Attribute("class", ("T-shirt", "bag, red", "all", "3=three")),)


def row(**given: float) -> list[float]:
    """The condition of FACES with these numbers."""
    return [given.get(attribute.name, math.nan) for attribute in FACES]


def same(found: list[list[float]], wanted: list[list[float]]) -> bool:
    """Whether rows are equal, NaN and NaN being so too."""
    return repr([[float(x) for x in one] for one in found]) == repr([[float(x) for x in one] for one in wanted])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("glasses=dark", [row(glasses=2)]),
        (" glasses = dark , hair=long ", [row(glasses=2, hair=1)]),
        ("dark", [row(glasses=2)]),
        ("long,dark", [row(glasses=2, hair=1)]),
        ("glasses", [row(glasses=1), row(glasses=2)]),
        ("smiling", [row(smiling=1)]),
        ("smiling=true", [row(smiling=1)]),
        ("smiling=-1", [row(smiling=0)]),
        ("age=53", [row(age=1)]),
        ("age=35.0,short", [row(age=-0.5, hair=0)]),
        ("hair=all", [row(hair=0), row(hair=1)]),
        ("hair=all,glasses", [row(hair=h, glasses=g) for h in (0, 1) for g in (1, 2)]),
    ],
)
def test_words_of_several_attributes(text: str, wanted: list[list[float]]) -> None:
    assert same(rows(FACES, text), wanted)


@pytest.mark.parametrize(
    ("attributes", "text", "numbers"),
    [
        (DIGITS, "3", [3]),
        (DIGITS, "all", list(range(10))),
        (DIGITS, "class=all", list(range(10))),
        (CLOTHES, "0", [0]),
        (CLOTHES, "2", [2]),
        (CLOTHES, "bag, red", [1]),
        (CLOTHES, "class=bag, red", [1]),
        (CLOTHES, "all", [2]),  # a value is meant before a word of ours
        (CLOTHES, "3=three", [3]),
        ((Attribute("class", ("5", "4", "0")),), "0", [2]),  # and before a place
        ((AGE,), "53", [1]),
        ((Attribute("age", mean=2.0, std=0.5),), "-1.5e0", [-7]),
    ],
)
def test_words_of_a_single_attribute(attributes: tuple[Attribute, ...], text: str, numbers: list[float]) -> None:
    assert [one for (one,) in rows(attributes, text)] == numbers


@pytest.mark.parametrize(
    ("attributes", "text", "words"),
    [
        (FACES, "glases", "no label 'glases'; did you mean 'glasses'"),
        (FACES, "purple", "write ATTRIBUTE=VALUE, or one of hair, glasses, age, smiling"),
        (FACES, "glasses=drak", r"glasses has no value 'drak'; did you mean 'dark'\? The values are none, clear, dark"),
        (FACES, "glases=dark", "no attribute 'glases'; did you mean 'glasses'"),
        (FACES, "hair", "'hair' needs a value.*hair=long, or hair=all"),
        (FACES, "age", "'age' needs a value: write age=53$"),
        (FACES, "age=all", r"age: 'all' is not a number \(write age=41\)"),
        (FACES, "age=nan", "age: 'nan' is not a number"),
        (FACES, "age=inf", "age: 'inf' is not a number"),
        (FACES, "all", "'all' needs an attribute.*hair=all"),
        (FACES, "2", "no label '2'"),
        (FACES, "dark,glasses=clear", "gives glasses twice"),
        (FACES, "", "no label ''"),
        (FACES, "dark,", "no label ''"),
        ((GLASSES, HAT), "dark", "can mean glasses=dark or hat=dark"),
        ((GLASSES, HAT), "none", "can mean glasses=none or hat=none"),
        ((GLASSES, Attribute("class", ("glasses", "hat"))), "glasses", "can mean class=glasses or glasses=clear"),
        (DIGITS, "10", "class has no value '10'"),
        (DIGITS, "class=10", "class has no value '10'"),
        ((), "3", "trained without labels"),
        ((Attribute("a", tuple(map(str, range(200)))), Attribute("b", tuple(map(str, range(200))))), "a=all,b=all",
         "more than 10,000"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(attributes: tuple[Attribute, ...], text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        rows(attributes, text)
    assert "\n" not in str(error.value)


def test_what_is_described_is_read_back() -> None:
    """Any condition, through its words, to within the six digits that a number is written with."""
    draw = random.Random(0)
    for _ in range(300):
        condition = [
            draw.choice(
                [math.nan, draw.gauss(0, 1) if not attribute.values else float(draw.randrange(len(attribute.values)))]
            )
            for attribute in FACES
        ]
        text = describe(FACES, condition)
        if not text:
            assert all(map(math.isnan, condition))
            continue
        (read,) = rows(FACES, text)
        for found, wanted in zip(read, condition, strict=True):
            assert found == pytest.approx(wanted, abs=1e-4, nan_ok=True)
    assert describe(DIGITS, [7.0]) == "7"
    assert describe(FACES, row(age=1.0, hair=0)) == "hair=short,age=53"


def test_a_survey_shows_every_value_alone() -> None:
    rows = every_value(FACES)
    words = ["hair=short", "hair=long", "glasses=none", "glasses=clear", "glasses=dark"]
    words += ["age=29", "age=41", "age=53", "smiling=no", "smiling=yes"]
    assert [describe(FACES, one) for one in rows] == words
    assert every_value(()) == []


@pytest.mark.parametrize("attribute", [*FACES, *CLOTHES, Attribute("x", mean=1 / 3, std=1e-7)])
def test_plain_values_are_the_same_attribute_again(attribute: Attribute) -> None:
    assert from_plain(plain(attribute)) == attribute


@pytest.mark.parametrize(
    "values",
    [
        {"name": " "},
        {"name": "a=b"},
        {"name": "a,b"},
        {"name": "a", "values": ("x", "x")},
        {"name": "a", "values": ("x", "")},
        {"name": "a", "std": 0.0},
        {"name": "a", "mean": math.nan},
    ],
)
def test_attributes_that_can_not_be(values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Attribute(**values)  # type: ignore[arg-type]


def test_the_words_need_no_torch() -> None:
    code = "import sys, sfumato.conditions.attributes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("text", ["a\x1b[2J", "\x07", "a\nb", "\u202e", "\ud800", "\x9b"])
def test_control_characters_are_refused_in_one_printable_line(text):
    for attribute in (lambda: Attribute(text, ("a", "b")), lambda: Attribute("a", ("x", text))):
        with pytest.raises(UserError, match="control character") as error:
            attribute()
        assert str(error.value).isprintable()
    Attribute("höhe", ("家族", "\U0001f468\u200d\U0001f469\u200d\U0001f467"))
