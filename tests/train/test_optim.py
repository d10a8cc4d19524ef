"""The optimiser against the equations of Adam and Muon, and the step that must leave no trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.config.train import OptimConfig
from sfumato.nets import Interface, Network
from sfumato.train import muon
from sfumato.train.muon import orthogonalised
from sfumato.train.optim import Optimizer, learning_rate

ONE, ZERO = torch.ones(()), torch.zeros(())
NAMES = pytest.mark.parametrize("name", ["adam", "adamw", "muon"])


class Net(Network):
    """An entrance and two inner weights, one of them a convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.interface = Interface()
        self.entrance = nn.Conv2d(3, 6, 3)
        self.inner = nn.ModuleList([nn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, 3)])
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x, time, condition=None, augment=None):
        return self.norm(self.inner[0](self.entrance(x)))

    def summary(self) -> str:
        return "for a test"


def net() -> Net:
    torch.manual_seed(0)
    return Net().to(memory_format=torch.channels_last)


def with_gradient(module: nn.Module, seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        gradient = torch.randn(weight.shape, generator=generator) * scale
        weight.grad = torch.empty_like(weight).copy_(gradient)
    return [weight.grad.clone() for weight in module.parameters()]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_are_the_papers_equations(name):
    """Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2; in float64."""
    config = OptimConfig(name=name, beta1=0.8, beta2=0.95, eps=0.1, weight_decay=0.1)
    module = net()
    optimizer = Optimizer(config, module)
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
            w[i] = decayed - lr * m_hat / (v_hat.sqrt() + 0.1)
        optimizer.step(lr, ONE)
    for weight, expected in zip(module.parameters(), w, strict=True):
        assert torch.allclose(weight.double(), expected, atol=1e-6)


def test_muon_is_nesterov_momentum_made_orthogonal():
    """The polar factor by a singular value decomposition, in float64, nearly: the iteration leaves its singular values
    within 0.65 .. 1.25, in the same vectors; edges and vectors are AdamW's."""
    module, other = net(), net()
    configs = (OptimConfig(name=name, weight_decay=0.5) for name in ("muon", "adamw"))
    optimizer, adam = (Optimizer(config, each) for config, each in zip(configs, (module, other), strict=True))
    momentum = 0.0
    for k in range(3):
        before = module.inner[1].weight.detach().clone()
        with_gradient(module, k)
        gradient = module.inner[1].weight.grad.clone()
        with_gradient(other, k)
        momentum = gradient + 0.95 * momentum
        optimizer.step(0.1, ONE)
        adam.step(0.1, ONE)
        u, _, v = torch.linalg.svd((gradient + 0.95 * momentum).flatten(1).double(), full_matrices=False)
        moved = (1 - 0.1 * 0.5) * before - module.inner[1].weight.detach()
        update = moved.flatten(1).double() / (0.1 * 0.2 * math.sqrt(54))
        values = u.T @ update @ v.T
        assert (values - values.diagonal().diag()).abs().max() < 1e-3
        assert float(values.diagonal().min()) > 0.65
        assert float(values.diagonal().max()) < 1.25
    for name, weight in module.named_parameters():
        same = torch.equal(weight, dict(other.named_parameters())[name])
        assert same == (name not in ("inner.0.weight", "inner.1.weight"))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (1, 40, 5), (0, 4, 5)])
def test_orthogonalised_matrices_have_singular_values_about_one(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(x * 1e-3))
    assert torch.all((values > 0.3) & (values < 1.3))
    assert torch.equal(orthogonalised(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 32, 288), (2, 96, 32), (1, 40, 40)])
@pytest.mark.parametrize("rounded", [False, True])
def test_orthogonalising_takes_five_steps_of_the_published_iteration(shape, rounded, monkeypatch):
    if rounded:
        monkeypatch.setattr(muon, "_rounds", lambda device: [1] * muon.STEPS)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(noise, full_matrices=False)
    values = torch.logspace(0, -5, min(shape[-2:]))  # ill-conditioned, as gradients are
    values[-1] = 0.0
    x = u * values @ v
    found, expected = orthogonalised(x).double(), x.double() / torch.linalg.matrix_norm(x.double(), keepdim=True)
    for _ in range(5):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    assert float((found - expected).norm() / expected.norm()) < 1e-3


@NAMES
def test_a_skipped_step_leaves_no_trace(name):
    module = net()
    optimizer = Optimizer(OptimConfig(name=name, weight_decay=0.1), module)
    for k in range(3):
        with_gradient(module, k)
        optimizer.step(0.1, ONE)
    weights = [p.detach().clone() for p in module.parameters()]
    moments = {key: t.clone() for key, t in optimizer.state().items()}
    with_gradient(module, 9)
    module.inner[0].weight.grad[0, 0, 0, 0] = math.nan
    optimizer.step(0.1, ZERO)
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
    after = optimizer.state()
    assert all(torch.equal(moments[key], after[key]) for key in moments)
    with_gradient(module, 10)
    optimizer.step(0.1, ONE)
    assert not torch.equal(weights[0], next(iter(module.parameters())))


@NAMES
def test_moments_lie_in_memory_as_their_weights_do(name):
    module = net()
    optimizer = Optimizer(OptimConfig(name=name), module)
    for key, tensor in optimizer.state().items():
        if not key.startswith("step/"):
            weight = dict(module.named_parameters())[key.partition("/")[2]]
            assert tensor.stride() == weight.stride()
    with_gradient(module, 0)
    optimizer.step(0.1, ONE)
    state = {key: tensor.contiguous().clone() for key, tensor in optimizer.state().items()}

    other = net()
    other.load_state_dict(module.state_dict())
    second = Optimizer(OptimConfig(name=name), other)
    for key, tensor in second.state().items():
        tensor.copy_(state[key])
    for k in (1, 2):
        with_gradient(module, k)
        with_gradient(other, k)
        optimizer.step(0.1, ONE)
        second.step(0.1, ONE)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_clipping_bounds_the_joint_norm(scale):
    module = net()
    gradients = with_gradient(module, 0, scale)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    assert float(Optimizer(OptimConfig(clip=1.0), module).clip()) == pytest.approx(norm, rel=1e-5)
    factor = min(1.0, 1.0 / norm)
    for weight, gradient in zip(module.parameters(), gradients, strict=True):
        assert torch.allclose(weight.grad, gradient * factor, rtol=1e-4)


def test_without_a_limit_gradients_stay():
    module = net()
    gradients = with_gradient(module, 0, 100.0)
    assert float(Optimizer(OptimConfig(clip=None), module).clip()) > 100
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
    late = OptimConfig(lr=2.0, warmup=0, decay="late")
    assert [learning_rate(late, n, batch, planned) for n in (0, 700, 1000)] == [2.0, pytest.approx(2.0), 0.0]
    assert learning_rate(late, 850, batch, planned) == pytest.approx(1.0)
    assert learning_rate(cosine, 0, batch, planned) == 2.0
    assert learning_rate(cosine, 250, batch, planned) == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(cosine, 500, batch, planned) == pytest.approx(1.0)
    assert learning_rate(cosine, 1000, batch, planned) == pytest.approx(0.0, abs=1e-12)
