"""`sfumato sample`: the same images whatever the batch and wherever they go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.diffusion import DDIM, SAMPLERS
from sfumato.generate import pictures
from sfumato.generate.recipe import AUTO, VISIBLE_STEPS
from sfumato.model import load

from .conftest import Command


def drawn(sfumato: Command, run: Path, *words: object, num: int = 5, steps: int | None = 4) -> np.ndarray:
    """Sample into an array and return it, uint8 (N, H, W, C)."""
    given: list[object] = [] if steps is None else ["--steps", steps]
    given += [] if "--sampler" in words else ["--sampler", "ddim"]
    assert sfumato("sample", run, "--num", num, *given, "--out", "drawn.npz", *words).code == 0
    with np.load("drawn.npz") as arrays:
        return arrays["images"]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal, but for rounding at the edge between two bytes."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("method", [(), ("--eta", 0.7), *(("--sampler", name) for name in SAMPLERS)])
def test_an_image_is_the_same_for_every_batch_and_number(
    batch: int, method: tuple[object, ...], sfumato: Command, plain: Path
) -> None:
    whole = drawn(sfumato, plain, *method)
    assert close(drawn(sfumato, plain, *method, "--batch", batch, num=3), whole[:3])
    assert len({image.tobytes() for image in whole}) == 5, "five images, not one five times"


def test_all_four_outputs_hold_the_same_images(sfumato: Command, plain: Path) -> None:
    array = drawn(sfumato, plain).transpose(0, 3, 1, 2)
    for out in ("grid.png", "folder", "film.gif"):
        result = sfumato("sample", plain, "--num", 5, "--steps", 4, "--sampler", "ddim", "--out", out)
        assert result.out.splitlines()[-1] == out
    assert (pictures.tiles(Image.open("grid.png")) == array).all()
    assert sorted(p.name for p in Path("folder").glob("*.png")) == [f"{n:06d}.png" for n in range(5)]
    for n in range(5):
        assert (np.asarray(Image.open(f"folder/{n:06d}.png")) == array[n, 0]).all()
    film = Image.open("film.gif")
    assert film.n_frames == 5, "the prior and four steps"  # type: ignore[attr-defined]
    film.seek(4)
    scale = film.width // pictures.grid(array, scale=1).width
    assert (np.asarray(film.convert("L")) == np.asarray(pictures.grid(array, scale=scale))).all()


def test_the_command_and_the_library_agree(sfumato: Command, plain: Path) -> None:
    import sfumato as library

    for sampler in ("auto", "ddim"):
        images = library.to_bytes(library.sample(load(plain), 5, library.Recipe(sampler, steps=4)))
        assert close(drawn(sfumato, plain, "--sampler", sampler), images.permute(0, 2, 3, 1).numpy())


def test_the_choices_change_the_images(sfumato: Command, plain: Path) -> None:
    ways = [
        ("--sampler", "ddpm", "--variance", "large"),
        (),
        ("--seed", 1),
        ("--eta", 1),
        ("--raw",),
        ("--range", "free"),
        ("--range", "threshold"),
        ("--grid", "karras"),
        ("--grid", "fitted"),
        ("--sampler", "unipc"),
        ("--steps", 5),
    ]
    results = [drawn(sfumato, plain, *way, steps=None if "--steps" in way else 4) for way in ways]
    assert len({result.tobytes() for result in results}) == len(ways)


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance(sfumato: Command, plain: Path) -> None:
    assert close(drawn(sfumato, plain, "--eta", 1, "--grid", "trailing"), drawn(sfumato, plain, "--sampler", "ddpm"))


def test_default_steps_are_the_papers_or_what_auto_measured(sfumato: Command, plain: Path) -> None:
    ways = [("--sampler", "ddim"), ("--sampler", "ddpm"), ("--sampler", "heun"), (), ("--quality", "fast")]
    said = [json.loads(sfumato("sample", plain, "--num", 1, "--json", *way).out) for way in ways]
    assert [way["steps"] for way in said[:3]] == [50, 50, 10], "the chain has 50 steps"
    assert said[0]["out"] == "plain-ddim-50-seed0.png"
    for way, quality in zip(said[3:], ("best", "fast"), strict=True):
        assert (way["sampler"], way["steps"], way["grid"]) == (AUTO, VISIBLE_STEPS[quality], "visible")
    assert [way["evaluations"] for way in said[:3]] == [50, 50, 19], "heun's last step takes one"


def test_weights_are_chosen_one_way(sfumato: Command, plain: Path) -> None:
    files = {kind: plain / "weights" / f"{kind}.safetensors" for kind in ("ema", "raw", "best")}
    own = {kind: drawn(sfumato, file).tobytes() for kind, file in files.items()}
    assert drawn(sfumato, plain).tobytes() == own["ema"] != own["raw"]
    for kind, file in files.items():
        assert drawn(sfumato, plain, "--weights", kind).tobytes() == own[kind]
        assert drawn(sfumato, plain, "--weights", file).tobytes() == own[kind]
    assert drawn(sfumato, plain, "--raw").tobytes() == own["raw"], "the older spelling"


def test_guidance_moves_images_towards_the_label(sfumato: Command, labelled: Path) -> None:
    plain, guided, none = (drawn(sfumato, labelled, "--label", "7", "--guidance", w).astype(float) for w in (1, 2.5, 0))
    assert close(plain, drawn(sfumato, labelled, "--label", "7"))
    assert close(none, drawn(sfumato, labelled, "--label", "unconditional"))
    along = ((guided - plain) * (plain - none)).sum()
    assert along > 0, "beyond the conditional image, away from the unconditional one"
    rescaled = drawn(sfumato, labelled, "--label", "7", "--guidance", 2.5, "--rescale", 1, "--interval", "0.1,0.9")
    assert not close(rescaled, guided.astype(np.uint8))


def test_a_worse_model_is_guided_away_from(sfumato: Command, refused: Command, labelled: Path, plain: Path) -> None:
    raw = labelled / "weights" / "raw.safetensors"
    one = drawn(sfumato, labelled, "--weak", raw, "--guidance", 50)  # so short a run that the two are much alike
    assert not close(one, drawn(sfumato, labelled))
    facts = json.loads(sfumato("sample", labelled, "--num", 1, "--weak", raw, "--guidance", 2, "--json").out)
    assert facts["weak"] == str(raw)
    assert "has another image shape or other labels" in refused("sample", labelled, "--weak", plain, "--guidance", 2)
    assert "--weak guides with a scale" in refused("sample", labelled, "--weak", raw)


def test_a_measured_variance_is_measured_once(sfumato: Command, plain: Path) -> None:
    ways = [("--sampler", "ddpm", "--variance", variance) for variance in ("analytic", "small", "analytic")]
    first, small, again = (drawn(sfumato, plain, *way) for way in ways)
    assert (first == again).all()
    assert not close(first, small)
    parts = list((plain / "evaluation" / "parts").glob("spread-*/*.part"))
    assert len(parts) == 1
    before = parts[0].stat().st_mtime_ns
    drawn(sfumato, plain, "--sampler", "ddpm", "--variance", "analytic", "--seed", 1)
    assert parts[0].stat().st_mtime_ns == before


def test_every_file_says_how_it_was_drawn(sfumato: Command, labelled: Path) -> None:
    words = ["sample", labelled, "--num", 2, "--sampler", "ddim", "--steps", 3, "--seed", 9, "--label", "7"]
    for out in ("a.png", "folder", "a.gif", "a.npz"):
        assert sfumato(*words, "--out", out).code == 0
    with np.load("a.npz") as arrays:
        facts = json.loads(str(arrays["metadata"]))
        assert arrays["labels"].tolist() == ["7", "7"]
        assert arrays["conditions"].tolist() == [[7], [7]]
    assert facts | {"weights": ""} == {
        "seed": 9, "sampler": "ddim", "steps": 3, "grid": "visible", "eta": 0.0, "range": "clip", "label": "7",
        "weights": "",
    }  # fmt: skip
    assert len(facts["weights"]) == 64
    assert json.loads(Path("folder/samples.json").read_text()) == facts
    assert json.loads(Image.open("a.gif").info["comment"]) == facts
    text = {key: str(value) for key, value in facts.items()}
    assert text.items() <= Image.open("a.png").text.items()  # type: ignore[attr-defined]
    assert (text | {"index": "1"}).items() <= Image.open("folder/000001.png").text.items()  # type: ignore[attr-defined]


def test_a_folder_goes_on_where_it_was_interrupted(sfumato: Command, plain: Path) -> None:
    words = ["sample", plain, "--steps", 4, "--sampler", "ddim", "--out", "folder"]
    assert sfumato(*words, "--num", 3).code == 0
    first = Path("folder/000000.png").stat().st_mtime_ns
    Path("folder/000002.png").unlink()
    assert sfumato(*words, "--num", 5, "--batch", 2).code == 0
    assert Path("folder/000000.png").stat().st_mtime_ns == first, "what is there is left alone"
    got = np.stack([np.asarray(Image.open(f"folder/{n:06d}.png")) for n in range(5)])
    assert close(got, drawn(sfumato, plain)[..., 0])


def test_without_a_label_samples_have_those_of_training_images(sfumato: Command, labelled: Path) -> None:
    model = load(labelled)
    assert model.vocabulary is not None
    labels = model.vocabulary.describe(model.vocabulary.common())[:3]
    assert len(set(labels)) > 1
    made = drawn(sfumato, labelled, num=3)
    every = [drawn(sfumato, labelled, "--label", label, num=3) for label in labels]
    assert all(close(made[k], every[k][k]) for k in range(3)), labels
    assert not close(made, drawn(sfumato, labelled, "--label", "unconditional", num=3))
    assert "labels as the training images have them" in sfumato("sample", labelled, "--num", 1, "--force").out


def test_labels_by_name_number_or_all(sfumato: Command, labelled: Path) -> None:
    seven = drawn(sfumato, labelled, "--label", "7", num=12)
    every = drawn(sfumato, labelled, "--label", "all", num=12)
    assert close(every[7], seven[7])
    assert not close(every[8], seven[8])
    assert close(drawn(sfumato, labelled, "--label", "class=7", num=12), seven)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RUN --num 0", "--num is 0: it must be at least 1"),
        ("RUN --batch -1", "--batch is -1"),
        ("RUN --steps 0", "steps is 0"),
        ("RUN --steps 51", "steps is 51, and the model's chain has 50"),
        ("RUN --seed -1", "--seed is -1"),
        ("RUN --sampler ddim --eta 1.5", "eta is 1.5: it must lie from 0"),
        ("RUN --sampler ddpm --eta 0", "eta belongs to ddim"),
        ("RUN --eta 0", "eta belongs to ddim"),
        ("RUN --sampler ddim --variance large", "variance belongs to ddpm"),
        ("RUN --sampler ddpm --variance learned", "this model has learned no variance"),
        ("RUN --sampler dpmp-2", "--sampler: 'dpmp-2' is unknown; did you mean 'dpmpp-2'"),
        ("RUN --label unconditional --guidance 2", "--guidance needs a condition to guide towards"),
        ("RUN --guidance -1 --label 3", "guidance is -1"),
        ("RUN --rescale 0.5 --label 3", "interval and rescale belong to guidance"),
        ("RUN --guidance 2 --label 3 --interval 3", "--interval takes two times"),
        ("RUN --guidance 2 --label 3 --interval 0.8,0.2", "the lower first"),
        ("RUN --label 10", "class has no value '10'"),
        ("RUN --guidance nan", "--guidance takes a number, not 'nan'"),
        ("RUN --rescale inf", "--rescale takes a number, not 'inf'"),
        ("RUN --steps 0", "--steps is 0: it must be at least 1"),
        ("grid.png", "grid.png is not a weights file but a picture: give a run folder, a weights file"),
        ("page.html", "page.html is not a weights file but a web page"),
        ("RUN --label sevn", "class has no value 'sevn'; choose from: 0, 1"),
        ("PLAIN --label 3", "the model was trained without labels"),
        ("RUN --weights emma", "--weights can't be 'emma': choose ema, raw, best, or give a weights file"),
        ("RUN --out a.jpg", "must end in .png (grid), .gif (film), .npz (array)"),
        ("RUN --out full", "full is a folder with other files in it"),
        ("RUN --out file.png/a.png", "file.png/a.png can't be written: "),
        ("RUN --device tpu", "--device can't be 'tpu'"),
        ("nowhere", "nowhere does not exist"),
        ("full", "full has no weights yet"),
        ("file.png", "file.png is not a readable weights file"),
        ("inst.log", "inst.log is not a weights file but a text file: give a run folder"),
        ("short.safetensors", "short.safetensors is not a readable weights file"),
        ("flipped.safetensors", "flipped.safetensors is damaged"),
        ("file.png --raw", "--weights raw chooses between the weights of a run"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    line: str, said: str, refused: Command, labelled: Path, plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file.png").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "grid.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    (tmp_path / "inst.log").write_text("Collecting torch\n" * 9)
    (tmp_path / "page.html").write_text("<!DOCTYPE html><title>x</title>")
    content = bytearray((labelled / "weights" / "ema.safetensors").read_bytes())
    (tmp_path / "short.safetensors").write_bytes(content[:-100])
    content[-100] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    runs = {"RUN": labelled, "PLAIN": plain}
    assert said in refused("sample", *[runs.get(word, word) for word in line.split()])
    assert sorted(tmp_path.rglob("*")) == before


def test_other_settings_do_not_mix_in_one_folder(sfumato: Command, refused: Command, plain: Path) -> None:
    assert sfumato("sample", plain, "--num", 1, "--steps", 4, "--out", "folder").code == 0
    assert "sampled with another seed, steps" in refused("sample", plain, "--seed", 1, "--steps", 5, "--out", "folder")


def test_a_full_disk_is_found_before_anything_is_drawn(
    refused: Command, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "a.png can't be written: No space left on device" in refused("sample", plain, "--out", "a.png")
    assert list(Path().iterdir()) == []


def test_images_that_are_not_finite_are_a_failure(sfumato: Command, plain: Path, monkeypatch: Any) -> None:
    def broken(self: Any, denoiser: Any, state: Any, s: float, noise: Any, condition: Any = None) -> Any:
        return replace(state, x=state.x * float("nan"), t=s, step=state.step + 1)

    monkeypatch.setattr(DDIM, "step", broken)
    result = sfumato("sample", plain, "--sampler", "ddim", "--steps", "2", "--num", "3", "--out", "black.png")
    assert result.code == 2
    assert "black.png: 3 images are black for lack of finite numbers, the first is image 0" in result.err
    assert Path("black.png").exists()


def test_a_folder_that_is_complete_says_so(sfumato: Command, plain: Path) -> None:
    words = ("sample", plain, "--num", "2", "--steps", "2", "--out", "two")
    assert "2 images by" in sfumato(*words).out
    assert sfumato(*words).out == "2 images: all there already\ntwo\n"


def test_quality_belongs_to_auto(refused: Callable[..., str], plain: Path) -> None:
    assert "--quality belongs to --sampler auto" in str(refused("sample", plain, "--sampler", "ddim", "--quality=fast"))


@pytest.mark.slow
@pytest.mark.parametrize("out", ["array.npz", "folder"])
def test_ten_times_as_many_images_need_no_more_memory(out: str, tmp_path: Path) -> None:
    """9,000 more images are 28 MB as floats."""
    peaks = []
    for num in (1000, 10_000):
        words = f"sample fashion --num {num} --sampler ddim --steps 1 --batch 200 --out {tmp_path}/{num}-{out}".split()
        child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-m", "sfumato", *words])
        _, status, used = os.wait4(child, 0)
        assert status == 0
        peaks.append(used.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 14, peaks


def test_a_terminal_is_told_from_the_beginning_what_is_loaded_and_at_the_end_which_labels_there_are(
    sfumato: Command, plain: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--num", 1, "--steps", 1, "--out", "a.png")
    hint = "--label 0 or --label 1 "
    assert hint not in sfumato("sample", labelled, *words).out
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(getattr(sys, stream), "isatty", lambda: True)
    result = sfumato("sample", labelled, *words)
    assert result.out.splitlines()[-1].startswith(hint)
    assert f"loading {labelled} ..."[:79] in result.err
    for other in ((labelled, "--label", 3), (labelled, "--json"), (plain,)):
        assert hint not in sfumato("sample", *other, *words).out


def test_guidance_of_a_model_without_labels_needs_another_model(refused: Callable[..., str], plain: Path) -> None:
    said = refused("sample", plain, "--guidance", 2)
    assert "--guidance needs a model that was trained with labels" in said
    assert "train another with --labels source, or leave --guidance out" in said
    assert "--label," not in said
