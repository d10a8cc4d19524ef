"""Parse a command line into a verb with tyro; mistakes become messages of one line.

A verb is a frozen dataclass: its fields are the options, its docstring and theirs the help, and `perform` does the
work. tyro parses the words and prints the help. Besides:

- an unknown option is refused, with what it is here where it comes from another tool, or the nearest valid one, before
  anything else; so is an option that is given twice, but labels are joined;
- the box in which tyro explains a bad value is condensed to one line, and `nan` and `inf` are no numbers;
- help is wrapped to the terminal, without the line breaks of the source;
- `--net.base 64` and `--net.base=64`, with a dot in the name, are overrides of the configuration, for verbs that have
  a field for them.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import math
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

import tyro
from tyro.conf import FlagCreatePairsOff, Suppress, arg

from sfumato.cli import habits
from sfumato.config.keys import SHORT
from sfumato.errors import UserError, closest, nearest

Flag = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="")]
"""A switch that is off unless given."""

_WHERE = "where to compute; a GPU where there is one by default"
Device = Annotated[str, arg(metavar="auto|cpu|cuda|mps", help_behavior_hint="", help=_WHERE)]
Json = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="", help="print one JSON object instead of text")]

_PROCESSES = (
    "work in several processes on this machine, with the result of one; auto starts one for each GPU; one by default"
)
Processes = Annotated[str | None, arg(metavar="auto|N", help_behavior_hint="", help=_PROCESSES)]

Force = Annotated[bool, FlagCreatePairsOff, arg(help_behavior_hint="", help="overwrite a file that is there")]

Overrides = Suppress[tuple[tuple[str, str], ...]]
"""The dotted options, as (key, value) pairs in order."""

OLD_SPELLINGS = {"--raw": ("--weights", "raw")}
"""Options of earlier versions, by their present names."""
OVERRIDE = re.compile(r"--([A-Za-z_]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)


class Verb(Protocol):
    """A command: options in fields, and an exit code from `perform`."""

    EXAMPLES: ClassVar[tuple[str, ...]]

    def perform(self) -> int:
        """Run it, and return the exit code."""
        ...


@dataclasses.dataclass(frozen=True)
class Family:
    """Several verbs under one name, `sfumato NAME VERB ...`, with a sentence about them."""

    about: str
    verbs: Mapping[str, type[Verb]]


V = TypeVar("V", bound=Verb)


def option(metavar: str) -> Any:
    """Return how help shows an option whose default is explained in words, with `metavar` for its value."""
    return arg(metavar=metavar, help_behavior_hint="")


def check(num: int = 1, batch: int = 1, seed: int = 0, steps: int | None = None) -> None:
    """Raise `UserError` for a number, a batch, a seed or steps out of range."""
    for name, value in (("num", num), ("batch", batch), ("steps", steps)):
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}: it must be at least 1")
    if not 0 <= seed < 2**64:
        raise UserError(f"--seed is {seed}: it must be a whole number from 0 to 2^64 - 1")


def settings(words: Sequence[str], flag: str = "--set") -> dict[str, str]:
    """Return KEY=VALUE words as a table; raises `UserError` for one of another form, or a key given twice."""
    table: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key):
            raise UserError(f"{flag} {word}: give KEY=VALUE")
        if key in table:
            raise UserError(f"{flag} gives {key} twice: give it once")
        table[key] = value
    return table


def parse(verb: type[V] | Family, name: str, words: Sequence[str]) -> V | Verb:
    """Return a verb with its options filled in from the words after its name; the first word chooses from a family.

    Dotted options go into the field `overrides` as (key, value) pairs.

    Raises:
        UserError: an unknown option, a bad or missing value, an extra word.
        SystemExit: after `--help` has been printed.
    """
    if isinstance(verb, Family):
        return parse(_member(verb, name, words), f"{name} {words[0]}", words[1:])
    fields = {f.name for f in dataclasses.fields(verb)}  # type: ignore[arg-type]
    if "weights" in fields:
        words = [new for word in words for new in OLD_SPELLINGS.get(word, (word,))]
    line = words = _joined(words) if "label" in fields else words
    if "overrides" in fields:
        words = [word if word.partition("=")[0][2:] in fields else _long(word) for word in words]
    overrides, rest = split_overrides(words) if "overrides" in fields else ((), list(words))
    if "device" not in fields:
        rest = _without_device(rest)
    _known(verb, name, rest, line)
    if {"-h", "--help"} & set(rest):
        _document(verb)
    about = f"{_joined_lines(inspect.getdoc(verb) or '')}\n\nExamples:\n  " + "\n  ".join(verb.EXAMPLES)
    out, err = _Text(), _Text()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            options, extra = tyro.cli(
                verb, prog=f"sfumato {name}", description=about, args=rest, return_unknown_args=True
            )
    except SystemExit as error:
        if error.code:
            raise UserError(_condense(err.getvalue(), verb, name)) from None
        print(_wrapped(out.getvalue()), end="")
        raise
    if extra:
        see = _with_commas(verb, rest, extra) or f"; see sfumato {name} --help"
        raise UserError(f"{name} does not take '{extra[0]}'{see}")
    _check_finite(options)
    return dataclasses.replace(options, overrides=overrides) if overrides else options  # type: ignore[type-var]


def _metavar(verb: type[Any], flag: str) -> str:
    """Return how help shows the value of an option that `option` explains; empty for another."""
    types = {f"--{field.name.rstrip('_').replace('_', '-')}": str(field.type) for field in dataclasses.fields(verb)}
    match = re.search(r"""option\(["'](.*?)["']\)""", types.get(flag, ""))
    return match[1] if match else ""


def _with_commas(verb: type[Any], words: Sequence[str], extra: Sequence[str]) -> str:
    """Return what to write where the values of an option are separated by spaces, not by commas; empty elsewhere."""
    for at, word in enumerate(words):
        given = words[at + 1 : at + 2 + len(extra)]
        if "," in _metavar(verb, word) and given[1:] == list(extra) and not any(map(str.isalpha, "".join(given))):
            return f": write {word} {','.join(given)}"
    return ""


def _check_finite(options: Any) -> None:
    """Refuse the numbers that are none, but that Python reads: nan and inf."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{field.name.replace('_', '-')} takes a number, not '{value:g}'")


def _joined_lines(text: str) -> str:
    """Return paragraphs of one line each."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _document(verb: type[Any]) -> None:
    """Give the fields of a verb their docstrings as help of one line each: tyro would keep the source's line breaks."""
    docs = dict[str, str]()
    for kind in filter(dataclasses.is_dataclass, reversed(verb.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[ast.unparse(field.target)] = _joined_lines(str(text.value.value))
    for own in dataclasses.fields(verb):
        if own.name in docs:
            own.metadata = MappingProxyType({**own.metadata, "help": docs[own.name]})


def _member(family: Family, name: str, words: Sequence[str]) -> type[Verb]:
    """Return the verb of a family that the first word names; without a word, print the help and raise SystemExit."""
    first = words[0] if words else "--help"
    if first in ("-h", "--help", "help"):
        lines = [
            f"  {key:12} {inspect.cleandoc(verb.__doc__ or '').splitlines()[0]}" for key, verb in family.verbs.items()
        ]
        examples = [f"  {verb.EXAMPLES[0]}" for verb in family.verbs.values()]
        print(f"usage: sfumato {name} VERB ...\n\n{family.about}\n")
        print("\n".join([*lines, "", f"`sfumato {name} VERB --help` explains a verb. Examples:", "", *examples]))
        raise SystemExit(0)
    if first not in family.verbs:
        raise UserError(f"{name} has no verb '{first}'{nearest(first, family.verbs)}")
    return family.verbs[first]


def split_overrides(words: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the dotted options of a command line, ((key, value), ...) in order, and the other words; raises
    `UserError` for one without a value, or given twice."""
    pairs: list[tuple[str, str]] = []
    rest: list[str] = []
    queue = iter(words)
    for word in queue:
        match = OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        value = match[2] if match[2] is not None else next(queue, None)
        if value is None or (match[2] is None and value.startswith("--")):
            raise UserError(f"--{match[1]} needs a value, such as --{match[1]}=VALUE")
        if any(key == match[1] for key, _ in pairs):
            raise UserError(f"--{match[1]} is given twice: give it once")
        pairs.append((match[1], value))
    return tuple(pairs), rest


def _without_device(words: Sequence[str]) -> list[str]:
    """Return the words of a verb that computes nothing on a GPU without --device, which every verb takes."""
    from sfumato.cli.console import check_device

    rest, queue = list[str](), iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if flag == "--device" and (value := value if equals else next(queue, "")):
            check_device(value)
        else:
            rest.append(word)
    return rest


def _long(word: str) -> str:
    """Return a word with a short name of `SHORT` replaced by the dotted one."""
    flag, equals, value = word.partition("=")
    return f"--{SHORT[flag[2:]]}{equals}{value}" if flag[:2] == "--" and flag[2:] in SHORT else word


def _joined(words: Sequence[str]) -> list[str]:
    """Return the words with the values of a repeated --label joined by commas, at the first."""
    rest: list[str] = []
    values: list[str] = []
    at, queue = 0, iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if flag != "--label" or not (equals or (value := next(queue, ""))):
            rest.append(word)
            continue
        at = at if values else len(rest)
        values.append(value)
    return [*rest[:at], f"--label={','.join(values)}", *rest[at:]] if values else rest


def _known(verb: type[Any], name: str, words: Sequence[str], line: Sequence[str]) -> None:
    """Refuse unknown options, all in one message, and options that are given twice.

    Args:
        line: the whole command line, dotted options included.
    """
    flags = {"--help", "-h"}
    for field in dataclasses.fields(verb):
        option = field.name.rstrip("_").replace("_", "-")  # as_: `as` is a word of Python
        if "Positional" not in str(field.type):
            flags |= {f"--{option}", f"--no-{option}"} if isinstance(field.default, bool) else {f"--{option}"}
    unknown: list[str] = []
    seen: set[str] = set()
    for word, after in zip(words, [*words[1:], "-"], strict=False):
        typed, equals, value = word.partition("=")
        option = typed.replace("_", "-")
        if not re.match(r"--?[A-Za-z]", option):
            continue
        if option not in flags:
            given = value if equals else None if after.startswith("-") else after
            unknown.append(typed + _hint(name, typed, given, line, flags))
        elif option in seen:
            raise UserError(f"{option} is given twice: give it once")
        seen.add(option)
    if unknown:
        see = "" if len(unknown) > 1 or set(unknown[0]) & set(":;") else f"; see sfumato {name} --help"
        raise UserError(f"{name} has no option {'; '.join(unknown)}{see}")


def _hint(name: str, typed: str, value: str | None, words: Sequence[str], flags: set[str]) -> str:
    """Return what an unknown option is here, or the nearest one in spelling; empty where there is neither."""
    if known := habits.answer(name, typed, value, words, flags):
        return f": {known}"
    close = closest(typed.replace("_", "-").lstrip("-"), sorted(flag.lstrip("-") for flag in flags), 0.75)
    return f"; did you mean --{close[0]}?" if close else ""


class _Text(io.StringIO):
    """Collects text and accepts any character, so that tyro draws the same boxes everywhere."""

    encoding = "utf-8"


def _wrapped(text: str) -> str:
    """Wrap the paragraphs of a help text, which tyro prints as one line each, to the width of its boxes."""
    width = max((len(line) for line in text.splitlines() if line.startswith("│")), default=80)
    text = "".join(textwrap.fill(line, width) + "\n" for line in text.splitlines())
    if (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8":
        text = text.translate(str.maketrans("╭╮╰╯│─", "++++|-")).encode("ascii", "replace").decode("ascii")
    return text


def _condense(box: str, verb: type[Verb], name: str) -> str:
    """Return tyro's box of explanation as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    inside = [line.strip("│ ") for line in plain.splitlines() if line.startswith("│")]
    ends = [n for n, line in enumerate(inside) if line.startswith("─")]
    text = " ".join(inside[: ends[0] if ends else None]).rstrip(".")
    help_ = f"see sfumato {name} --help"
    if match := re.match(r"Missing from .*?: (\S+)", text):
        return f"{name} needs {match[1]}, for example: {verb.EXAMPLES[0]}"
    if match := re.match(r"Missing value for argument '(\S+?)'", text):
        metavar = _metavar(verb, match[1])
        return f"{match[1]} needs a value{f': {match[1]} {metavar}' if metavar else ''}; {help_}"
    if match := re.match(r"[Ii]nvalid choice '(.*?)' for argument '(\S+)'\. Expected one of \((.*)\)", text):
        choices = re.findall("'(.*?)'", match[3])
        return f"{match[2]} can't be '{match[1]}'{nearest(match[1], choices)}"
    if match := re.match(r"Error parsing (\S+):.*invalid literal for int\(\).*?: '(.*)'", text):
        return f"{match[1]} takes a whole number, not '{match[2]}'"
    if match := re.match(r"Error parsing (\S+):.*could not convert string to float: '(.*)'", text):
        return f"{match[1]} takes a number, not '{match[2]}'"
    return f"{text}; {help_}"
