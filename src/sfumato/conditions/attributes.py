"""Attributes: the properties that samples can be conditioned on, and the syntax of `--label`.

A condition is a row of numbers, one for each attribute. For an attribute with values it is the index of a value, for a
number the number standardised, (x - mean) / std, and NaN where the attribute is not given:

    hair (short, long), glasses (none, clear, dark), age (mean 41, std 12)         "glasses=dark,age=53"
    [NaN, 2.0, 1.0]

The syntax:

    glasses=dark        an attribute and its value; for a number the number itself: age=35
    hair=long,age=35    several, separated by commas; the others are not given
    dark                a value alone, where only one attribute has it
    glasses             an attribute alone: cycles through its values except the one that means "without" (no, none,
                        false, off, absent, without), here clear, dark, clear, ...
    hair=all            cycles through every value of an attribute; with two attributes, through every pair
    all, 3, 35          with a single attribute: all of its values; the value 3, or, where no value is a number, the
                        value with index 3; the number

An ambiguous word is refused; the message lists how to write each meaning. An attribute with the values no and yes also
takes false, 0, -1 and true, 1. Nothing here imports torch.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sfumato.errors import UserError, nearest

YES_NO = {"no": 0.0, "false": 0.0, "0": 0.0, "-1": 0.0, "yes": 1.0, "true": 1.0, "1": 1.0}
"""How the two values of a yes-or-no attribute may be written."""
_WITHOUT = frozenset({"no", "none", "false", "off", "absent", "without"})
_MOST_ROWS = 10_000
_LISTED = 20
"""The most values of an attribute that an error lists besides the nearest."""

Row = list[float]


def has_control(text: str) -> bool:
    """Whether a text has characters that a terminal obeys, or that turn the direction of what follows."""
    return not text.isprintable() and any(
        unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
        for c in text
    )


@dataclass(frozen=True)
class Attribute:
    """A property of images: the values it can take, in the order of their indices, () for a number; of a number the
    mean and the standard deviation over the images. Raises `UserError` for a name or value that is empty, repeated or
    has control characters, and for a standard deviation that is not positive."""

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        for text in (self.name, *self.values):
            if has_control(text):
                raise UserError(f"attribute {self.name!a}: {text[:40]!a} has a control character: remove it")
        if not self.name.strip() or "=" in self.name or "," in self.name:
            raise UserError(f"attribute '{self.name}': a name must not be empty and must not contain = or a comma")
        if len(set(self.values)) < len(self.values) or not all(self.values):
            raise UserError(f"attribute '{self.name}': a value is empty or repeated")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UserError(
                f"attribute '{self.name}': mean {self.mean} and std {self.std} can't standardise it: give finite "
                "numbers, std above 0"
            )

    def number(self, text: str) -> float:
        """Return the number of a value, "long" -> 1.0, "53" -> (53 - mean) / std; raises `UserError` for no such value,
        or text that is not a number."""
        if text in self.values:
            return float(self.values.index(text))
        if self.values == ("no", "yes") and text.lower() in YES_NO:
            return YES_NO[text.lower()]
        if self.values:
            hint = nearest(text, self.values)
            if hint.startswith("; did") and len(self.values) <= _LISTED:
                hint += f" The values are {', '.join(self.values)}"
            raise UserError(f"{self.name} has no value '{text}'{hint}")
        try:
            value = (float(text) - self.mean) / self.std
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{self.name}: '{text}' is not a number (write {self.name}={self.mean:g})")
        return value

    def text(self, number: float) -> str:
        """Return the value of a number, the inverse of `number`; "not given" for NaN."""
        if math.isnan(number):
            return "not given"
        return self.values[int(number)] if self.values else f"{self.mean + self.std * number:.6g}"

    @property
    def having(self) -> Row:
        """The values except the one that means "without"; empty where there is no such value."""
        without = [value for value in self.values if value.lower() in _WITHOUT]
        return [float(k) for k, value in enumerate(self.values) if value not in without] if len(without) == 1 else []

    @property
    def every(self) -> Row:
        """Each value; for a number its mean and one standard deviation below and above."""
        return [float(k) for k in range(len(self.values))] or [-1.0, 0.0, 1.0]


def rows(attributes: Sequence[Attribute], text: str) -> list[Row]:
    """Return the conditions that words, as in this module's docstring, ask for; images cycle through them. Raises
    `UserError` for an unknown name or value (the nearest is named), an ambiguous word, or no attributes."""
    if not attributes:
        raise UserError(f"the model was trained without labels: leave out '{text}'")
    words, chosen = [word.strip() for word in text.split(",")], dict[str, Row]()
    if len(words) > 1 and _exact(attributes, text.strip()):  # a value with a comma in it
        words = [text.strip()]
    for word in words:
        attribute, numbers = _meaning(attributes, word)
        if attribute.name in chosen:
            raise UserError(
                f"'{text}' gives {attribute.name} twice: give one value, or {attribute.name}=all for each in turn"
            )
        chosen[attribute.name] = numbers
    choices = [chosen.get(attribute.name, [math.nan]) for attribute in attributes]
    if math.prod(map(len, choices)) > _MOST_ROWS:
        raise UserError(f"'{text}' means more than {_MOST_ROWS:,} conditions: ask for fewer")
    return [list(row) for row in product(*choices)]


def every_value(attributes: Sequence[Attribute]) -> list[Row]:
    """Return one condition for each value of each attribute, the other attributes not given."""
    size = len(attributes)
    return [
        [number if b == a else math.nan for b in range(size)]
        for a, attribute in enumerate(attributes)
        for number in attribute.every
    ]


def describe(attributes: Sequence[Attribute], row: Sequence[float]) -> str:
    """Return a condition in words that `rows` reads, `glasses=dark,age=53`; of a single attribute its value alone."""
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
    """Every literal reading of a word: an attribute, and the numbers to cycle through."""
    named = {attribute.name: attribute for attribute in attributes}
    name, equals, value = (part.strip() for part in word.partition("="))
    if equals and name in named:
        one = named[name]
        if value in one.values:
            return [(one, [float(one.values.index(value))])]
        return [(one, one.every)] if value == "all" and one.values else []
    readings = [(one, [float(one.values.index(word))]) for one in attributes if word in one.values]
    if word in named and named[word].having:
        readings.append((named[word], named[word].having))
    return readings


def _meaning(attributes: Sequence[Attribute], word: str) -> tuple[Attribute, Row]:
    """The only reading of a word; raises `UserError` where there is none, or more than one."""
    readings = _exact(attributes, word)
    if len(readings) > 1:
        ways = " or ".join(f"{attribute.name}={attribute.text(numbers[0])}" for attribute, numbers in readings)
        raise UserError(f"'{word}' can mean {ways}: write one of them")
    if readings:
        return readings[0]
    named = {attribute.name: attribute for attribute in attributes}
    name, equals, value = (part.strip() for part in word.partition("="))
    if equals and name in named:
        return named[name], [named[name].number(value)]
    if equals:
        raise UserError(f"there is no attribute '{name}'{nearest(name, named)}")
    if word in named:
        example = named[word].text(named[word].every[-1])
        more = f", or {word}=all to cycle through its values" if named[word].values else ""
        raise UserError(f"'{word}' needs a value: write {word}={example}{more}")
    if len(attributes) == 1:
        return attributes[0], _of_one(attributes[0], word)
    if word == "all":
        raise UserError(f"'all' needs an attribute: write {attributes[0].name}=all; there are {', '.join(named)}")
    hint = nearest(word, [*named, *(value for attribute in attributes for value in attribute.values)])
    if not hint.startswith("; did"):  # all values of all attributes are too many to choose from
        hint = f"; write ATTRIBUTE=VALUE, or one of {', '.join(named)}"
    raise UserError(f"there is no label '{word}'{hint}")


def _of_one(attribute: Attribute, word: str) -> Row:
    """Read a word for a single attribute: `all`, an index where no value is a number itself, a number."""
    if word == "all" and attribute.values:
        return attribute.every
    if word.isdecimal() and int(word) < len(attribute.values) and not any(map(str.isdecimal, attribute.values)):
        return [float(word)]
    return [attribute.number(word)]
