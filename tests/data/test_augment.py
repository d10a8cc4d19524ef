"""Each alteration against scipy's, and what is drawn against its law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from sfumato.config.augment import KINDS, NUMBERS, AugmentConfig
from sfumato.config.presets import resolve
from sfumato.data.augment import augment, draw, inverse, resample
from sfumato.errors import UserError

SHAPE = (2, 11, 16)  # rectangular, so that no side can stand for the other
EVERY = torch.arange(40_000)


def pictures(num: int = 3, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    """Noise, smoothed a little: detail at every scale."""
    noise = np.random.default_rng(5).standard_normal((num, *shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 0.7, 0.7)).astype(np.float32))


def row(**columns: float) -> torch.Tensor:
    names = ("xflip", "yflip", "scale", "cos", "sin", "a", "b", "x", "y")
    return torch.tensor([columns.get(name, 0.0) for name in names])


def by_scipy(x: torch.Tensor, change) -> np.ndarray:
    """Every channel through a function of scipy, within the channel's own range."""
    return np.stack([[np.clip(change(c), c.min(), c.max()) for c in one] for one in x.double().numpy()])


def affine(channel: np.ndarray, forward: np.ndarray, shift=(0.0, 0.0)) -> np.ndarray:
    """A 2x2 map and a shift of (right, up) places about the middle, by scipy's splines."""
    height, width = channel.shape
    down, right = np.mgrid[:height, :width]
    place = np.stack([right - (width - 1) / 2, (height - 1) / 2 - down]) - np.reshape(shift, (2, 1, 1))
    origin = np.einsum("ij,jhw->ihw", np.linalg.inv(forward), place)
    rows, columns = (height - 1) / 2 - origin[1], origin[0] + (width - 1) / 2
    return ndimage.map_coordinates(channel, [rows, columns], order=3, mode="mirror")


