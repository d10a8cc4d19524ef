"""The command `sfumato`: find the verb, run it, and report errors in one line.

`sfumato --help` must answer at once, so nothing here imports more than the standard library; a verb's module is
imported when it is named, and the verb imports torch only after its options have been parsed.

    a UserError, an OSError            one line on stderr, exit code 2
    Ctrl-C, SIGTERM, SIGHUP            save, one line, exit code 130, 143, 129
    stdout was closed by its reader    nothing, exit code 141
    anything else                      a bug: Python's traceback, exit code 1

`SFUMATO_TRACEBACK=1` shows the traceback of the first two too.
"""

from __future__ import annotations

import errno
import keyword
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfumato import __version__
from sfumato.cli import habits, launch, signals
from sfumato.cli.console import discard_stdout, gated, say
from sfumato.cli.threads import wait_briefly
from sfumato.config.keys import typed
from sfumato.errors import UserError, closest, likely, nearest, one_line
from sfumato.ranks import Lost

if TYPE_CHECKING:
    from sfumato.cli.options import Verb

VERBS = {
    "demo": "train on drawn faces for two minutes and show what diffusion does",
    "train": "train a model on a folder of images or a built-in data set",
    "plan": "estimate the cost of a training on this machine: memory, disk, time",
    "watch": "show a training that runs elsewhere",
    "sample": "sample images from a trained model: a grid, a folder, an array or a film",
    "edit": "edit images with a model: inpaint, vary, interpolate, colorize, upscale, deblur, invert",
    "evaluate": "measure a model: bits per dimension, sample quality, memorisation",
    "report": "explain diffusion with a run's own images, and show how the model is doing: one HTML page",
    "explain": "an article on diffusion models whose figures can be moved, with a model that comes along",
    "illustrate": "draw one figure of a run: its bound, its network, its way from noise to images, ...",
    "diagnose": "find out why samples are noise, grey, tinted or copies, and how to fix it",
    "import": "read a model of another library: diffusers, denoising-diffusion-pytorch",
    "ema": "compute an average of a run's weights of another length, after training",
    "export": "write a model in another format: diffusers, safetensors, ONNX, a page for browsers",
    "push": "write a model with its card into a folder, or upload it to a hub",
    "verify": "check the mathematics on this machine",
    "info": "describe a run or a weights file",
    "data": "list the built-in data sets, describe one, or check a collection: data check PATH",
}

SUB_VERBS = ("data check",)
"""Verbs of two words; a folder called `check` is reached as `./check`."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

HELP = """\
usage: sfumato VERB ...

Denoising diffusion from a folder of images to samples.

{verbs}

`sfumato VERB --help` explains a verb, with an example. Every verb takes --device auto|cpu|cuda|mps, and --use FILE.py,
a file with schedules, samplers or networks of your own (docs/extend.md). To begin:

  sfumato demo                          two minutes, then pictures to look at
  sfumato train ~/photos --budget 30m --run runs/photos
                                        train on your own images; the same line again resumes
  sfumato sample runs/photos            sample new ones
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the words after `sfumato`, the process's own when None, and return the exit code."""
    words = launch.words = list(sys.argv[1:] if argv is None else argv)
    launch.own_process = argv is None
    wait_briefly()
    try:
        with signals.raising(lasting=argv is None), gated():
            code = _dispatch(words)
            sys.stdout.flush()
            return code
    except signals.Stop as stop:
        code = _fail(stop, stop.code)
        if argv is None:
            signals.leave(code)
        return code
    except BrokenPipeError:
        discard_stdout()  # Python flushes it again at exit
        return 141
    except Lost as error:  # rank 0 speaks for all, the next one where rank 0 is lost
        return _fail(error, error.code) if error.said_here else error.code
    except (UserError, OSError) as error:
        return _fail(error, 2)
    except (MemoryError, RuntimeError) as error:
        from sfumato.generate.sample import out_of_memory

        if not out_of_memory(error):
            raise
        return _fail(UserError("out of memory: use a smaller batch (--batch, or --train.batch in training)"), 2)


