"""The figures that explain a run show what they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sfumato.codec.pixels import to_bytes
from sfumato.conditions.table import Attributes
from sfumato.diffusion import DDIM, Clipped, Cosine, FiniteOracle, Noise, sample, trailing
from sfumato.generate import pictures
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling
from sfumato.generate.writers import Frames, save_png
from sfumato.report.figures import forward, in_logsnr, reverse, spaced, through_training

SHAPE = (3, 8, 8)
POINTS = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
ORACLE = Clipped(FiniteOracle(Cosine(50), POINTS))


def sampling(denoiser: Any = ORACLE, steps: int = 10) -> Sampling:
    return Sampling(Recipe(), denoiser, DDIM(), trailing(steps, ORACLE.schedule), SHAPE, torch.device("cpu"))


def cut(picture: Image.Image, rows: int, columns: int, group: int = 0) -> np.ndarray:
    """Read a strip's tiles back: (rows, columns, 3, 8, 8). The tiles end at the right and the lower edge."""
    # the first column's left edge is paper, so the scale shows in the width of the equal columns at the right
    pixels = np.asarray(picture)
    scale = pictures.scale_for(columns * 9)
    wide = (rows - 1) // group * 2 if group else 0
    body = pixels[-scale * (rows * 9 + 1 + wide) :, -scale * (columns * 9 + 1) :][
        scale // 2 :: scale, scale // 2 :: scale
    ]
    out = np.empty((rows, columns, 3, 8, 8), np.uint8)
    for row in range(rows):
        top = 1 + row * 9 + (row // group * 2 if group else 0)
        for column in range(columns):
            left = 1 + column * 9
            out[row, column] = body[top : top + 8, left : left + 8].transpose(2, 0, 1)
    return out


def as_floats(images: np.ndarray) -> np.ndarray:
    return images / 127.5 - 1


def test_forward_goes_from_the_image_to_noise_in_both_rows() -> None:
    x_0 = torch.full(SHAPE, 0.2)
    stepped, at_once = cut(forward(x_0, Cosine(50), seed=3), 2, 11)
    clean = to_bytes(x_0).numpy()
    assert (stepped[0] == clean).all()
    assert (at_once[0] == clean).all()
    assert not np.array_equal(stepped[5], at_once[5]), "other noise"
    schedule = Cosine(50)
    steps = [0, *spaced(schedule, 9).tolist(), 50]
    assert as_floats(at_once[-1]).std() > 0.5, "the chain's end, pure noise"
    sigmas = schedule(torch.tensor(steps) / 50).sigma
    visible = [n for n, sigma in enumerate(sigmas.tolist()) if 0.1 < sigma < 0.45]  # beyond, bytes saturate
    assert len(visible) >= 2
    for row in (stepped, at_once):
        for column in visible:
            level = schedule(steps[column] / 50)
            seen = as_floats(row[column])
            # 192 numbers: four standard errors of a mean and of a standard deviation
            sigma = float(level.sigma)
            assert seen.mean() == pytest.approx(0.2 * float(level.alpha), abs=4 * sigma / 192**0.5)
            assert seen.std() == pytest.approx(sigma, rel=4 / (2 * 192) ** 0.5)


def test_reverse_ends_in_the_samplers_images_and_guesses_are_the_denoisers() -> None:
    tiles = cut(reverse(sampling(), seed=1, num=2, columns=6), 4, 6, group=2)
    times = trailing(10, ORACLE.schedule)
    noise = Noise(1, torch.arange(2), SHAPE)
    final = to_bytes(sample(ORACLE, DDIM(), times, noise)).numpy()
    prior = noise.prior()
    for n in range(2):
        assert (tiles[2 * n, -1] == final[n]).all()
        assert (tiles[2 * n + 1, -1] == final[n]).all()
        assert (tiles[2 * n, 0] == to_bytes(prior[n]).numpy()).all()
        assert (tiles[2 * n + 1, 0] == to_bytes(ORACLE(prior, 1.0).x0[n]).numpy()).all()


def test_through_training_is_the_first_tiles_of_each_grid(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 12, *SHAPE), dtype=np.uint8)
    paths = [save_png(pictures.grid(images[n]), tmp_path / f"{n}.png") for n in range(3)]
    tiles = cut(through_training(paths, ["1", "2", "3"], columns=7), 3, 7)
    np.testing.assert_array_equal(tiles, images[:, :7])


@pytest.mark.parametrize("batch", [3, 8])
def test_a_film_has_every_image_in_its_place(batch: int) -> None:
    frames = Frames(to_bytes, 5, steps=10, limit=4)
    parts = list(sampling().stream(8, batch=batch, on_state=frames))
    drawn = frames.pictures(columns=5)
    assert len(drawn) == 4
    final = torch.cat([images for _, images in parts])
    np.testing.assert_array_equal(pictures.tiles(drawn[-1]), to_bytes(final)[:5].numpy())
    prior = Noise(0, torch.arange(5), SHAPE).prior()
    np.testing.assert_array_equal(pictures.tiles(drawn[0]), to_bytes(prior).numpy())


def test_a_short_walk_shows_all_its_steps() -> None:
    frames = Frames(to_bytes, 2, steps=3)
    list(sampling(steps=3).stream(2, on_state=frames))
    assert len(frames.pictures()) == 4


def test_conditions_reach_the_denoiser() -> None:
    seen: list[Attributes] = []

    class Noting:
        schedule = Cosine(50)

        def __call__(self, x_t: Tensor, t: Tensor | float, condition: Attributes | None = None):
            assert condition is not None
            seen.append(condition)
            return ORACLE(x_t, t)

    reverse(sampling(Noting(), 4), condition=Attributes(torch.tensor([[3.0], [1.0]])))
    assert all(c.table.tolist() == [[3], [1]] for c in seen)
    assert len(seen) == 4


def test_moments_of_a_strip_are_even_in_logsnr() -> None:
    schedule = Cosine(1000)
    times = [k / 1000 for k in range(1000, -1, -1)]
    chosen = in_logsnr(times, schedule, 9)
    assert chosen[0] == 0
    assert chosen[-1] == 1000
    logsnr = [max(-7.0, float(schedule(times[k]).logsnr)) for k in chosen[:-1]]
    gaps = [b - a for a, b in pairwise(logsnr)]
    assert max(gaps) < 1.3 * min(gaps), "but for the chain's own steps"
