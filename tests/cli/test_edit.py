"""`sfumato edit`: each verb on a small trained model, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli.edit import VERB

from .conftest import Command, trained

RNG = np.random.default_rng(2)
STEPS = ("--steps", 4, "--num", 2)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """A finished run on a few faces in colour."""
    return trained(tmp_path_factory, "faces", "faces", "--images", "16")


@pytest.fixture
def files(tmp_path: Path) -> None:
    """Image files in the working folder: as large as the digits and not, in colour, clear in part, masks."""
    Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "digit.png")
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "wide.png")
    clear = RNG.integers(0, 256, (8, 8, 4), np.uint8)
    clear[:, :4, 3], clear[:, 4:, 3] = 0, 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    half = np.zeros((8, 8), np.uint8)
    half[4:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    (tmp_path / "text.png").write_text("not an image at all")


def folder(name: str = "out") -> dict[str, np.ndarray]:
    """The images of a folder of results, by name."""
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(Path(name).glob("*.png"))}


def test_no_word_is_a_question_for_help(sfumato: Command) -> None:
    assert sfumato("edit") == sfumato("edit", "--help")
    assert all(f"\n  {verb} " in sfumato("edit").out for verb in VERB.verbs)


@pytest.mark.parametrize("method", ["guided", "repaint", "pigdm", "moments", "dps"])
def test_painting_leaves_the_rest_as_it_is(method: str, sfumato: Command, plain: Path, files: None) -> None:
    words = ("--mask", "half.png", "--method", method, "--repeats", 2, "--out", "out")
    result = sfumato("edit", "inpaint", plain, "digit.png", *words, *STEPS)
    assert result.code == 0, result.err
    assert "digit.png: 50% painted anew" in result.out
    assert result.out.splitlines()[-2].startswith(f"{method}, ")
    assert ("each step 2 times" in result.out) == (method in ("guided", "repaint"))
    images = folder()
    assert sorted(images) == ["1", "2", "original", "to-paint"]
    assert (images["original"] == np.asarray(Image.open("digit.png"))).all()
    for name in ("1", "2"):
        assert (images[name][:4] == images["original"][:4]).all()
        assert (images[name][4:] != images["original"][4:]).any()
    assert (images["1"] != images["2"]).any()


def test_a_box_a_mask_and_transparency_say_the_same(sfumato: Command, plain: Path, files: None) -> None:
    left = np.zeros((16, 16), np.uint8)
    left[:, :8] = 255
    Image.fromarray(left).save("left.png")
    results = []
    for n, where in enumerate((["--mask", "left.png"], ["--box", "0,0,4,8"], [])):
        assert sfumato("edit", "inpaint", plain, "clear.png", *where, *STEPS, "--out", f"out{n}").code == 0
        results.append(folder(f"out{n}"))
    for other in results[1:]:
        assert all((other[name] == image).all() for name, image in results[0].items())


def test_a_mask_that_would_paint_nothing_is_refused(
    sfumato: Command, refused: Command, plain: Path, files: None
) -> None:
    faint = np.zeros((8, 8), np.uint8)
    faint[2:5, 2:5] = 1
    Image.fromarray(faint).save("ones.png")
    assert "14% painted anew" in sfumato("edit", "inpaint", plain, "digit.png", "--mask", "ones.png", *STEPS).out
    Image.fromarray(faint * 60).save("dark.png")
    assert "leaves nothing to paint" in str(refused("edit", "inpaint", plain, "digit.png", "--mask", "dark.png"))


def test_nothing_and_everything_to_paint_are_said(sfumato: Command, plain: Path, files: None) -> None:
    Image.new("L", (8, 8)).save("black.png")
    result = sfumato("edit", "inpaint", plain, "digit.png", "--mask", "black.png", *STEPS, "--out", "out")
    assert "nothing to paint: the image itself" in result.out
    assert (folder()["2"] == np.asarray(Image.open("digit.png"))).all()
    result = sfumato("edit", "inpaint", plain, "digit.png", "--box", "0,0,8,8", *STEPS, "--out", "all")
    assert "everything to paint: plain samples" in result.out
    drawn = sfumato("sample", plain, "--num", 2, "--steps", 4, "--sampler", "ddim", "--eta", 1, "--out", "plain")
    assert drawn.code == 0
    assert (folder("all")["1"] == folder("plain")["000000"]).all()


def test_strengths_are_rows_and_the_ends_are_exact(sfumato: Command, plain: Path, files: None) -> None:
    result = sfumato("edit", "vary", plain, "digit.png", "--strength", "0,0.5,1", *STEPS, "--out", "out")
    assert "digit.png, t = 0.5: strength 0.5, " in result.out
    images = folder()
    assert (images["000-1"] == images["000-original"]).all()
    assert (images["001-1"] != images["001-original"]).any()
    assert sfumato("sample", plain, "--num", 2, "--steps", 4, "--out", "plain").code == 0
    assert (images["002-2"] == folder("plain")["000001"]).all()


def test_images_are_fitted_and_that_is_said(sfumato: Command, plain: Path, files: None) -> None:
    result = sfumato("edit", "vary", plain, "wide.png", "digit.png", *STEPS)
    assert "wide.png: cut from 30x20 to 20x20, resized to 8x8, made grey; strength 0.5, " in result.out
    assert result.out.splitlines()[-1] == "plain-vary-wide.png"


def test_inversion_reports_its_error(sfumato: Command, plain: Path, files: None) -> None:
    said = [
        json.loads(sfumato("edit", "invert", plain, "digit.png", "--steps", 10, "--corrections", n, "--json").out)
        for n in (0, 20)
    ]
    assert said[0]["out"] == "plain-invert-digit.png"
    errors = [one["rows"][0]["rmse"] for one in said]
    assert errors[1] < errors[0]
    assert said[0]["rows"][0]["psnr"] == pytest.approx(20 * np.log10(255 / errors[0]))


def test_the_way_between_samples_ends_at_them(sfumato: Command, plain: Path) -> None:
    words = ("--seed", 4, "--to", 2, "--num", 3, "--steps", 5, "--out", "out")
    assert sfumato("edit", "interpolate", plain, *words).code == 0
    images = folder()
    assert sorted(images) == ["0.00", "0.50", "1.00"]
    for seed, name in ((4, "0.00"), (2, "1.00")):
        words = ("--num", 1, "--seed", seed, "--sampler", "ddim", "--steps", 5, "--out", f"seed{seed}")
        assert sfumato("sample", plain, *words).code == 0
        drawn = folder(f"seed{seed}")["000000"]
        assert int(np.abs(images[name].astype(int) - drawn).max()) <= 1


def test_the_way_between_images(sfumato: Command, plain: Path, files: None) -> None:
    result = sfumato("edit", "interpolate", plain, "digit.png", "half.png", "--num", 3, "--steps", 5, "--json")
    (row,) = json.loads(result.out)["rows"]
    assert row["name"] == "digit.png to half.png"
    assert len(row["rmse"]) == 2
    assert 0 < row["angle"] < 180


@pytest.mark.parametrize(
    "words",
    [
        ("colorize", "wide.png"),
        ("colorize", "digit.png", "--method", "moments"),
        ("upscale", "digit.png", "--factor", 4),
        ("upscale", "wide.png", "--degrade", "--noise", 3),
        ("deblur", "wide.png", "--sigma", 0.7),
        ("deblur", "wide.png", "--degrade", "--method", "dps"),
    ],
)
def test_restoring_in_colour(words: tuple[object, ...], sfumato: Command, faces: Path, files: None) -> None:
    result = sfumato("edit", words[0], faces, *words[1:], *STEPS, "--json", "--out", "out")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert len(said["rows"][0]["residual"]) == 2
    compared = "--degrade" in words or words == ("colorize", "wide.png")
    assert ("rmse" in said["rows"][0]) == compared == ("original" in folder())
    assert all(image.shape == (16, 16, 3) for image in folder().values())


def test_the_sampling_options_reach_an_edit(sfumato: Command, plain: Path, files: None) -> None:
    ddpm = ("--sampler", "ddpm", "--variance")
    ways = ((), ("--batch", 1), (*ddpm, "large"), (*ddpm, "analytic"))
    for n, way in enumerate(ways):
        words = ("--box", "0,0,8,4", "--num", 3, "--steps", 4, "--repeats", 2, "--out", f"out{n}")
        assert sfumato("edit", "inpaint", plain, "digit.png", *words, *way).code == 0
    whole, ones, *others = (folder(f"out{n}") for n in range(len(ways)))
    assert all(int(np.abs(whole[name].astype(int) - ones[name]).max()) <= 1 for name in whole)
    assert len({result["1"].tobytes() for result in (whole, *others)}) == 1 + len(others)


def test_a_label_is_heard(sfumato: Command, labelled: Path, files: None) -> None:
    for n, words in enumerate(((), ("--label", "3"), ("--label", "3", "--guidance", "3"))):
        assert (
            sfumato("edit", "vary", labelled, "digit.png", "--strength", 1, *STEPS, *words, "--out", f"o{n}").code == 0
        )
    assert len({folder(f"o{n}")["1"].tobytes() for n in range(3)}) == 3


def test_what_was_probably_wanted_is_said(sfumato: Command, labelled: Path, plain: Path, files: None) -> None:
    """A label at a low strength, and a sharp picture to sharpen."""
    vary = ("edit", "vary", labelled, "digit.png", *STEPS)
    for n, (words, said) in enumerate(
        (
            (("--label", "3"), True),
            (("--label", "3", "--strength", "0.2,0.8"), False),
            ((), False),
        )
    ):
        assert ("raise --strength (0.8) for the label" in sfumato(*vary, *words, "--out", f"v{n}").out) == said
    deblur = ("edit", "deblur", plain, "digit.png", *STEPS)
    sharp = "the image is not blurred by this --sigma; --degrade is for a sharp original"
    assert sharp in sfumato(*deblur, "--out", "d").out
    assert sharp not in sfumato(*deblur, "--degrade", "--out", "e").out
    assert sharp not in sfumato(*deblur, "--noise", 100, "--out", "f").out


def test_every_file_says_how_it_was_made(sfumato: Command, plain: Path, files: None) -> None:
    words = ("--strength", 0.3, "--seed", 9, "--weights", "raw", *STEPS, "--out", "a.png")
    assert sfumato("edit", "vary", plain, "digit.png", *words).code == 0
    text = Image.open("a.png").text  # type: ignore[attr-defined]
    known = {"edit": "vary", "images": '["digit.png"]', "strength": "0.3", "seed": "9", "num": "2", "steps": "4"}
    assert known.items() <= text.items()
    assert text["weights"] == sha256((plain / "weights" / "raw.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("edit vry RUN digit.png", "edit has no verb 'vry'; did you mean 'vary'?"),
        ("edit vary", "edit vary needs RUN_OR_WEIGHTS, for example: sfumato edit vary"),
        ("edit vary RUN", "edit vary needs IMAGE"),
        ("edit vary RUN digit.png --strenth 1", "edit vary has no option --strenth; did you mean --strength?"),
        ("edit vary RUN digit.png --strength 1.5", "--strength is 1.5: it must lie from 0"),
        ("edit vary RUN digit.png --strength 0.2,x", "--strength takes numbers from 0 to 1"),
        ("edit vary RUN digit.png --num 0", "--num is 0"),
        ("edit vary RUN digit.png --seed -1", "--seed is -1"),
        ("edit vary RUN digit.png --batch 0", "--batch is 0"),
        ("edit vary RUN digit.png --steps 99", "the model's chain has 50"),
        ("edit vary RUN digit.png --label 3", "trained without labels"),
        ("edit vary RUN digit.png --out a.jpg", "the name must end in .png"),
        ("edit vary RUN digit.png --out .", ". exists and is not an empty folder"),
        ("edit vary RUN digit.png --guidance 2", "needs a model that was trained with labels"),
        ("edit vary RUN digit.png --device tpu", "--device can't be 'tpu'"),
        ("edit vary nowhere digit.png", "nowhere does not exist"),
        ("edit vary text.png digit.png", "text.png is not a weights file but a text file"),
        ("edit vary RUN nowhere.png", "nowhere.png does not exist: give an image file"),
        ("edit vary RUN text.png", "text.png can't be used: not an image: text"),
        ("edit inpaint RUN digit.png --box 0 1 10 20", "does not take '1': write --box 0,1,10,20"),
        ("edit inpaint RUN digit.png", "digit.png has no transparent pixels to paint: give a mask"),
        ("edit inpaint RUN digit.png --mask text.png", "text.png can't be used"),
        ("edit inpaint RUN digit.png --mask half.png --box 0,0,1,1", "--mask and --box both say what to paint"),
        ("edit inpaint RUN digit.png --box 0,0,9,1", "the box 0,0,9,1 is not within digit.png, which is 8 wide"),
        ("edit inpaint RUN digit.png --box 1,2,3", "--box takes left,top,width,height"),
        ("edit inpaint RUN digit.png --mask half.png --repeats 0", "--repeats is 0: choose from 1"),
        ("edit interpolate RUN digit.png", "takes two images or none, not 1"),
        ("edit interpolate RUN digit.png half.png --to 3", "--seed and --to are for samples"),
        ("edit interpolate RUN --num 1", "--num is 1: give at least 2, the two ends"),
        ("edit interpolate RUN --sampler ddpm", "needs deterministic ddim"),
        ("edit invert RUN digit.png --eta 0.5", "needs deterministic ddim"),
        ("edit invert RUN digit.png --steps 1", "a single step can't be inverted"),
        ("edit invert RUN digit.png --corrections -1", "--corrections is -1"),
        ("edit colorize RUN digit.png", "this model makes grey images: colorize needs a model of colour images"),
        ("edit upscale RUN digit.png --factor 16", "the factor is 16, and the model's images are 8x8: choose 2, 4, 8"),
        ("edit upscale RUN digit.png --factor 3", "the factor is 3"),
        ("edit deblur RUN digit.png --sigma 0", "sigma is 0: it must be above 0"),
        ("edit deblur RUN digit.png --sigma 99", "at most the image's 8 pixels"),
        ("edit deblur RUN digit.png --noise -1", "--noise is -1"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    line: str, said: str, refused: Callable[..., str], plain: Path, files: None, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert said in refused(*[plain if word == "RUN" else word for word in line.split()])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_edit_takes_twenty_steps_where_samples_take_ten(sfumato: Command, files: None) -> None:
    """By the command line as in the library, with a model that comes along, whose grid is `visible`."""
    said = sfumato("edit", "vary", "faces", "digit.png", "--strength", 0.5, "--num", 1, "--device", "cpu", "--json")
    assert json.loads(said.out)["steps"] == 20


def test_a_variation_says_one_number_of_steps(sfumato: Command, plain: Path, files: None) -> None:
    said = sfumato("edit", "vary", plain, "digit.png", "--strength", 0.5, "--num", 1, "--steps", 10)
    assert said.code == 0
    assert len(re.findall(r"[0-9]+ steps?", said.out)) == 1, said.out
