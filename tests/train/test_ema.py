"""The average of the weights against its closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.config.train import EMAConfig
from sfumato.train.ema import EMA
from sfumato.train.trainer import Trainer

from .conftest import tiny

ONE, ZERO = torch.ones(()), torch.zeros(())


def closed_form(start: torch.Tensor, weights: list[torch.Tensor], decays: list[float]) -> torch.Tensor:
    """prod d * start + sum_k (1 - d_k) prod_{j > k} d_j w_k, in float64."""
    result = math.prod(decays) * start.double()
    for k, weight in enumerate(weights):
        result += (1 - decays[k]) * math.prod(decays[k + 1 :]) * weight.double()
    return result


def test_the_average_is_its_closed_form():
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    ema, start, seen = EMA(net), net.weight.detach().clone(), []
    decays = [0.0, 0.3, 0.9, 0.5, 0.99]
    for decay in decays:
        nn.init.normal_(net.weight)
        seen.append(net.weight.detach().clone())
        ema.update(1 - decay, ONE)
    for n in (1, 5):  # a decay of 0 at the start leaves no trace of the first weights
        assert torch.allclose(closed_form(start, seen[:n], decays[:n]), closed_form(start * 0, seen[:n], decays[:n]))
    assert torch.allclose(ema.net.weight.double(), closed_form(start, seen, decays), atol=1e-6)


def test_a_half_life_later_half_of_it_is_left():
    config = EMAConfig(half_life=1000, ramp=None)
    batch, planned = 10, 10**6
    left = math.prod(config.decay(n, batch, planned) for n in range(0, 1000, batch))
    assert left == pytest.approx(0.5)
    assert EMAConfig(half_life=0.001, ramp=None).decay(0, batch, planned) == config.decay(0, batch, planned)


def test_the_ramp_lengthens_the_half_life_with_the_images_seen():
    config = EMAConfig(half_life=1000, ramp=0.05)
    assert config.decay(0, 10, 10**6) == 0.0
    assert config.decay(400, 10, 10**6) == pytest.approx(0.5 ** (10 / 20))
    assert config.decay(20_000, 10, 10**6) == pytest.approx(0.5 ** (10 / 1000))
    assert config.decay(10**9, 10, 10**6) == pytest.approx(0.5 ** (10 / 1000))


def test_a_half_life_says_the_same_for_every_batch_size():
    config = EMAConfig(half_life=5000, ramp=None)
    once = config.decay(0, 64, 10**6)
    assert math.prod(config.decay(16 * i, 16, 10**6) for i in range(4)) == pytest.approx(once)


def test_a_skipped_step_leaves_the_average_as_it_is():
    torch.manual_seed(0)
    net = nn.Linear(5, 5)
    ema = EMA(net)
    nn.init.normal_(net.weight)
    ema.update(0.5, ONE)
    before = ema.net.weight.clone()
    nn.init.normal_(net.weight)
    ema.update(0.5, ZERO)
    assert torch.equal(ema.net.weight, before)


def test_the_average_is_of_weights_after_their_step(digits):
    """At decay 0.5 for good, ema_n = sum 2^-(n - k) w_k / 2 + 2^-n w_0 with w_k the weights after step k."""
    config = tiny(ema__half_life="8", ema__ramp="none", optim__lr="0.1", train__batch="8")
    trainer = Trainer(config, digits)
    name = "entrance.weight"
    start = trainer.net.state_dict()[name].clone()
    seen = []
    for _ in range(4):
        trainer.step()
        seen.append(trainer.net.state_dict()[name].clone())
    assert torch.allclose(trainer.ema.net.state_dict()[name].double(), closed_form(start, seen, [0.5] * 4), atol=1e-6)
    early = closed_form(start, [start, *seen[:-1]], [0.5] * 4)  # what averaging before the step would give
    assert not torch.allclose(trainer.ema.net.state_dict()[name].double(), early, atol=1e-4)


def test_after_the_first_step_the_average_is_the_weights(digits):
    trainer = Trainer(tiny(optim__lr="0.1"), digits)
    trainer.step()
    for a, b in zip(trainer.ema.net.parameters(), trainer.net.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)
