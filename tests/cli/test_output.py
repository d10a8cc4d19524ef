"""Files that are written: somebody else's are not overwritten, and wrong names are refused before torch is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sfumato.cli.output import check_file, free
from sfumato.errors import UserError

from .conftest import Command


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.npz", "a.tif"])
def test_samples_do_not_overwrite_a_file_of_another(
    name: str, sfumato: Command, refused: Command, plain: Path, tmp_path: Path
) -> None:
    out, words = tmp_path / name, ["sample", plain, "--num", 2, "--steps", 2, "--device", "cpu", "--out", name]
    out.write_bytes(b"mine")
    assert f"--out {name} exists and was not written by sfumato" in refused(*words)
    assert out.read_bytes() == b"mine"
    assert sfumato(*words, "--force").code == 0
    once = out.read_bytes()
    assert once != b"mine"
    assert sfumato(*words, "--seed", 1).code == 0  # its own file is replaced
    assert out.read_bytes() != once


def test_default_names_get_a_number(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "digit.png")
    words = ["edit", "vary", plain, "digit.png", "--num", 1, "--steps", 2, "--device", "cpu"]
    for _ in range(3):
        assert sfumato(*words).code == 0
    assert sorted(path.name for path in tmp_path.glob("plain-*")) == [
        "plain-vary-digit-2.png", "plain-vary-digit-3.png", "plain-vary-digit.png",
    ]  # fmt: skip
    assert free(tmp_path / "new.png") == tmp_path / "new.png"


def test_pages_lists_and_sheets_of_another_are_kept(refused: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.new("L", (8, 8), 80 * n).save(tmp_path / "photos" / f"{n}.png")
    for name in ("keep.html", "keep.txt", "keep.png"):
        (tmp_path / name).write_text("mine")
    for verb, option, name in (
        ("data check", "--out", "keep.html"),
        ("data check", "--fix", "keep.txt"),
        ("data", "--out", "keep.png"),
    ):
        assert f"{option} {name} exists and was not written by" in refused(*verb.split(), "photos", option, name)
        assert (tmp_path / name).read_text() == "mine"


def test_marks_are_of_what_is_written(tmp_path: Path) -> None:
    for name in ("list.txt", "empty.png"):
        (tmp_path / name).write_bytes(b"sfumato" if name == "list.txt" else b"")
        with pytest.raises(UserError, match="give --force"):
            check_file(tmp_path / name, force=False)
        check_file(tmp_path / name, force=True)


def test_what_is_no_run_is_named(refused: Command, sfumato: Command, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "cats" / "a.jpg")
    assert "photos is a folder of images, not a run: first train a model, sfumato train photos" in refused(
        "sample", "photos"
    )
    saved = plain / "checkpoints" / "000000000080"
    words = ["--num", 2, "--steps", 2, "--device", "cpu", "--out"]
    assert sfumato("sample", saved, *words, "one.png").code == 0
    assert sfumato("sample", plain, *words, "other.png").code == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
    assert "is a checkpoint, and has no best weights" in refused("sample", saved, "--weights", "best")


def test_a_checkpoint_has_the_images_of_its_run(plain: Path, tmp_path: Path) -> None:
    from sfumato.model import load

    run = Path(shutil.copytree(plain, tmp_path / "run"))
    config = run / "config.toml"
    config.write_text(config.read_text().replace("held_out = 0.05", "held_out = 0.5"))
    model = load(run / "checkpoints" / "000000000080", "raw")
    assert (model.kind, model.data_config().held_out) == ("raw", 0.5)


def test_slips_are_refused_without_torch(plain: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from sfumato.cli.main import main
        run, lines = sys.argv[1], sys.argv[2:]
        codes = [main(line.replace("RUN", run).split()) for line in lines]
        print(codes, "torch" in sys.modules)
    """
    lines = (
        "sample nosuch",
        "sample RUN --num 0",
        "sample RUN --out film.mp4",
        "sample RUN --device gpu",
        "sample RUN --weights worst",
        "edit vary RUN nosuch.png",
        "edit vary nosuch a.png",
        "edit vary RUN a.png --out a.jpg",
        "evaluate nosuch",
        "evaluate RUN --steps 0",
        "edit vary RUN a.png --steps 0",
        "sample RUN --sampler dpmp-2",
        "evaluate RUN --sampler nope",
        "edit inpaint RUN a.png --grid vsible",
        "sample RUN --range no",
        "train digits --preset smal8",
        "plan digits --preset nope",
        "data check digits --preset nope",
    )
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    words = [sys.executable, "-c", code, str(plain), *lines]
    said = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert said.stdout.split("\n")[0] == f"{[2] * len(lines)} False", said.stderr


def test_the_names_known_without_torch_are_those_of_the_registries() -> None:
    code = """if True:
        from sfumato.config import names
        from sfumato.config.presets import PRESETS
        from sfumato.diffusion import GRIDS, SAMPLERS
        from sfumato.generate.recipe import RANGES
        assert set(names.SAMPLERS) == set(SAMPLERS) and set(names.GRIDS) == set(GRIDS)
        assert set(names.RANGES) == set(RANGES) and set(names.PRESETS) == set(PRESETS)
    """  # in a process of its own, since other tests add to the registries
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_sampler_of_ones_own_is_not_refused_by_its_name(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "own.py").write_text("from sfumato.diffusion import SAMPLERS, DDIM\nSAMPLERS['own'] = DDIM\n")
    words = ["sample", plain, "--use", "own.py", "--sampler", "own", "--steps", 1, "--num", 1, "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "sfumato", *map(str, words)], check=True, cwd=tmp_path, timeout=120)


def test_a_place_that_is_no_folder_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x")
    with pytest.raises(UserError, match=r"--out .* can't be written: .*notes is not a folder to write in"):
        check_file(tmp_path / "notes" / "page.html", False)
    check_file(tmp_path / "new" / "folders" / "page.html", False)


def test_names_of_models_that_come_along_are_suggested(refused: Command) -> None:
    assert "did you mean 'faces'?" in refused("sample", "facs")
    assert "have no checkpoints: write faces" in refused("sample", "faces@best")
