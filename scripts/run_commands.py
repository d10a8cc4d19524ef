"""Run every command that the documents and `--help` print, with small stand-ins, and fail where one fails.

    python scripts/run_commands.py [--only TEXT] [--fast]

The commands are the lines `sfumato ...` and `make ...` of the ```sh blocks and the indented lines of README.md and
docs/ (but for usage lines with brackets), those of `sfumato --help`, the examples of each verb's `--help`, and what
`sfumato demo` says to try next. Each page has a folder and a home of its own, in which its commands run in order, each
in a process of its own with one thread. A command fails by its exit code, by a traceback, or by taking longer than
`MOST_SECONDS`.

There are stand-ins for what a user has: `~/photos`, `~/leaves`, `~/generated`, the pictures that a command names, files
whose content the page shows, and, on a page that trains nothing, the runs. A command runs as it is printed but for its
size (`SMALLER`): a training takes two steps of a small network, or of the one that the command describes, and numbers
of images, of steps and of seconds are small. What can't run here is listed in `SKIPPED` with the reason; an entry that
matches no command is a mistake too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process is forked from this one for each command

from PIL import Image

from check_docs import FENCE, ROOT
from sfumato.cli.main import HELP, VERBS, main, module_of
from sfumato.cli.options import Family

SKIPPED = {
    r"^make test": "these commands are a part of it",
    r"~/(celeba|celebahq256|cifar-10-batches-py|imagenet64)\b": "needs the data set",
    r"runs/(celeba64|cifar10)\b": "needs a run on the data set",
    r"--device cuda": "needs a GPU",
    r"dinov2:FILE": "needs the extractor's weights",
    r"^sfumato import": "needs a model of another library",
    r"hf:ada/": "needs the hub",
}
for name in ("tensorboard", "wandb"):
    if importlib.util.find_spec(name) is None:
        SKIPPED[rf"--train.log \S*{name}"] = f"needs the extra {name}"
if importlib.util.find_spec("onnx") is None:
    SKIPPED[r"--to (onnx|html)\b|\.onnx\b"] = "needs the extra onnx"
"""Commands that can't run here, as patterns, and why."""
SLOW = r"^make demo|^sfumato (demo|verify|plan|evaluate|report|explain|diagnose)|^sfumato export .* --to (onnx|html)"
"""Commands that --fast leaves out."""
_TRAINING = "--images 8 --batch 4 --train.grids 1 --train.grid_images 4 --train.held_outs 1 --train.held_out_images 8"
_NETWORK = "--net.base 8 --net.groups 4 --net.multipliers 1,2 --net.blocks 1 --net.attention 1"
SMALLER = {
    ("train", "--budget"): _TRAINING,
    ("train", "--images"): _TRAINING,
    ("demo", "--budget"): "--budget 30s",
    ("plan", "--seconds"): "--seconds 1",
    ("sample", "--num"): "--num 4",
    ("sample", "--steps"): "--steps 4",
    ("evaluate", "--num"): "--num 16",
    ("diagnose", "--num"): "--num 8",
    ("edit", "--steps"): "--steps 4",
}
"""By verb and option: what replaces the option with its value."""
ALWAYS = {
    "demo": "--budget",
    "plan": "--seconds",
    "sample": "--num",
    "evaluate": "--num",
    "diagnose": "--num",
    "edit": "--steps",
}
"""By verb: the option that is given in that size also where the command does not have it."""
GOES_ON = "docs/long-runs.md"
"""The page whose commands go on with runs: the first finds one that was begun, `train ~/photos` begins another, and
`train RUN` without a length finds it before its end. The images seen that it names are `KEPT`."""
KEPT, BEGUN = "8", _TRAINING.replace("--images 8", "--images 16")
SAME = {"make demo": "sfumato demo", "PHOTOS": "~/photos"}
"""What stands for another command or a folder."""
PICTURES = dict.fromkeys(("face", "one", "other", "glasses", "hat", "grey", "blurred", "mask"), 16) | {"small": 8}
"""Pictures that commands name, by their side."""
MOST_SECONDS = 300.0

FILE = re.compile(r"^# (\w+\.py)\n")
"""The first line of a block that is a whole file."""


@dataclass(frozen=True)
class Page:
    """A name, commands in order, and the files that the page has its reader write."""

    name: str
    commands: list[str]
    files: dict[str, str] = field(default_factory=dict)


