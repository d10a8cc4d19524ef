"""Dispatch, help, and what becomes of a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sfumato.cli import habits
from sfumato.cli import main as main_module
from sfumato.cli.edit import VERB as EDITS
from sfumato.cli.main import VERBS, check_command, main
from sfumato.config.config import Config, to_dict
from sfumato.config.keys import SHORT, typed
from sfumato.config.tree import flatten
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


@pytest.mark.parametrize("verb", ["sample", "evaluate", "edit vary", "train"])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_help_is_wrapped_to_the_terminal_alone(
    verb: str, width: int, sfumato: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of an option's text ends where the first word of the next one would have fitted."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [line[:-1].rstrip() for line in sfumato(*verb.split(), "--help").out.splitlines() if line[:1] == "│"]
    column = " " * (len(next(line for line in lines if "  show this help" in line).partition("show")[0]) - 1)
    for line, after in pairwise(lines):
        word = after.removeprefix("│" + column).split(" ")[0].split(",")[0]
        if after.startswith("│" + column) and word and line.startswith("│" + column):
            assert len(line) + 1 + len(word) > width - 3, f"{line!r} has room for {word!r}"


@pytest.mark.parametrize("verb", [*VERBS, *(f"edit {verb}" for verb in EDITS.verbs)])
def test_every_verb_explains_itself_with_examples_that_parse(verb: str, sfumato: Command) -> None:
    result = sfumato(*verb.split(), "--help")
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
        ("sample faces --sampler dddpm", "--sampler: 'dddpm' is unknown; did you mean 'ddpm'"),
        ("sample x --num", "--num needs a value"),
        ("sample x y", "does not take 'y'"),
        ("train faces --net.base", "--net.base needs a value"),
        ("train faces --net.base --seed 1", "--net.base needs a value"),
        ("info x --net.base 3", "no option --net.base"),
        ("train x --batch_size 16", "train has no option --batch_size: write --batch 16"),
        ("train x --learning-rate=1e-4", "--learning-rate: write --lr 1e-4"),
        (
            "train faces --epochs 10",
            "write --images 47500 (length is counted in images: 10 times about 4,750 that",
        ),
        ("train nowhere --epochs 10", "write --images N (length is counted in images"),
        ("train x --steps 100", "write --images 6400 --batch 64 ("),
        ("train x --batch 16 --max_train_steps 100", "write --images 1600 ("),
        ("plan x --resolution 32", "plan has no option --resolution: write --size 32"),
        ("train x --output_dir out", "write --run out"),
        ("train x --name cats", "write --run runs/cats"),
        ("train x --out out", "write --run out"),
        ("train x --resume", "--resume: the same command resumes the run"),
        ("train x --mixed_precision fp16", "everything is computed in float32"),
        ("train x --num_workers 4", "images are decoded once"),
        ("train x --ema_decay 0.9999", "write --ema.half_life 443592 ("),
        ("train x --prediction_type epsilon", "write --diffusion.parameterization eps"),
        ("train --data photos", "the data comes first, without an option: sfumato train photos"),
        ("train x --fp16 --epochs 2 --xyzzy", "in float32 (leave it out); --epochs: write --images N ("),
        ("sample x --cfg-scale 3", "sample has no option --cfg-scale: write --guidance 3"),
        ("sample x --count 4 -o a.png", "--count: write --num 4; -o: write --out a.png"),
        ("edit vary x a.png --num-inference-steps 9", "edit vary has no option --num-inference-steps: write --steps 9"),
        ("sample x --size 32", "a model makes images of the size that it was trained on"),
        ("sample x --device gpu", "--device can't be 'gpu': write --device cuda"),
        ("sample x --model y", "comes first, without an option: sfumato sample y"),
        ("evaluate x --fid", "write --quality"),
        ("diagnose x --cfg 2", "no option --cfg; see sfumato diagnose --help"),
        ("generate runs/x --num 3", "there is no verb 'generate': write sfumato sample runs/x --num 3"),
        ("inpaint runs/x a.png", "write sfumato edit inpaint runs/x a.png"),
        ("sample x --seed 1 --seed=2", "--seed is given twice: give it once"),
        ("info no\nsuch\nrun", "no such run does not exist"),
    ],
)
def test_a_mistake_is_one_line_that_helps(line: str, said: str, refused: Command) -> None:
    assert said in refused(*line.split(" "))


def test_epochs_count_the_images_that_train(refused: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(40):
        Image.new("L", (8, 8), n).save(tmp_path / "photos" / f"{n}.png")
    for n in range(10):
        (tmp_path / "photos" / f"bad-{n}.png").write_bytes(b"no picture")
    said = refused("train", "photos", "--epochs", "2")
    assert "--images 76 (" in said, "95 % of 40"
    assert "2 times about 38 that train; 5% are held out, 10 can't be read" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the labels are not used; data.labels=source trains with them", "--labels source trains"),
        ("chosen; data.size=N sets another", "--size N sets another"),
        ("(data.held_out=0 trains on all)", "(--data.held_out 0 trains on all)"),
        ("use diffusion.parameterization=v, x0", "use --diffusion.parameterization v, x0"),
        ("cut off by data.percentiles=1,99.", "cut off by --data.percentiles 1,99."),
        ("write --data.size=32, a/data.b=c", "write --data.size=32, a/data.b=c"),
        ('size = "3"  data.size 3', 'size = "3"  data.size 3'),
    ],
)
def test_keys_are_said_as_options(text: str, said: str) -> None:
    assert said in typed(text)


def test_a_key_without_a_value_is_said_as_an_option_only_where_it_is_one() -> None:
    said = typed("data.labels is source, and data.range is for floats: data.csv and train.csv", bare=True)
    assert said == "--labels is source, and --data.range is for floats: data.csv and train.csv"


def test_a_second_spelling_of_an_option_is_fine() -> None:
    check_command(["sample", "x", "--num=3", "--raw", "--eta", "0.5"])
    check_command(["train", "x", "--dry_run", "--net.base=3"])
    with pytest.raises(UserError, match="does not take"):
        check_command(["sample", "x", "--no-json"])


def test_repeated_labels_are_joined() -> None:
    words = ["sample", "x", "--label", "glasses=dark", "--num", "3", "--label=hair=long"]
    verb: Any = main_module._parsed(words)
    assert (verb.label, verb.num) == ("glasses=dark,hair=long", 3)


def test_what_habits_tell_one_to_write_exists() -> None:
    """Every option that an answer names is one of the verb or a key of the configuration."""
    keys = {f"--{key}" for key in flatten(to_dict(Config()))} | {"--net.multipliers", "--net.base", "--net.blocks"}
    for verb, table in habits._TABLES.items():
        if verb == "edit":
            continue
        fields = {f"--{name}" for name in vars(import_module(f"sfumato.cli.{verb}").VERB)["__dataclass_fields__"]}
        for name in " ".join(table).split():
            said = habits.answer(verb, f"--{name}", "1", ["x"], fields)
            flag = said.removeprefix("write ").split()[0] if said.startswith("write") else ""
            assert not flag or flag in keys | fields | set(map("--{}".format, SHORT)), (verb, name)
    assert all(target.split()[0] in VERBS for target in habits.VERBS.values())


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU OpenMP's setting")
@pytest.mark.parametrize(("own", "spins"), [({}, "10000"), ({"OMP_WAIT_POLICY": "active"}, None)])
def test_waiting_threads_sleep_before_torch_is_there(own: dict[str, str], spins: str | None) -> None:
    code = """if True:
        import os, sys
        from sfumato.cli.main import main
        main(["--version"])
        print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"))
    """
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain | own)
    assert said.stdout.splitlines()[1] == f"False {spins}"


def test_what_libraries_say_passes_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    code = """if True:
        import logging, warnings
        from sfumato.cli.console import gated
        with gated():
            logging.getLogger("PIL").warning("a name \\x1b]0;owned\\x07")
            warnings.warn("two\\nlines \\x1b[31m")
        warnings.warn("plain again")
    """
    said = python(code).stderr
    assert said.startswith("a name \\x1b]0;owned\\x07\nUserWarning: two lines \\x1b[31m\n")
    assert "<string>:7: UserWarning: plain again" in said
    assert "\x1b" not in said


def test_a_dotted_option_that_is_given_twice_is_refused(refused: Command) -> None:
    line = refused("train", "digits", "--optim.lr", "1", "--optim.lr=2")
    assert "--optim.lr is given twice: give it once" in str(line)
