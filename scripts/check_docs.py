"""Check that the documents tell the truth: links lead somewhere, Python blocks run, commands parse.

    python scripts/check_docs.py [FILE.md ...]        all documents when none is named

- a relative link must name a file of the project, and a heading in it where the link has a `#fragment`;
- the ```python blocks of one document run in order, in one namespace, in an empty folder of their own
  (a block that is not meant to run is marked ```py);
- a line `sfumato VERB ...` in a ```sh block must be one that the command line would accept (it is parsed, not run).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator
from pathlib import Path

from sfumato.cli.main import check_command
from sfumato.errors import UserError, plural

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def main(names: list[str]) -> int:
    documents = [Path(n).resolve() for n in names] or sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if len(documents) > 1:  # each in a process of its own: an example may register something
        codes = [subprocess.run([sys.executable, __file__, str(each)]).returncode for each in documents]
        return int(any(codes))  # a process that a signal ended has a negative one
    (document,) = documents
    problems = list(check(document))
    for problem in problems:
        print(f"{document.relative_to(ROOT)}: {problem}", file=sys.stderr)
    print(f"{document.relative_to(ROOT)}: {plural(len(problems), 'problem')}")
    return int(bool(problems))


def check(document: Path) -> Iterator[str]:
    """Yield every problem of one document, a line each."""
    text = document.read_text(encoding="utf-8")
    blocks = FENCE.findall(text)
    yield from links(document, FENCE.sub("", text))
    yield from commands("\n".join(body for kind, body in blocks if kind in ("sh", "bash", "console")))
    yield from examples([body for kind, body in blocks if kind == "python"])


def links(document: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if not file.exists():
            yield f"the link {target} leads nowhere"
        elif fragment and file.suffix == ".md" and fragment not in anchors(file):
            yield f"the link {target} names a heading that is not there"


def anchors(document: Path) -> set[str]:
    """The fragments of a document's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def commands(shell: str) -> Iterator[str]:
    for line in shell.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] != ["sfumato"]:
            continue
        try:
            check_command(words[1:])
        except UserError as error:
            yield f"`{line.strip()}`: {error}"


def examples(blocks: list[str]) -> Iterator[str]:
    module = sys.modules["__docs__"] = types.ModuleType("__docs__")  # dataclasses look their module up
    names = module.__dict__
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), open(os.devnull, "w") as quiet:
        for n, body in enumerate(blocks, 1):
            try:
                with contextlib.redirect_stdout(quiet):
                    exec(compile(body, f"block {n}", "exec", dont_inherit=True), names)
            except Exception:
                yield f"python block {n} fails: {traceback.format_exc(limit=-1).strip().splitlines()[-1]}"
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