def check_command(words: Sequence[str]) -> None:
    """Parse the words after `sfumato` without running them; raises `UserError` as running them would."""
    if words and words[0] in ("-h", "--help", "--version"):
        return
    _parsed(_split_use(words)[1])


def module_of(verb: str) -> str:
    """Return the name of a verb's module in `sfumato.cli`."""
    return verb.replace(" ", "_") + ("_" if keyword.iskeyword(verb) else "")


def _dispatch(words: list[str]) -> int:
    if len(words) > 1 and words[0] == "help":
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        say(HELP.format(verbs="\n".join(f"  {name:12}{line}" for name, line in VERBS.items())).rstrip())
        return 0
    if words[0] in ("-V", "--version", "version"):
        say(f"sfumato {__version__}")
        return 0
    own, words = _split_use(words)
    verb = _parsed(words)
    if not own and "torch" not in sys.modules:
        _check_names(verb)
    for file in own:
        from sfumato.plugins import use

        use(file)
    return verb.perform()


def _check_names(verb: Verb) -> None:
    """Refuse unknown names of samplers, grids, ranges and presets, and steps below 1, before torch is imported."""
    from sfumato.cli.options import check
    from sfumato.config import names

    check(steps=getattr(verb, "steps", None))
    for option in names.OPTIONS:
        try:
            names.check(option, getattr(verb, option, None))
        except UserError as error:
            raise UserError(str(error) if option == "preset" else f"--{error}") from None


def _split_use(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the files of `--use FILE`, which every verb takes, and the other words; raises `UserError` without one."""
    files, rest, queue = list[str](), list[str](), iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if flag != "--use":
            rest.append(word)
            continue
        value = value if equals else next(queue, "")
        if not value or value.startswith("--"):
            raise UserError("--use needs a Python file, such as --use my_schedule.py (docs/extend.md)")
        files.append(value)
    return files, rest


def _parsed(words: Sequence[str]) -> Verb:
    """Return the verb with its options filled in."""
    name, *rest = words or [""]
    if name not in VERBS:
        if known := habits.verb_for(name, rest):
            raise UserError(f"there is no verb '{name}': write {known}")
        what = "option" if name.startswith("-") else "verb"
        hint = likely(name, VERBS) or nearest("", VERBS)
        raise UserError(f"unknown {what} '{name}'{hint}")
    name, rest = _sub_verb(name, rest)
    module = module_of(name)
    verb: Callable[..., Any] = import_module(f"sfumato.cli.{module}").VERB
    parse: Callable[..., Verb] = import_module("sfumato.cli.options").parse
    return parse(verb, name, rest)


def _sub_verb(name: str, rest: list[str]) -> tuple[str, list[str]]:
    """Return a verb of two words where the second is there, and the rest; raises `UserError` where it is misspelt."""
    first = rest[0] if rest else ""
    seconds = [sub.split()[1] for sub in SUB_VERBS if sub.startswith(f"{name} ")]
    if first in seconds:
        return f"{name} {first}", rest[1:]
    if seconds and not os.path.exists(first) and (close := closest(first, seconds)):
        raise UserError(f"{name} has no verb '{first}', and there is no such folder; did you mean '{name} {close[0]}'?")
    return name, rest


def _fail(error: BaseException, code: int) -> int:
    """Print one line for the error, after its traceback if requested, and return the exit code."""
    if os.environ.get("SFUMATO_TRACEBACK", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    with suppress(OSError):  # a closed terminal
        say(f"sfumato: {typed(_line(error), bare=True)}", error=True)
    return code


def _line(error: BaseException) -> str:
    """Return the error in one line."""
    room = "; free some space, or write to another disk" if getattr(error, "errno", None) in _FULL else ""
    return one_line(error) + room


if __name__ == "__main__":
    sys.exit(main())