def pages() -> Iterator[Page]:
    """Yield the documents that have commands, then the helps."""
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = document.read_text(encoding="utf-8")
        blocks = [body for kind, body in FENCE.findall(text) if kind == "python" and FILE.match(body)]
        files = {FILE.findall(body)[0]: body for body in blocks}
        if commands := commands_of(text):
            yield Page(str(document.relative_to(ROOT)), commands, files)
    lines = [line.split("   ")[0].strip() for line in HELP.splitlines() if line.startswith("  sfumato ")]
    yield Page("sfumato --help", lines)
    for name in (*VERBS, "data check"):
        verb = importlib.import_module(f"sfumato.cli.{module_of(name)}").VERB
        verbs = verb.verbs.values() if isinstance(verb, Family) else [verb]
        yield Page(f"sfumato {name} --help", [line for one in verbs for line in one.EXAMPLES])


def commands_of(markdown: str) -> list[str]:
    """Return the commands in the shell blocks and the indented lines of a document, in order, without comments."""

    def indented(block: re.Match[str]) -> str:
        return textwrap.indent(block[2].replace("\\\n", " "), "    ") if block[1] in ("sh", "bash", "console") else ""

    lines = re.findall(r"^    (?:\$ )?((?:sfumato|make) .*)$", FENCE.sub(indented, markdown), re.MULTILINE)
    split = [shlex.split(line, comments=True) for line in lines if "[" not in line]
    return [" ".join(f'"{word}"' if " " in word else word for word in words) for words in split]


def smaller(command: str) -> list[str]:
    """Return the words of a command, made small."""
    for text, other in SAME.items():
        command = command.replace(text, other)
    _, *words = shlex.split(command)
    verb = words[0]
    small: list[str] = []
    queue = iter(words)
    for word in queue:
        flag, equals, value = word.partition("=")
        if (shorter := SMALLER.get((verb, flag))) is None:
            small.append(word)
            continue
        value = value if equals else next(queue)
        small += ["--images", "+8"] if value.startswith("+") else shorter.split()
    if "--train.held_out_images" in small and not re.search(r"--net\.|--init ", command):
        small += _NETWORK.split()
    always = ALWAYS.get(verb)
    return small + (SMALLER[verb, always].split() if always and always not in small else [])


class Desk:
    """A folder and a home with the stand-ins; commands run in it."""

    def __init__(self, folder: Path, stand_in_runs: bool, goes_on: bool = False) -> None:
        self.folder, self.home, self.stand_in_runs = folder / "work", folder / "home", stand_in_runs
        self.goes_on = goes_on
        self.cache = folder.with_name("cache")
        self.seconds = 0.0  # of processor time
        self.folder.mkdir(parents=True)
        faces = _faces()
        for name in ("photos", "leaves", "cats", "generated"):
            photos = self.home / name
            photos.mkdir(parents=True)
            for i, face in enumerate(faces):
                face.save(photos / f"{i}.{'jpg' if i % 2 else 'png'}")
            rows = [
                f"{i}.{'jpg' if i % 2 else 'png'},{'long' if i % 3 else 'short'},{20 + i}.5" for i in range(len(faces))
            ]
            (photos / "labels.csv").write_text("\n".join(["file,hair,age", *rows]))
        for name, side in PICTURES.items():
            faces[len(name)].resize((side, side)).save(self.folder / f"{name}.png")

    def run(self, command: str) -> str:
        """Run a command; return why it failed, empty where it did not."""
        words = smaller(command)
        if self.goes_on:
            words = self._going_on(words)
        if self.stand_in_runs:
            self._have_runs(words)
        return self._call(words)

    def _going_on(self, words: list[str]) -> list[str]:
        """Bring runs/photos into the state that a command of `GOES_ON` is about; return the words for it."""
        run = self.folder / "runs" / "photos"
        if not run.exists():
            self._call(["train", "~/photos", *BEGUN.split(), *_NETWORK.split(), "--train.keep", KEPT])
        if words[:2] == ["train", "runs/photos"] and "--images" not in words:
            (run / "finished.json").unlink()
            shutil.rmtree(max((run / "checkpoints").iterdir()))
        if words[:2] == ["train", "~/photos"] and "--run" not in words:
            shutil.rmtree(run)
        length = {"8": "64" if "--run" in words else "16"} if words[1] == "~/photos" else {}
        words = [length.get(word, word) if before == "--images" else word for before, word in pairwise(["", *words])]
        return [re.sub(r"\b[\d.]+[kM]\b", KEPT, word) for word in words]

    def _have_runs(self, words: list[str]) -> None:
        """Train the runs that a command names, on the data that they are called after, in the fewest steps."""
        for word in words[1:]:
            if (named := re.match(r"(runs/(\w+)|demo/run)\b", word)) and not (self.folder / named[1]).exists():
                data = named[2] if named[2] in ("faces", "fashion") else "~/photos" if named[2] else "faces"
                labels = ["--labels", "source"] if data == "fashion" else []
                if failure := self._call(
                    ["train", data, "--run", named[1], *_TRAINING.split(), *_NETWORK.split(), *labels]
                ):
                    raise RuntimeError(failure)

    def _call(self, words: list[str]) -> str:
        """Run `sfumato` in a process forked from this one."""
        words = [str(self.home / word[2:]) if word.startswith("~/") else word for word in words]
        sys.stdout.flush()
        output = self.folder.with_name("output.txt")
        if (pid := os.fork()) == 0:
            self._child(words, output)
        end = time.monotonic() + MOST_SECONDS
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.seconds += ended[2].ru_utime + ended[2].ru_stime
        code, text = os.waitstatus_to_exitcode(ended[1]), output.read_text(errors="replace")
        traced = "Traceback (most recent call last)" in text or "Exception ignored" in text
        return f"exit code {code}: {' '.join(text.split())[-500:]}" if code or traced else ""

    def _child(self, words: list[str], output: Path) -> None:
        os.chdir(self.folder)
        os.environ |= {"HOME": str(self.home), "SFUMATO_CACHE": str(self.cache)}
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["sfumato", *words]
        code = 1
        try:
            code = main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _faces(count: int = 40) -> list[Image.Image]:
    import numpy as np

    from sfumato.config.data import DataConfig
    from sfumato.data import open_data

    pixels = np.asarray(open_data(DataConfig("faces")).images[:count]).transpose(0, 2, 3, 1)
    return [Image.fromarray(np.ascontiguousarray(face)) for face in pixels]


