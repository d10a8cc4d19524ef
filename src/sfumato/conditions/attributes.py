"""Attributes: what images can be asked for, and the words for asking.

A condition is a row of numbers, one an attribute. Of an attribute with values it is the place of a value in its list,
of a number the number standardised, (x - mean) / std, and NaN says that the attribute is not given:

    hair (short, long), glasses (none, clear, dark), age (mean 41, std 12)         "glasses=dark,age=53"
    [NaN, 2.0, 1.0]

Somebody who draws images writes words, `--label WORDS`, with these spellings:

    glasses=dark        an attribute and its value; for a number the number itself: age=35
    hair=long,age=35    several, with commas between; what is not named is not given
    dark                a value alone, where one attribute alone has it
    glasses             an attribute alone: with it. Every value but the one that says "without" (no, none, false, off,
                        absent, without), in turn: here clear, dark, clear, ...
    hair=all            every value of an attribute in turn; of two attributes every pair
    all, 3, 35          where there is one attribute: all of its values in turn, the value counted from 0, the number

A word that can be read in two ways is refused with the ways to write it. An attribute with the values no and yes also
takes false, 0, -1 and true, 1. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sfumato.errors import UserError, nearest

__all__ = ["YES_NO", "Attribute", "describe", "from_plain", "parse", "plain", "survey", "turns"]

YES_NO = {"no": 0.0, "false": 0.0, "0": 0.0, "-1": 0.0, "yes": 1.0, "true": 1.0, "1": 1.0}
"""How the two values of a yes-or-no attribute may be written."""
_WITHOUT = frozenset({"no", "none", "false", "off", "absent", "without"})
_MOST_TURNS = 10_000

Row = list[float]


@dataclass(frozen=True)
class Attribute:
    """One thing that is known of images.

    Attributes:
        name: what it is called.
        values: the values it can take, in the order in which they are counted; () for a number.
        mean: of a number, over the images.
        std: of a number, over the images.

    Raises:
        UserError: a name or value that is empty or stands twice, or a scale that is not a positive number.
    """

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.strip() or "=" in self.name or "," in self.name:
            raise UserError(f"'{self.name}' can't be an attribute's name: it must hold a letter, and no = or comma")
        if len(set(self.values)) < len(self.values) or not all(self.values):
            raise UserError(f"the attribute '{self.name}' has a value that is empty or stands twice")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UserError(
                f"the attribute '{self.name}' has mean {self.mean} and std {self.std}: no scale of a number"
            )

    def number(self, text: str) -> float:
        """Return the number that stands for a value: "long" -> 1.0, "53" -> (53 - mean) / std.

        Raises:
            UserError: no such value, or text that is no number.
        """
        if text in self.values:
            return float(self.values.index(text))
        if self.values == ("no", "yes") and text.lower() in YES_NO:
            return YES_NO[text.lower()]
        if self.values:
            raise UserError(f"{self.name} has no value '{text}'{nearest(text, self.values)}")
        try:
            value = (float(text) - self.mean) / self.std
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{self.name} is a number and '{text}' is none: write {self.name}={self.mean:g}")
        return value

    def text(self, number: float) -> str:
        """Return the value that a number stands for, the inverse of `number`; "not given" for NaN."""
        if math.isnan(number):
            return "not given"
        return self.values[int(number)] if self.values else f"{self.mean + self.std * number:.6g}"

    @property
    def having(self) -> Row:
        """The values of images that have the attribute: all but the one that says they have not; () for want of one."""
        without = [value for value in self.values if value.lower() in _WITHOUT]
        return [float(k) for k, value in enumerate(self.values) if value not in without] if len(without) == 1 else []

    @property
    def every(self) -> Row:
        """Each value; of a number one deviation below its mean, the mean, and one above."""
        return [float(k) for k in range(len(self.values))] or [-1.0, 0.0, 1.0]


def parse(attributes: Sequence[Attribute], text: str) -> Row:
    """Return the condition that words ask for, NaN for what they don't name.

    Raises:
        UserError: as `turns`, or words that mean several conditions in turn.
    """
    rows = turns(attributes, text)
    if len(rows) > 1:
        ways = ", ".join(f"'{describe(attributes, row)}'" for row in rows[:4])
        raise UserError(f"'{text}' means several conditions in turn ({ways}{', ...' * (len(rows) > 4)}): choose one")
    return rows[0]


def turns(attributes: Sequence[Attribute], text: str) -> list[Row]:
    """Return the conditions that words ask for, which images take in turn: image i the i-th, and again from the first.

    Args:
        attributes: those there are.
        text: words as this module's docstring spells them.

    Raises:
        UserError: no attributes, an unknown name or value (the nearest is named), or an ambiguous word.
    """
    if not attributes:
        raise UserError(f"the model was trained without labels: leave out '{text}'")
    words, chosen = [word.strip() for word in text.split(",")], dict[str, Row]()
    if len(words) > 1 and _exact(attributes, text.strip()):  # a value with a comma in it
        words = [text.strip()]
    for word in words:
        attribute, numbers = _meaning(attributes, word)
        if attribute.name in chosen:
            raise UserError(f"'{text}' gives {attribute.name} twice: give it once")
        chosen[attribute.name] = numbers
    choices = [chosen.get(attribute.name, [math.nan]) for attribute in attributes]
    if math.prod(map(len, choices)) > _MOST_TURNS:
        raise UserError(f"'{text}' means more than {_MOST_TURNS:,} conditions: name fewer")
    return [list(row) for row in product(*choices)]


def survey(attributes: Sequence[Attribute]) -> list[Row]:
    """Return one condition for each value of each attribute, the others not given: what a picture of all shows."""
    size = len(attributes)
    return [
        [number if b == a else math.nan for b in range(size)]
        for a, attribute in enumerate(attributes)
        for number in attribute.every
    ]


def describe(attributes: Sequence[Attribute], row: Sequence[float]) -> str:
    """Return a condition in words that `parse` reads, `glasses=dark,age=53`; of a single attribute its value alone."""
    given = [(attribute, number) for attribute, number in zip(attributes, row, strict=True) if not math.isnan(number)]
    if len(attributes) == 1:
        return "".join(attribute.text(number) for attribute, number in given)
    return ",".join(f"{attribute.name}={attribute.text(number)}" for attribute, number in given)


def plain(attribute: Attribute) -> dict[str, Any]:
    """Return an attribute as JSON has it."""
    if attribute.values:
        return {"name": attribute.name, "values": list(attribute.values)}
    return {"name": attribute.name, "mean": attribute.mean, "std": attribute.std}


def from_plain(table: Mapping[str, Any]) -> Attribute:
    """Return the attribute that `plain` wrote; raises ValueError, KeyError or TypeError where it did not."""
    if "values" in table:
        return Attribute(str(table["name"]), tuple(str(value) for value in table["values"]))
    return Attribute(str(table["name"]), mean=float(table["mean"]), std=float(table["std"]))


def _exact(attributes: Sequence[Attribute], word: str) -> list[tuple[Attribute, Row]]:
    """Every way to read a word without interpreting it: which attribute, and the numbers it takes in turn."""
    named = {attribute.name: attribute for attribute in attributes}
    name, equals, value = (part.strip() for part in word.partition("="))
    if equals and name in named:
        one = named[name]
        if value in one.values:
            return [(one, [float(one.values.index(value))])]
        return [(one, one.every)] if value == "all" and one.values else []
    found = [(one, [float(one.values.index(word))]) for one in attributes if word in one.values]
    if word in named and named[word].having:
        found.append((named[word], named[word].having))
    return found


def _meaning(attributes: Sequence[Attribute], word: str) -> tuple[Attribute, Row]:
    """The one way to read a word; raises `UserError` where there is none, or more than one."""
    found = _exact(attributes, word)
    if len(found) > 1:
        ways = " or ".join(f"{attribute.name}={attribute.text(numbers[0])}" for attribute, numbers in found)
        raise UserError(f"'{word}' can mean {ways}: write one of them")
    if found:
        return found[0]
    named = {attribute.name: attribute for attribute in attributes}
    name, equals, value = (part.strip() for part in word.partition("="))
    if equals and name in named:
        return named[name], [named[name].number(value)]
    if equals:
        raise UserError(f"there is no attribute '{name}'{nearest(name, named)}")
    if word in named:
        example = named[word].text(named[word].every[-1])
        more = f", or {word}=all for each value in turn" if named[word].values else ""
        raise UserError(f"which {word}? write {word}={example}{more}")
    if len(attributes) == 1:
        return attributes[0], _of_one(attributes[0], word)
    if word == "all":
        raise UserError(f"all of which attribute? write {attributes[0].name}=all; there are {', '.join(named)}")
    known = [*named, *(value for attribute in attributes for value in attribute.values)]
    hint = nearest(word, known)
    if not hint.startswith("; did"):  # all values of all attributes are too many to choose from
        hint = f"; write ATTRIBUTE=VALUE, or one of {', '.join(named)}"
    raise UserError(f"there is no label '{word}'{hint}")


def _of_one(attribute: Attribute, word: str) -> Row:
    """Read a word where there is one attribute: `all`, a place counted from 0, a number."""
    if word == "all" and attribute.values:
        return attribute.every
    if word.isdecimal() and int(word) < len(attribute.values):
        return [float(word)]
    return [attribute.number(word)]
