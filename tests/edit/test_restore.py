"""Inpainting and restoring, against the true posterior of Gaussian data where it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

import pytest
import torch

from sfumato.diffusion import Blur, Downscale, Grayscale, LinearOperator, gaussian_kernel
from sfumato.edit import INPAINTERS, POSTERIORS, Options, colorize, deblur, inpaint, interpolate, restore, upscale, vary
from sfumato.edit.restore import degraded, rounding
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample

from ..codec.haar import Haar
from .models import CHAIN, Known, image, linked, white

MODEL, HAAR = white((3, 4, 4)), white((3, 4, 4), haar=True)
ROUNDING = rounding(MODEL.codec.format)
X = image(MODEL.shape)
HOLE = torch.zeros(4, 4, dtype=torch.bool)
HOLE[:, 2:] = True
HOLE[1, 1] = True  # no whole block of 2x2


def steps(num: int = 10, **options: object) -> Options:
    recipe = Recipe("ddim", steps=num, eta=1.0, range="free")
    return {"recipe": recipe, **options}  # type: ignore[typeddict-item]


def conditional(
    mean: torch.Tensor, covariance: torch.Tensor, A: torch.Tensor, y: torch.Tensor, noise_std: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of x given y = A x + noise, by the textbook."""
    gain = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + noise_std**2 * torch.eye(len(A)))
    return mean + gain @ (y - A @ mean), covariance - gain @ A @ covariance


@pytest.mark.parametrize("model", [MODEL, HAAR])
@pytest.mark.parametrize("method", INPAINTERS)
def test_known_pixels_come_back_exactly(method: str, model: Known) -> None:
    done = inpaint(model, X, HOLE, 3, method, 2, **steps(seed=1))
    assert (done.images[:, :, ~HOLE] == X[:, ~HOLE]).all()
    assert (done.images[:, :, HOLE] != X[:, HOLE]).all()
    assert len({image.numpy().tobytes() for image in done.images}) == 3
    assert done.painted == 9 / 16


@pytest.mark.parametrize("haar", [False, True])
@pytest.mark.parametrize("method", INPAINTERS)
def test_what_the_hole_hid_does_not_matter(method: str, haar: bool) -> None:
    model, _, _ = linked((1, 4, 4), haar=haar)  # where what is painted depends on what is taken for known
    x = X[:1]
    one, two = (inpaint(model, y, HOLE, 2, method, 2, **steps(seed=1)).images for y in (x, torch.where(HOLE, 0.5, x)))
    assert torch.equal(one, two)


@pytest.mark.parametrize("model", [MODEL, HAAR])
@pytest.mark.parametrize("method", INPAINTERS)
def test_nothing_and_everything_to_paint(method: str, model: Known) -> None:
    nothing = inpaint(model, X, torch.zeros_like(HOLE), 2, method, **steps(seed=5))
    assert (nothing.images == X).all()
    everything = inpaint(model, X, torch.ones_like(HOLE), 2, method, **steps(seed=5))
    plain = sample(model, 2, steps()["recipe"], seed=5)
    assert torch.equal(everything.images, model.codec.to_pixels(plain))
    assert (nothing.painted, everything.painted) == (0.0, 1.0)


@pytest.mark.parametrize("method", INPAINTERS)
def test_any_batch_gives_the_same_images(method: str) -> None:
    whole, parts = (inpaint(MODEL, X, HOLE, 5, method, 2, **steps(seed=3, batch=n)).images for n in (64, 2))
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_painting_follows_the_true_conditional_distribution() -> None:
    shape, num = (1, 3, 3), 1000
    model, mean, covariance = linked(shape)
    hole = torch.tensor([[False, True, False], [True, False, True], [False, False, True]])
    x = image(shape)
    known = torch.eye(9, dtype=torch.float64)[~hole.flatten()]
    m, C = conditional(mean, covariance, known, x[:, ~hole].double().flatten(), ROUNDING)
    open_ = hole.flatten()
    far = (m[open_] - mean[open_]).norm()
    for method, bias, n in (("moments", 0.05, 60), ("repaint", 0.35, 30), ("guided", 0.2, 30)):
        images = inpaint(model, x, hole, num, method, 8, **steps(n, batch=num)).images.double().flatten(1)
        error = (images.mean(0) - m)[open_].norm()
        assert error < bias * far + 3 * sqrt(C[open_][:, open_].trace() / num), method
        spread = images[:, open_].var(0) / C.diagonal()[open_]
        low, high = (0.75, 1.3) if method == "moments" else (0.4, 2.5)
        assert low < float(spread.min()) <= float(spread.max()) < high, method