def run_page(page: Page, folder: Path, fast: bool, unused: set[str]) -> tuple[int, int, list[str]]:
    """Run a page's commands; return how many ran, how many were skipped, and the failures.

    Args:
        unused: the patterns of `SKIPPED` that no command has matched; those that match here are taken out.
    """
    trains = any(command.startswith("sfumato train ") for command in page.commands)
    desk = Desk(folder, stand_in_runs=not trains, goes_on=page.name == GOES_ON)
    if any("./faces" in command for command in page.commands):
        shutil.copytree(desk.home / "photos", desk.folder / "faces")
    for name, body in page.files.items():
        (desk.folder / name).write_text(body, encoding="utf-8")
    ran, skipped, failures = 0, 0, []
    queue = list(page.commands)
    while queue:
        command = queue.pop(0)
        reasons = {pattern: why for pattern, why in SKIPPED.items() if re.search(pattern, command)}
        unused.difference_update(reasons)
        if reasons or (fast and re.search(SLOW, command)):
            skipped += 1
            print(f"  skipped  {command}  ({next(iter(reasons.values()), 'slow')})", flush=True)
            continue
        before, failure = desk.seconds, desk.run(command)
        ran += 1
        print(f"  {'FAILED' if failure else 'ok':6}  {desk.seconds - before:4.1f} s  {command}", flush=True)
        failures += [f"{page.name}: `{command}`: {failure}"] if failure else []
        if command == "sfumato demo" and not failure:
            queue += commands_of((desk.folder / "demo" / "README.md").read_text(encoding="utf-8"))
    return ran, skipped, failures


def run_all(only: str, fast: bool) -> int:
    """Run the pages whose name contains `only`; return an exit code."""
    import sfumato.diagnose
    import sfumato.edit
    import sfumato.evaluate
    import sfumato.inspect
    import sfumato.train  # noqa: F401

    unused, ran, skipped, failures = set(SKIPPED), 0, 0, list[str]()
    root = Path(tempfile.mkdtemp(prefix="sfumato-commands-"))
    try:
        for k, page in enumerate(page for page in pages() if only in page.name):
            print(page.name, flush=True)
            more_ran, more_skipped, more_failures = run_page(page, root / str(k), fast, unused)
            ran, skipped, failures = ran + more_ran, skipped + more_skipped, failures + more_failures
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if not only:
        failures += [f"SKIPPED has '{pattern}', which no command matches" for pattern in sorted(unused)]
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{ran} commands ran, {len(failures)} problems, {skipped} skipped")
    return int(bool(failures) or not ran)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--fast", action="store_true", help="without the slow commands")
    arguments = parser.parse_args()
    sys.exit(run_all(arguments.only, arguments.fast))
