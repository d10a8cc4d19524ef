"""Inpainting and restoring, against the true posterior of Gaussian data where it is known."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from sfumato.diffusion import DDIM, trailing
from sfumato.diffusion.inverse import Blur, Downscale, Grayscale, LinearOperator, gaussian_kernel
from sfumato.edit import INPAINTERS, POSTERIORS, ROUNDING, Walk, colorize, deblur, inpaint, restore, upscale
from sfumato.errors import UserError
from sfumato.generate.sample import generate

from .models import CHAIN, image, linked, white

MODEL = white((3, 4, 4))
SCHEDULE = MODEL.denoiser.schedule
X = image(MODEL.shape)
HOLE = torch.zeros(4, 4, dtype=torch.bool)
HOLE[:, 2:] = True


def walk(steps: int = 10, **changes: object) -> Walk:
    return Walk(DDIM(1.0), trailing(steps, SCHEDULE), lambda d: d, **changes)  # type: ignore[arg-type]


def conditional(
    mean: torch.Tensor, covariance: torch.Tensor, A: torch.Tensor, y: torch.Tensor, noise_std: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of x given y = A x + noise, by the textbook."""
    gain = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + noise_std**2 * torch.eye(len(A)))
    return mean + gain @ (y - A @ mean), covariance - gain @ A @ covariance


@pytest.mark.parametrize("method", INPAINTERS)
def test_known_pixels_come_back_exactly(method: str) -> None:
    done = inpaint(MODEL, X, HOLE, 3, 1, method, 2, walk())
    assert (done.images[:, :, ~HOLE] == X[:, ~HOLE]).all()
    assert (done.images[:, :, HOLE] != X[:, HOLE]).all()
    assert len({image.numpy().tobytes() for image in done.images}) == 3
    assert done.painted == 0.5


@pytest.mark.parametrize("method", INPAINTERS)
def test_what_the_hole_hid_does_not_matter(method: str) -> None:
    model, _, _ = linked((1, 4, 4))  # where what is painted depends on what is taken for known
    x = X[:1]
    one, two = (inpaint(model, y, HOLE, 2, 1, method, 2, walk()).images for y in (x, torch.where(HOLE, 0.5, x)))
    assert torch.equal(one, two)


@pytest.mark.parametrize("method", INPAINTERS)
def test_nothing_and_everything_to_paint(method: str) -> None:
    nothing = inpaint(MODEL, X, torch.zeros_like(HOLE), 2, 5, method, walk=walk())
    assert (nothing.images == X).all()
    everything = inpaint(MODEL, X, torch.ones_like(HOLE), 2, 5, method, walk=walk())
    plain = torch.cat([x for _, x in generate(MODEL.denoiser, MODEL.shape, 2, 5, DDIM(1.0), trailing(10, SCHEDULE))])
    assert torch.equal(everything.images, plain)
    assert (nothing.painted, everything.painted) == (0.0, 1.0)


@pytest.mark.parametrize("method", INPAINTERS)
def test_any_batch_gives_the_same_images(method: str) -> None:
    whole, parts = (inpaint(MODEL, X, HOLE, 5, 3, method, 2, walk(batch=n)).images for n in (64, 2))
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
    for method, bias, steps in (("moments", 0.05, 60), ("repaint", 0.35, 30)):
        images = inpaint(model, x, hole, num, 0, method, 8, walk(steps, batch=num)).images.double().flatten(1)
        error = (images.mean(0) - m)[open_].norm()
        assert error < bias * far + 3 * sqrt(C[open_][:, open_].trace() / num), method
        spread = images[:, open_].var(0) / C.diagonal()[open_]
        low, high = (0.75, 1.3) if method == "moments" else (0.4, 2.5)
        assert low < float(spread.min()) <= float(spread.max()) < high, method


