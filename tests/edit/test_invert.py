"""Inversion against the analytic flow of Gaussian data, and there and back."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.diffusion import DDIM, Cosine, GaussianOracle, Noise, sample, trailing
from sfumato.edit import Options, decode, encode, interpolate, invert, slerp
from sfumato.edit.invert import inverse_step
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe

from .models import Known, image, white

MODEL = white()
SCHEDULE = MODEL.denoiser.schedule
X = image(MODEL.shape)


def ddim(steps: int) -> Options:
    return {"recipe": Recipe("ddim", steps=steps, range="free")}


def analytic(x: torch.Tensor) -> torch.Tensor:
    """x_T of the probability flow of N(0.2, 0.3)."""
    abar = SCHEDULE(1.0).abar.item()
    return abar**0.5 * 0.2 + ((abar * 0.3 + 1 - abar) / 0.3) ** 0.5 * (x - 0.2)


def order(errors: list[float]) -> float:
    """Slope of log error over log steps, the steps doubling."""
    return (math.log(errors[0]) - math.log(errors[-1])) / math.log(2) / (len(errors) - 1)


@pytest.mark.parametrize("corrections", [0, 1, 4])
def test_the_noise_converges_to_the_flows_at_order_1(corrections: int) -> None:
    errors = [
        float((encode(MODEL, X[None], corrections, **ddim(n)) - analytic(X)).abs().mean()) for n in (40, 80, 160, 320)
    ]
    assert errors[-1] < 0.02
    assert order(errors) == pytest.approx(1.0, abs=0.15)


def test_the_plain_round_trip_improves_with_the_steps_at_order_1() -> None:
    errors = [invert(MODEL, X, 0, **ddim(n)).rmse for n in (25, 50, 100, 200)]
    assert order(errors) == pytest.approx(1.0, abs=0.15)


def test_corrections_bring_the_image_back_at_few_steps() -> None:
    plain, one, many = (invert(MODEL, X, corrections, **ddim(10)).rmse for corrections in (0, 1, 8))
    assert plain > 5
    assert one < plain / 3
    assert many < plain / 1000


def test_a_correction_shrinks_the_error_by_the_stated_factor() -> None:
    s, t, v = 0.3, 0.5, 0.3
    level = SCHEDULE(t)
    delta = (level.angle - SCHEDULE(s).angle).item()
    alpha, sigma = level.alpha.item(), level.sigma.item()
    factor = math.tan(delta) * alpha * sigma * (1 - v) / (alpha**2 * v + sigma**2)
    x_s = X[None].double()
    guesses = [inverse_step(MODEL.denoiser, x_s, s, t, None, k) for k in (1, 2, 60)]
    first, second = (float((guess - guesses[2]).norm()) for guess in guesses[:2])
    assert second / first == pytest.approx(factor, rel=1e-6)


def test_decoding_undoes_encoding_even_past_the_corrections_of_one_variance() -> None:
    wide = Known(
        GaussianOracle(Cosine(1000), torch.full(MODEL.shape, -0.1), torch.rand(MODEL.shape) + 0.05), MODEL.codec
    )
    x = torch.stack([image(MODEL.shape, n) for n in range(3)])
    torch.testing.assert_close(decode(wide, encode(wide, x, 25, **ddim(20)), **ddim(20)), x, atol=1e-3, rtol=0)


def test_the_noise_of_the_models_own_images_is_white() -> None:
    model = white((3, 24, 24))
    done = invert(model, model.denoiser.sample(1, 0, model.shape)[0].float(), 1, **ddim(200))
    assert done.std == pytest.approx(1.0, abs=0.05)


def test_what_is_reported_is_the_reconstructions_error() -> None:
    done = invert(MODEL, X, 0, **ddim(10))
    wrong = ((done.reconstruction - X).double() * 255 / 2).square().mean().sqrt()
    assert done.rmse == pytest.approx(float(wrong))
    assert done.psnr == pytest.approx(20 * math.log10(255 / float(wrong)))
    torch.testing.assert_close(decode(MODEL, done.noise[None], **ddim(10))[0], done.reconstruction)


def test_pixels_and_their_coefficients_are_inverted_alike() -> None:
    haar = white(haar=True)
    one, other = (invert(model, X, 2, **ddim(10)) for model in (MODEL, haar))
    torch.testing.assert_close(haar.codec.to_pixels(other.noise[None])[0], one.noise)
    torch.testing.assert_close(other.reconstruction, one.reconstruction)
    assert other.rmse == pytest.approx(one.rmse, rel=1e-3)


def test_what_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(UserError, match="a single step can't be inverted"):
        invert(MODEL, X, **ddim(1))
    for recipe in (Recipe("ddpm"), Recipe("ddim", eta=0.5)):
        with pytest.raises(UserError, match="deterministic ddim"):
            invert(MODEL, X, recipe=recipe)


# ---- interpolation ----


def test_slerp_keeps_the_length_and_goes_evenly() -> None:
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = b * a.norm() / b.norm()
    arc = slerp(a, b, torch.linspace(0, 1, 6))
    torch.testing.assert_close(arc.flatten(1).norm(dim=1), a.norm().expand(6))
    dots = (arc[1:] * arc[:-1]).flatten(1).sum(1)
    torch.testing.assert_close(dots, dots[:1].expand(5))
    assert float(dots[0]) < float(a.norm() ** 2) * 0.999


def test_slerps_ends_are_the_ends() -> None:
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    ends = slerp(a, b, torch.tensor([0.0, 1.0]))
    assert torch.equal(ends[0], a)
    torch.testing.assert_close(ends[1], b)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_along_or_against_is_the_line(factor: float) -> None:
    a = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(slerp(a, factor * a, torch.tensor([0.25]))[0], (0.75 + 0.25 * factor) * a)


def test_slerp_of_a_right_angle_at_the_middle() -> None:
    middle = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([1 / 3]))
    torch.testing.assert_close(middle[0], torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


def test_the_way_between_seeds_ends_at_their_samples() -> None:
    done = interpolate(MODEL, 3, 9, 4, **ddim(20))
    for seed, end in ((3, 0), (9, -1)):
        drawn = sample(
            MODEL.denoiser, DDIM(), trailing(20, SCHEDULE), Noise(seed, torch.zeros(1, dtype=torch.int64), MODEL.shape)
        )
        torch.testing.assert_close(done.images[end], drawn[0], atol=1e-5, rtol=0)
    assert done.rmse == (None, None)
    assert 45 < done.angle < 135


def test_the_way_between_images_ends_at_their_reconstructions() -> None:
    other = image(MODEL.shape, 8)
    done = interpolate(MODEL, X, other, 5, **ddim(20))
    for x, end, error in ((X, 0, done.rmse[0]), (other, -1, done.rmse[1])):
        back = invert(MODEL, x, **ddim(20))
        torch.testing.assert_close(done.images[end], back.reconstruction, atol=1e-5, rtol=0)
        assert error == pytest.approx(back.rmse, rel=1e-3)
    gaps = done.images.diff(dim=0).flatten(1).norm(dim=1)
    assert float(gaps.max()) < 0.6 * float((X - other).norm()), "no jump"


def test_fewer_than_the_ends_are_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        interpolate(MODEL, 0, 1, 1)