@pytest.mark.parametrize(
    ("operator", "shape", "haar"),
    [
        (Grayscale(), (3, 2, 2), False),
        (Downscale(2), (1, 4, 4), False),
        (Blur(gaussian_kernel(0.7)), (1, 3, 4), False),
        (Blur(gaussian_kernel(0.7)), (1, 4, 4), True),
    ],
)
def test_restoring_follows_the_true_posterior(
    operator: LinearOperator, shape: tuple[int, int, int], haar: bool
) -> None:
    num, noise_std = 1000, 0.2
    model, mean, covariance = linked(shape, haar=haar)
    d = len(mean)
    A = operator.forward(torch.eye(d, dtype=torch.float64).reshape(d, *shape)).flatten(1).T
    y = operator.forward(image(shape)[None])[0]
    m, C = conditional(mean, covariance, A, y.double().flatten(), noise_std)
    done = restore(model, y, operator, num, noise_std, "moments", **steps(40, batch=num))
    images = done.images.double().flatten(1)
    assert (images.mean(0) - m).norm() < 0.06 * (m - mean).norm() + 3 * sqrt(C.trace() / num)
    assert float((images.var(0) / C.diagonal()).min()) > 0.75
    assert float((images.var(0) / C.diagonal()).max()) < 1.3
    measured = (images @ A.T - y.double().flatten()).square().mean(1).sqrt() * 127.5
    torch.testing.assert_close(done.residual, measured, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [MODEL, HAAR])
@pytest.mark.parametrize("method", POSTERIORS)
def test_results_explain_what_was_given_and_differ(method: str, model: Known) -> None:
    options = steps(CHAIN // 5 if method == "dps" else 40)
    for done in (
        colorize(model, Grayscale().forward(X[None])[0], 3, noise_std=0.01, method=method, **options),
        upscale(model, Downscale(2).forward(X[None])[0], 2, 3, noise_std=0.01, method=method, **options),
        deblur(model, Blur(gaussian_kernel(0.6)).forward(X[None])[0], 0.6, 3, noise_std=0.01, method=method, **options),
    ):
        assert float(done.residual.max()) < (25 if method == "dps" else 4), "of about 65 without any guidance"
        assert float(done.images.std(0).mean()) > 0.002


@pytest.mark.parametrize("method", POSTERIORS)
def test_any_batch_restores_the_same(method: str) -> None:
    grey = Grayscale().forward(X[None])[0]
    whole, parts = (colorize(MODEL, grey, 5, method=method, **steps(batch=n)).images for n in (64, 2))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


def test_a_degraded_image_is_a_measurement_of_the_models_format() -> None:
    y = degraded(MODEL, X, Downscale(2), 0.1, seed=4)
    assert torch.equal(y, MODEL.codec.format.to_model(MODEL.codec.format.from_model(y)))
    clean = Downscale(2).forward(X[None])[0]
    assert 0.05 < float((y - clean).std()) < 0.15
    assert float((degraded(MODEL, X, Downscale(2)) - clean).abs().max()) <= 1.001 / 255


def test_pixels_that_are_not_linear_in_x_0_are_refused() -> None:
    class Curved(Haar):
        linear = False

    model = replace(HAAR, codec=Curved(HAAR.codec.pixels))
    for edit in (lambda: inpaint(model, X, HOLE), lambda: upscale(model, torch.zeros(3, 2, 2), 2)):
        with pytest.raises(UserError, match="use vary, interpolate or invert"):
            edit()
    assert vary(model, X, 0.5, 1).images.shape == interpolate(model, 0, 1, 2).images[:1].shape


GREY = white((1, 6, 4))
Y, WHOLE = torch.zeros(1, 6, 4), torch.ones(6, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda: colorize(GREY, Y), "grey images: colorize needs a model of colour"),
        (lambda: upscale(GREY, Y[:, :2, :1], 3), "the factor is 3, and the model's images are 6x4: choose 2"),
        (lambda: upscale(GREY, Y[:, :1, :1], 8), "the factor is 8"),
        (
            lambda: upscale(GREY, Y, 2),
            "the measurement has shape 1x6x4, and the operator's output on this model's images 1x3x2",
        ),
        (lambda: deblur(GREY, Y, 0), "sigma is 0: it must be above 0"),
        (lambda: restore(GREY, Y, Downscale(1), noise_std=-1), "noise_std is -1"),
        (lambda: restore(GREY, Y, Grayscale()), "the operator does not fit the model's images: 3 grey weights"),
        (lambda: restore(GREY, Y, Downscale(1), method="pidgm"), "no method 'pidgm'; did you mean 'pigdm'"),
        (lambda: inpaint(GREY, Y, WHOLE, method="paint"), "no method 'paint'; did you mean 'repaint'"),
        (lambda: inpaint(GREY, Y, WHOLE.T), "the hole must be a 6x4 bool tensor"),
        (lambda: inpaint(GREY, Y, WHOLE, repeats=0), "repeats is 0"),
    ],
)
def test_a_mistake_is_one_line(edit: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        edit()