def turning(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def stretching(w: float, r: float) -> np.ndarray:
    return turning(r) @ np.diag([2 ** (0.2 * w), 2 ** (-0.2 * w)]) @ turning(-r)


ANGLE, W, R = 0.7, -1.3, 0.5
TURNED = {"cos": math.cos(ANGLE) - 1, "sin": math.sin(ANGLE)}
STRETCHED = {"a": W * math.cos(2 * R), "b": W * math.sin(2 * R)}
CASES = {
    "x-flip": (row(xflip=1), np.fliplr),
    "y-flip": (row(yflip=1), np.flipud),
    "larger": (row(scale=1.4), lambda c: affine(c, np.eye(2) * 2 ** (0.2 * 1.4))),
    "smaller": (row(scale=-1.4), lambda c: affine(c, np.eye(2) * 2 ** (-0.2 * 1.4))),
    "rotate": (row(**TURNED), lambda c: ndimage.rotate(c, math.degrees(ANGLE), reshape=False, mode="mirror", order=3)),
    "stretch": (row(**STRETCHED), lambda c: affine(c, stretching(W, R))),
    "translate": (
        row(x=0.6, y=-0.9),
        lambda c: ndimage.shift(c, (-0.9 * 11 / 8, 0.6 * 16 / 8), mode="mirror", order=3),
    ),
    "far": (row(x=17.0), lambda c: ndimage.shift(c, (0, 34), mode="mirror", order=3)),
    "all": (
        row(xflip=1, yflip=1, scale=0.8, x=0.5, y=0.25, **TURNED, **STRETCHED),
        lambda c: affine(
            np.flipud(np.fliplr(c)),
            stretching(W, R) @ turning(ANGLE) * 2 ** (0.2 * 0.8),
            (0.5 * 16 / 8, -0.25 * 11 / 8),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_done_is_what_scipy_does(case):
    numbers, change = CASES[case]
    x = pictures()
    found = augment(x, numbers.repeat(3, 1))
    # float32 counts places to 1e-7 of the image, which the steepest slopes multiply
    assert np.abs(found.numpy() - by_scipy(x, change)).max() < 2e-5
    assert not torch.equal(found, x)


def test_the_numbers_of_a_stretch_tell_it_from_its_opposite():
    """(w, r) and (-w, r + pi / 2) are one stretch and have the same numbers; (-w, r + pi) undoes it and has others."""
    assert np.allclose(stretching(W, R), stretching(-W, R + math.pi / 2))
    assert np.allclose(stretching(W, R) @ stretching(-W, R + math.pi), np.eye(2))
    there, back = (inverse(row(a=s * STRETCHED["a"], b=s * STRETCHED["b"])[None], 8, 8)[0, :, :2] for s in (1, -1))
    assert torch.allclose(there @ back, torch.eye(2, dtype=torch.float64))
    assert not torch.allclose(there, back)


def test_a_quarter_turn_and_the_same_place_are_exact_to_rounding():
    x = pictures(shape=(1, 24, 24))
    quarter = augment(x, row(cos=-1, sin=1).repeat(3, 1))
    assert torch.allclose(quarter, torch.rot90(x, 1, (2, 3)), atol=1e-5)
    still = resample(x, inverse(row()[None], 24, 24).repeat(3, 1, 1))
    assert torch.allclose(still, x, atol=1e-5)


def test_there_and_back_keeps_detail():
    """Ten degrees and back: a cubic spline loses less than a third of what a bilinear look loses."""
    x = pictures(8, (1, 28, 28))
    middle = (..., slice(6, -6), slice(6, -6))
    angles = [inverse(row(cos=math.cos(a) - 1, sin=math.sin(a))[None], 28, 28).repeat(8, 1, 1) for a in (0.17, -0.17)]

    def bilinear(y: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        grid = torch.nn.functional.affine_grid(matrix.float(), [8, 1, 28, 28], align_corners=True)
        return torch.nn.functional.grid_sample(y, grid, align_corners=True)

    def lost(look) -> float:
        return float((look(look(x, angles[0]), angles[1]) - x)[middle].square().mean())

    assert lost(resample) < lost(bilinear) / 3
    assert lost(resample) < 0.02 * float(x.var())


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_images_have_a_place_too(side):
    x = pictures(4, (1, side, 5))
    out = augment(x, draw(AugmentConfig(1.0), 0, torch.arange(4)))
    assert out.isfinite().all()
    assert float(out.max()) <= float(x.max())


def test_images_that_nothing_was_drawn_for_stay_bit_for_bit():
    x = pictures(64).contiguous(memory_format=torch.channels_last)
    numbers, before = draw(AugmentConfig(0.12), 3, torch.arange(64)), x.clone()
    out = augment(x, numbers)
    untouched = (numbers == 0).all(1)
    assert 5 < int(untouched.sum()) < 40
    assert torch.equal(out[untouched], x[untouched])
    assert not any(torch.equal(a, b) for a, b in zip(out[~untouched], x[~untouched], strict=True))
    assert torch.equal(x, before), "what is handed in is not written to"
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_an_image_is_altered_alike_in_any_batch():
    config, x = AugmentConfig(0.5), pictures(32)
    numbers = draw(config, 7, torch.arange(100, 132))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(config, 7, torch.arange(100, 132)[order]), numbers[order])
    whole = augment(x, numbers)
    assert torch.allclose(augment(x[order[:5]], numbers[order[:5]]), whole[order[:5]], atol=1e-6)
    assert not torch.equal(draw(config, 8, torch.arange(100, 132)), numbers)


@pytest.mark.parametrize("p", [0.12, 0.6])
def test_each_kind_is_drawn_as_often_as_it_says(p):
    numbers = draw(AugmentConfig(p), 1, EVERY)
    columns = {"x-flip": [0], "y-flip": [1], "scale": [2], "rotate": [3, 4], "stretch": [5, 6], "translate": [7, 8]}
    wanted = {"x-flip": 0.5, "y-flip": p / 2} | dict.fromkeys(KINDS[2:], p)
    met = {kind: (numbers[:, columns[kind]] != 0).any(1) for kind in KINDS}
    for kind in KINDS:
        error = 4.5 * math.sqrt(wanted[kind] * (1 - wanted[kind]) / len(EVERY))
        assert float(met[kind].double().mean()) == pytest.approx(wanted[kind], abs=error), kind
    both = (met["scale"] & met["rotate"]).double().mean()  # one has nothing to do with another
    assert float(both) == pytest.approx(p * p, abs=4.5 * p / math.sqrt(len(EVERY)))


def test_what_is_drawn_follows_its_law():
    numbers = draw(AugmentConfig(1.0), 2, EVERY).double()
    assert set(numbers[:, 0].unique().tolist()) == set(numbers[:, 1].unique().tolist()) == {0, 1}
    for column in (2, 7, 8):
        assert stats.kstest(numbers[:, column].numpy(), "norm").pvalue > 1e-3
    angle = torch.atan2(numbers[:, 4], numbers[:, 3] + 1)
    assert stats.kstest(angle.numpy() / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    size = torch.hypot(numbers[:, 5], numbers[:, 6])
    assert stats.kstest(size.numpy(), "halfnorm").pvalue > 1e-3
    upright = numbers[:, 6] == 0
    assert float(upright.double().mean()) == pytest.approx(0.5, abs=0.012)
    doubled = torch.atan2(numbers[:, 6], numbers[:, 5])[~upright]
    assert stats.kstest(doubled.numpy() / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers.numpy().T) - np.eye(NUMBERS)).max() < 0.03


def test_how_far_has_nothing_to_do_with_whether() -> None:
    """Among the few images that are altered, the amounts follow the same law as among all."""
    numbers = draw(AugmentConfig(0.2), 4, EVERY).double()
    for column in (2, 7, 8):
        drawn = numbers[:, column][numbers[:, column] != 0]
        assert stats.kstest(drawn.numpy(), "norm").pvalue > 1e-3
    turned = numbers[numbers[:, 4] != 0]
    angle = torch.atan2(turned[:, 4], turned[:, 3] + 1)
    assert stats.kstest(angle.numpy() / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    flipped = draw(AugmentConfig(0.2), 4, EVERY)[:, 0] == 1
    assert float(flipped[(numbers[:, 2] != 0)].double().mean()) == pytest.approx(0.5, abs=0.03)


def test_leaving_a_kind_out_changes_nothing_about_the_others():
    all_of_them, some = draw(AugmentConfig(0.5), 0, EVERY), draw(AugmentConfig(0.5, ("scale", "translate")), 0, EVERY)
    kept = [2, 7, 8]
    assert torch.equal(some[:, kept], all_of_them[:, kept])
    assert (some[:, [0, 1, 3, 4, 5, 6]] == 0).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [({"p": 1.5}, "lie in"), ({"kinds": ("rotat",)}, "rotate"), ({"kinds": ("scale", "scale")}, "twice")],
)
def test_what_makes_no_sense_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        AugmentConfig(**values)
    text = {f"augment.{k}": ",".join(v) if isinstance(v, tuple) else str(v) for k, v in values.items()}
    with pytest.raises(UserError, match=rf"augment\..*{said}"):
        resolve("small8", overrides=text)
