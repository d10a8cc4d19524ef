"""The optimiser against Adam's own equations, and the step that must leave no trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.config.train import OptimConfig
from sfumato.train import optim
from sfumato.train.optim import learning_rate

ONE, ZERO = torch.ones(()), torch.zeros(())


def net() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 4, 3).to(memory_format=torch.channels_last)


def with_gradient(module: nn.Module, seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        gradient = torch.randn(weight.shape, generator=generator) * scale
        weight.grad = torch.empty_like(weight).copy_(gradient)
    return [weight.grad.clone() for weight in module.parameters()]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_are_the_papers_equations(name):
    """Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; in float64."""
    config = OptimConfig(name=name, beta1=0.8, beta2=0.95, eps=1e-4, weight_decay=0.1)
    module = net()
    optimizer = optim.build(config, module)
    w = [p.detach().double() for p in module.parameters()]
    m, v = [torch.zeros_like(p) for p in w], [torch.zeros_like(p) for p in w]
    for k in range(1, 6):
        lr = 0.01 * k
        for i, gradient in enumerate(with_gradient(module, k)):
            g = gradient.double() + (0.1 * w[i] if name == "adam" else 0)
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.95 * v[i] + 0.05 * g**2
            m_hat, v_hat = m[i] / (1 - 0.8**k), v[i] / (1 - 0.95**k)
            decayed = w[i] * (1 - lr * 0.1) if name == "adamw" else w[i]
            w[i] = decayed - lr * m_hat / (v_hat.sqrt() + 1e-4)
        optim.apply(optimizer, lr, ONE)
    for weight, expected in zip(module.parameters(), w, strict=True):
        assert torch.allclose(weight.double(), expected, atol=1e-6)


def test_a_skipped_step_leaves_no_trace():
    module = net()
    optimizer = optim.build(OptimConfig(weight_decay=0.1), module)
    for k in range(3):
        with_gradient(module, k)
        optim.apply(optimizer, 0.1, ONE)
    weights = [p.detach().clone() for p in module.parameters()]
    moments = {name: t.clone() for name, t in optim.moments(optimizer, module).items()}
    with_gradient(module, 9)
    next(iter(module.parameters())).grad[0, 0, 0, 0] = math.nan
    optim.apply(optimizer, 0.1, ZERO)
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
    after = optim.moments(optimizer, module)
    assert all(torch.equal(moments[name], after[name]) for name in moments)
    with_gradient(module, 10)
    optim.apply(optimizer, 0.1, ONE)
    assert not torch.equal(weights[0], next(iter(module.parameters())))


def test_moments_lie_in_memory_as_their_weights_do():
    module = net()
    optimizer = optim.build(OptimConfig(), module)
    for name, tensor in optim.moments(optimizer, module).items():
        if not name.startswith("step/"):
            weight = dict(module.named_parameters())[name.partition("/")[2]]
            assert tensor.stride() == weight.stride()
    with_gradient(module, 0)
    optim.apply(optimizer, 0.1, ONE)
    state = {name: tensor.contiguous().clone() for name, tensor in optim.moments(optimizer, module).items()}

    other = net()
    other.load_state_dict(module.state_dict())
    second = optim.build(OptimConfig(), other)
    optim.load_moments(second, other, state)
    for k in (1, 2):
        with_gradient(module, k)
        with_gradient(other, k)
        optim.apply(optimizer, 0.1, ONE)
        optim.apply(second, 0.1, ONE)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_clipping_bounds_the_joint_norm(scale):
    module = net()
    gradients = with_gradient(module, 0, scale)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    assert float(optim.clip(module, 1.0)) == pytest.approx(norm, rel=1e-5)
    factor = min(1.0, 1.0 / norm)
    for weight, gradient in zip(module.parameters(), gradients, strict=True):
        assert torch.allclose(weight.grad, gradient * factor, rtol=1e-4)


def test_without_a_limit_gradients_stay():
    module = net()
    gradients = with_gradient(module, 0, 100.0)
    assert float(optim.clip(module, None)) > 100
    assert all(torch.equal(w.grad, g) for w, g in zip(module.parameters(), gradients, strict=True))


def test_the_rate_rises_and_falls_with_images():
    planned, batch = 1000, 10
    config = OptimConfig(lr=2.0, warmup=0.1, decay="constant")
    assert learning_rate(config, 0, batch, planned) == pytest.approx(2 * 0.1)
    assert learning_rate(config, 40, batch, planned) == pytest.approx(2 * 0.5)
    assert learning_rate(config, 90, batch, planned) == 2.0
    assert learning_rate(config, 990, batch, planned) == 2.0
    assert learning_rate(OptimConfig(lr=2.0, warmup=100, decay="constant"), 40, batch, planned) == pytest.approx(1.0)
    linear = OptimConfig(lr=2.0, warmup=0, decay="linear")
    cosine = OptimConfig(lr=2.0, warmup=0, decay="cosine")
    assert [learning_rate(linear, n, batch, planned) for n in (0, 250, 1000)] == [2.0, 1.5, 0.0]
    assert learning_rate(cosine, 0, batch, planned) == 2.0
    assert learning_rate(cosine, 250, batch, planned) == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(cosine, 500, batch, planned) == pytest.approx(1.0)
    assert learning_rate(cosine, 1000, batch, planned) == pytest.approx(0.0, abs=1e-12)
