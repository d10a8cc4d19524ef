"""Gaussian: against torch.distributions and the general formula with full covariances."""

from __future__ import annotations

import torch
from torch import distributions

from sfumato.diffusion import Gaussian

from .common import images


def pair() -> tuple[Gaussian, Gaussian]:
    return Gaussian(images(seed=0), images(seed=1)), Gaussian(images(seed=2), images(seed=3))


def test_log_prob_and_kl_equal_torch_distributions() -> None:
    p, q = pair()
    x = images(seed=4)
    p_torch, q_torch = (distributions.Normal(g.mean, g.variance.sqrt()) for g in (p, q))
    assert torch.allclose(p.log_prob(x), p_torch.log_prob(x))
    assert torch.allclose(p.kl(q), distributions.kl_divergence(p_torch, q_torch))


def test_kl_equals_the_general_formula_with_matrices() -> None:
    p, q = pair()
    for i in range(len(p.mean)):
        s_x, s_y = torch.diag(p.variance[i].flatten()), torch.diag(q.variance[i].flatten())
        difference = (p.mean - q.mean)[i].flatten()
        general = 0.5 * (
            torch.logdet(s_y)
            - torch.logdet(s_x)
            - len(difference)
            + torch.trace(torch.linalg.inv(s_y) @ s_x)
            + difference @ torch.linalg.inv(s_y) @ difference
        )
        assert torch.allclose(p.kl(q)[i].sum(), general)


def test_kl_is_zero_only_between_equals_and_precise_near_them() -> None:
    p, q = pair()
    assert torch.equal(p.kl(p), torch.zeros_like(p.mean))
    assert bool((p.kl(q) > 0).all())
    nudge = 1e-6
    near = Gaussian(p.mean, p.logvar + nudge).kl(p)
    assert torch.allclose(near, torch.full_like(near, nudge**2 / 4), rtol=1e-3)


def test_sample_has_the_stated_moments() -> None:
    g = Gaussian(torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[0.5, -3.0]]).double())
    drawn = g.sample(images(200_000, (2,), seed=5))
    assert torch.allclose(drawn.mean(0), g.mean[0], atol=0.01)
    assert torch.allclose(drawn.var(0), g.variance[0], rtol=0.02)


def test_a_point_mass_samples_its_mean() -> None:
    g = Gaussian(images(), torch.tensor(-torch.inf, dtype=torch.float64))
    assert torch.equal(g.sample(images(seed=9)), g.mean)
