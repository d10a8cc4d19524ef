"""Objectives beyond L_simple: the bound from one t, the hybrid's detached mean, weights, the learned variance."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import (
    P2,
    PARAMETERIZATIONS,
    Bound,
    Eps,
    Hybrid,
    Large,
    Learned,
    Linear,
    MinSNR,
    NetworkDenoiser,
    Prediction,
    SigmoidWeight,
    Simple,
    Small,
    Weighted,
    bits_per_dim,
    marginal,
    prior_term,
    reverse,
    trailing,
    training_loss,
    vlb,
)

from .common import images, noise, random_function

SCHEDULE = Linear(num_steps=12)
SHAPE = (2, 3, 4)
X_0 = 2 * torch.randint(0, 256, (3, *SHAPE), generator=torch.Generator().manual_seed(3)).double() / 255 - 1


def two_headed(x: torch.Tensor, time: torch.Tensor, condition: object = None) -> torch.Tensor:
    output = random_function(x, time)
    return torch.cat([output, torch.tanh(output.roll(1, -1))], 1)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@pytest.mark.parametrize("rule", [Small(), Large(), Learned()])
def test_the_mean_of_sampled_terms_is_the_full_sum(name: str, rule) -> None:
    """Averaging the objective over every t of the chain gives L_vlb - L_T in nats a coordinate."""
    denoiser = NetworkDenoiser(two_headed, SCHEDULE, PARAMETERIZATIONS[name])
    source = noise(3, SHAPE)
    total = vlb(denoiser, X_0, trailing(12, SCHEDULE), source, rule)
    losses = []
    for i in range(12, 0, -1):
        t = torch.full((3,), i / 12, dtype=torch.float64)
        losses.append(training_loss(Bound(rule), denoiser, X_0, t, source.step(12 - i)).loss)
    expected = total.total - bits_per_dim(prior_term(X_0, SCHEDULE(1.0)))
    got = torch.stack(losses).mean(0) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(got, expected, rtol=1e-9)


def test_a_batch_may_mix_first_and_other_steps() -> None:
    denoiser = NetworkDenoiser(two_headed, SCHEDULE, PARAMETERIZATIONS["eps"])
    t = torch.tensor([1 / 12, 5 / 12, 1.0], dtype=torch.float64)
    eps = images(3, SHAPE, seed=2)
    together = training_loss(Bound(Learned()), denoiser, X_0, t, eps).loss
    for i in range(3):
        alone = training_loss(Bound(Learned()), denoiser, X_0[i : i + 1], t[i : i + 1], eps[i : i + 1]).loss
        assert torch.allclose(together[i], alone[0])


@pytest.mark.parametrize("t", [1 / 12, 0.5, 1.0])
def test_the_bound_teaches_the_variance_alone_in_the_hybrid(t: float) -> None:
    eps, time = images(3, SHAPE, seed=2), torch.full((3,), t, dtype=torch.float64)
    mean, width = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.9, 0.2))

    def net(x: torch.Tensor, clock: torch.Tensor, condition: object = None) -> torch.Tensor:
        output = random_function(x, clock)
        return torch.cat([mean * output, width * torch.tanh(output)], 1)

    denoiser = NetworkDenoiser(net, SCHEDULE, Eps())
    hybrid, simple, bound = Hybrid(Simple(Eps()), Bound(Learned()), 1e-3), Simple(Eps()), Bound(Learned())
    values = [training_loss(o, denoiser, X_0, time, eps).loss for o in (hybrid, simple, bound)]
    assert torch.allclose(values[0], values[1] + 1e-3 * values[2])

    def gradients(objective) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.autograd.grad(training_loss(objective, denoiser, X_0, time, eps).loss.sum(), (mean, width))

    of_hybrid, of_simple, of_bound = gradients(hybrid), gradients(simple), gradients(bound)
    assert torch.allclose(of_hybrid[0], of_simple[0])
    assert float(of_simple[1]) == 0
    assert torch.allclose(of_hybrid[1], 1e-3 * of_bound[1])
    assert float(of_bound[0].abs()) > 0


def test_the_learned_variance_interpolates_logarithms() -> None:
    level_s, level_t = SCHEDULE(0.25), SCHEDULE(0.75)
    x_t = images(3, SHAPE)
    small, large = (
        reverse(Prediction(x_t, x_t), x_t, level_s, level_t, rule).logvar.expand(3, *SHAPE)
        for rule in (Small(), Large())
    )
    for f in (0.0, 0.3, 1.0):
        prediction = Prediction(x_t, x_t, torch.full_like(x_t, f))
        assert torch.allclose(Learned().logvar(level_s, level_t, prediction), f * large + (1 - f) * small)
    output = two_headed(x_t, torch.full((3,), 8.0))
    fraction = NetworkDenoiser(two_headed, SCHEDULE, Eps())(x_t, 0.75).fraction
    assert torch.allclose(fraction, (output[:, 2:] + 1) / 2)


def test_the_first_steps_floor_is_the_second_steps() -> None:
    """The published code takes log beta~ at t = 2 for t = 1."""
    betas = SCHEDULE.betas()
    abars = (1 - betas).cumprod(0)
    tilde_2 = betas[1] * (1 - abars[0]) / (1 - abars[1])
    levels = SCHEDULE(0.0), SCHEDULE(1 / 12)
    got = Small().logvar(*levels, Prediction(X_0, X_0), SCHEDULE(2 / 12))
    assert float(got.exp()) == pytest.approx(float(tilde_2), rel=1e-9)
    assert float(Small().logvar(*levels, Prediction(X_0, X_0))) == -torch.inf


WEIGHTS = {
    "min-snr": (MinSNR(5.0), lambda snr: torch.minimum(snr, torch.tensor(5.0)) / snr),
    "p2": (P2(1.0, 0.5), lambda snr: 1 / (1 + snr).sqrt()),
    "sigmoid": (SigmoidWeight(1.5), lambda snr: 1 / (1 + snr * torch.exp(torch.tensor(-1.5)).double())),
}


@pytest.mark.parametrize(("weighting", "formula"), list(WEIGHTS.values()), ids=list(WEIGHTS))
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_weighted_loss_is_the_same_in_every_space(weighting, formula, name: str) -> None:
    """Weighted on eps, or converted by hand to the space of x0 (weight SNR w) or v (weight w SNR / (SNR + 1))."""
    t = torch.tensor([1 / 12, 0.5, 1.0], dtype=torch.float64)
    eps, denoiser = images(3, SHAPE, seed=2), NetworkDenoiser(random_function, SCHEDULE, PARAMETERIZATIONS[name])
    got = training_loss(Weighted(weighting), denoiser, X_0, t, eps).loss
    snr = SCHEDULE(t).logsnr.exp()
    x_t = marginal(X_0, SCHEDULE(t)).sample(eps)
    prediction = denoiser(x_t, t)
    in_x0 = (prediction.x0 - X_0).square().flatten(1).mean(1)
    assert torch.allclose(got, formula(snr) * snr * in_x0, rtol=1e-6)
    in_v = training_loss(Simple(PARAMETERIZATIONS["v"]), denoiser, X_0, t, eps).loss
    assert torch.allclose(got, formula(snr) * snr / (snr + 1) * in_v, rtol=1e-6)


@pytest.mark.parametrize("weighting", [MinSNR(), P2(), SigmoidWeight()])
def test_weights_are_finite_from_clean_to_pure_noise(weighting) -> None:
    ends = weighting(torch.tensor([torch.inf, 20.0, 0.0, -20.0, -torch.inf], dtype=torch.float64))
    assert bool(ends.isfinite().all())
    assert bool((ends >= 0).all())