@pytest.mark.parametrize(
    ("operator", "shape"),
    [(Grayscale(), (3, 2, 2)), (Downscale(2), (1, 4, 4)), (Blur(gaussian_kernel(0.7)), (1, 3, 4))],
)
def test_restoring_follows_the_true_posterior(operator: LinearOperator, shape: tuple[int, int, int]) -> None:
    num, noise_std = 1000, 0.2
    model, mean, covariance = linked(shape)
    d = len(mean)
    A = operator.forward(torch.eye(d, dtype=torch.float64).reshape(d, *shape)).flatten(1).T
    y = operator.forward(image(shape)[None])[0]
    m, C = conditional(mean, covariance, A, y.double().flatten(), noise_std)
    done = restore(model, y, operator, noise_std, num, 0, "moments", walk(40, batch=num))
    images = done.images.double().flatten(1)
    assert (images.mean(0) - m).norm() < 0.06 * (m - mean).norm() + 3 * sqrt(C.trace() / num)
    assert float((images.var(0) / C.diagonal()).min()) > 0.75
    assert float((images.var(0) / C.diagonal()).max()) < 1.3
    measured = (images @ A.T - y.double().flatten()).square().mean(1).sqrt() * 127.5
    torch.testing.assert_close(done.residual, measured, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", POSTERIORS)
def test_results_explain_what_was_given_and_differ(method: str) -> None:
    model, x = MODEL, X
    steps = walk(CHAIN // 5 if method == "dps" else 40)
    for done in (
        colorize(model, Grayscale().forward(x[None])[0], 3, 0, 0.01, method, steps),
        upscale(model, Downscale(2).forward(x[None])[0], 2, 3, 0, 0.01, method, steps),
        deblur(model, Blur(gaussian_kernel(0.6)).forward(x[None])[0], 0.6, 3, 0, 0.01, method, steps),
    ):
        assert float(done.residual.max()) < (25 if method == "dps" else 4), "of about 65 without any guidance"
        assert float(done.images.std(0).mean()) > 0.002


@pytest.mark.parametrize("method", POSTERIORS)
def test_any_batch_restores_the_same(method: str) -> None:
    grey = Grayscale().forward(X[None])[0]
    whole, parts = (colorize(MODEL, grey, 5, method=method, walk=walk(batch=n)).images for n in (64, 2))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


def test_mistakes() -> None:
    grey = white((1, 6, 4))
    with pytest.raises(UserError, match="images are grey"):
        colorize(grey, torch.zeros(1, 6, 4))
    with pytest.raises(UserError, match="the factor is 3, and the model's images are 6x4: choose 2"):
        upscale(grey, torch.zeros(1, 2, 1), 3)
    with pytest.raises(UserError, match="the factor is 8"):
        upscale(grey, torch.zeros(1, 1, 1), 8)
    with pytest.raises(UserError, match="the measurement is 1x6x4, and this model's images give 1x3x2"):
        upscale(grey, torch.zeros(1, 6, 4), 2)
    with pytest.raises(UserError, match="sigma is 0: it must be above 0"):
        deblur(grey, torch.zeros(1, 6, 4), 0)
    with pytest.raises(UserError, match="noise is -1"):
        restore(grey, torch.zeros(1, 6, 4), Downscale(1), -1)
    with pytest.raises(UserError, match="can't be measured so"):
        restore(grey, torch.zeros(1, 6, 4), Grayscale())
    with pytest.raises(UserError, match="no method 'pidgm'; did you mean 'pigdm'"):
        restore(grey, torch.zeros(1, 6, 4), Downscale(1), method="pidgm")
    with pytest.raises(UserError, match="no method 'paint'; did you mean 'repaint'"):
        inpaint(grey, torch.zeros(1, 6, 4), torch.ones(6, 4, dtype=torch.bool), method="paint")
    with pytest.raises(UserError, match="the hole must be 6x4 truth values"):
        inpaint(grey, torch.zeros(1, 6, 4), torch.ones(4, 6, dtype=torch.bool))
    with pytest.raises(UserError, match="repeats is 0"):
        inpaint(grey, torch.zeros(1, 6, 4), torch.ones(6, 4, dtype=torch.bool), repeats=0)
