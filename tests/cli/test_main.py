"""Dispatch, help, and what becomes of a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.cli import main as main_module
from sfumato.cli.main import VERBS, check_command, main
from sfumato.errors import UserError

from .conftest import Command


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_help_and_parsing_never_import_torch() -> None:
    code = """if True:
        import sys
        from sfumato.cli.main import check_command, main
        import sfumato
        def end(words):
            try: return main(words)
            except SystemExit as stop: return stop.code
        codes = [end(["--help"]), end(["--version"]), *(end([v, "--help"]) for v in sys.argv[1:])]
        codes += [end([]), end(["train", "x", "--sede", "1"])]
        check_command(["train", "faces", "--budget", "2m"])
        heavy = {"torch", "numpy", "PIL", "safetensors"} & set(sys.modules)
        print(codes, heavy, file=sys.stderr)
    """
    said = python(code, *VERBS)
    codes = [0, 0, *[0 for _ in VERBS], 0, 2]
    assert said.stderr.splitlines()[-1] == f"{codes} set()"


def test_the_first_help_does_without_the_option_parser() -> None:
    said = python("import sys; from sfumato.cli.main import main; main(['--help']); print('tyro' in sys.modules)")
    assert said.stdout.splitlines()[-1] == "False"
    assert all(f"  {verb}" in said.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples_that_parse(verb: str, sfumato: Command) -> None:
    result = sfumato(verb, "--help")
    assert result.code == 0
    examples = [line.split() for line in result.out.splitlines() if line.startswith(f"  sfumato {verb}")]
    assert examples
    for words in examples:
        check_command(words[1:])
    assert max(map(len, result.out.splitlines())) <= 100


def test_python_m_sfumato_is_the_command() -> None:
    said = subprocess.run([sys.executable, "-m", "sfumato", "--version"], capture_output=True, text=True)
    assert (said.returncode, said.stdout.split()[0]) == (0, "sfumato")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian faces", "unknown verb 'trian'; did you mean 'train'?"),
        ("--verbose", "unknown option '--verbose'"),
        ("sample", "sample needs RUN_OR_WEIGHTS, for example: sfumato sample runs/faces"),
        ("train --budget 2m", "train needs DATA, for example: sfumato train faces"),
        ("sample x --stesp 5", "no option --stesp; did you mean --steps?"),
        ("sample x --steps=5 --xyzzy", "no option --xyzzy; see sfumato sample --help"),
        ("sample x --num many", "--num takes a whole number, not 'many'"),
        ("sample x --eta none", "--eta takes a number, not 'none'"),
        ("sample x --sampler dddpm", "--sampler: 'dddpm' is unknown; did you mean 'ddpm'"),
        ("sample x --num", "--num needs a value"),
        ("sample x y", "does not take 'y'"),
        ("train faces --net.base", "--net.base needs a value"),
        ("train faces --net.base --seed 1", "--net.base needs a value"),
        ("info x --net.base 3", "no option --net.base"),
        ("info no\nsuch\nrun", "no such run does not exist"),
    ],
)
def test_a_mistake_is_one_line_that_helps(line: str, said: str, refused: Command) -> None:
    assert said in refused(*line.split(" "))


def test_a_second_spelling_of_an_option_is_fine() -> None:
    check_command(["sample", "x", "--num=3", "--raw", "--eta", "0.5"])
    check_command(["train", "x", "--dry_run", "--net.base=3"])
    with pytest.raises(UserError, match="does not take"):
        check_command(["sample", "x", "--no-json"])


def test_tracebacks_are_there_when_asked_for(sfumato: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_TRACEBACK", "1")
    result = sfumato("info", "nowhere")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("sfumato: nowhere does not exist")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "/runs/a.png"), "No space left on device: /runs/a.png"),
        (UserError("two\nlines"), "two lines"),
        (MemoryError(), "out of memory: use a smaller batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), "out of memory: use a smaller batch"),
    ],
)
def test_what_a_verb_may_raise(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(main_module, "_dispatch", raising)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith(f"sfumato: {line}")


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(words: list[str]) -> int:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(main_module, "_dispatch", raising)
    with pytest.raises(RuntimeError):
        main([])


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from sfumato.cli.main import main; sys.stdin.read(1); sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(b"x")
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
