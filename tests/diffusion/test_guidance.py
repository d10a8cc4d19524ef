"""Guidance against closed forms: the guided score, the exact classifier, a whole guided run integrated elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.conditions.table import Attributes
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.guidance import AutoGuided, ClassifierGuided, Guided, ImageGuided
from sfumato.diffusion.oracle import ConditionalMixtureOracle, GaussianOracle, MixtureOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.samplers.ddim import DDIM
from sfumato.diffusion.samplers.protocol import sample
from sfumato.diffusion.schedule import Cosine, Linear, ZeroTerminalSNR

from .common import images, noise

SHAPE = (2, 3)
SCHEDULE = Linear()
WEIGHTS = torch.tensor([1.0, 3.0, 2.0, 1.5], dtype=torch.float64)
MEANS = images(4, SHAPE, seed=11)
VARIANCES = torch.tensor([0.3, 0.1, 0.5, 0.2], dtype=torch.float64).reshape(4, 1, 1)
LABELS = torch.tensor([0, 1, 0, 2])
ORACLE = ConditionalMixtureOracle(SCHEDULE, WEIGHTS, MEANS, VARIANCES, LABELS)
TABLE = torch.tensor([[0.0], [1.0], [2.0], [0.0], [1.0]])
CONDITION = Attributes(TABLE)
NOTHING = CONDITION.absent()
T = 0.3


def x_t(count: int = 5) -> torch.Tensor:
    return images(count, SHAPE, seed=12)


@dataclass(frozen=True)
class Watched:
    """A denoiser that keeps what it was asked, and predicts a fraction that tells the condition."""

    denoiser: Denoiser = ORACLE
    calls: list[tuple[int, Attributes]] = field(default_factory=list)

    @property
    def schedule(self) -> Linear:
        return self.denoiser.schedule

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor | float, condition: Attributes) -> Prediction:
        self.calls.append((len(x_t), condition))
        prediction = self.denoiser(x_t, t, condition)
        fraction = condition.table.nan_to_num(-1.0)[:, :, None].to(x_t).expand(x_t.shape)
        return Prediction(prediction.x0, prediction.eps, fraction)


def log_marginals(x: torch.Tensor, t: float) -> torch.Tensor:
    """log q(c) q(x_t | c) for c = 0, 1, 2, (B, 3), by torch.distributions."""
    level = SCHEDULE(t)
    columns = []
    for c in range(3):
        rows = c == LABELS
        std = (level.abar * VARIANCES[rows] + level.sigma**2).sqrt().expand(-1, *SHAPE)
        parts = torch.distributions.Independent(torch.distributions.Normal(level.alpha * MEANS[rows], std), 2)
        mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(WEIGHTS[rows]), parts)
        columns.append(mixed.log_prob(x) + (WEIGHTS[rows].sum() / WEIGHTS.sum()).log())
    return torch.stack(columns, 1)


def guided_score(x: torch.Tensor, t: float, w: float) -> torch.Tensor:
    """grad of log q(x_t) + w log q(c | x_t)."""
    x = x.clone().requires_grad_()
    joint = log_marginals(x, t)
    label = joint.gather(1, TABLE.long())[:, 0]
    whole = joint.logsumexp(1)
    return torch.autograd.grad((whole + w * (label - whole)).sum(), x)[0]


# The conditional oracle


def test_the_oracle_conditions_by_its_labels() -> None:
    """Its prediction is that of a mixture of the label's components alone, and of all where nothing is given."""
    got, x = ORACLE(x_t(), T, CONDITION), x_t()
    for i, label in enumerate(TABLE[:, 0]):
        rows = label == LABELS
        alone = MixtureOracle(SCHEDULE, WEIGHTS[rows], MEANS[rows], VARIANCES[rows])(x[i : i + 1], T)
        assert torch.allclose(got.x0[i], alone.x0[0], atol=1e-12)
    whole = MixtureOracle(SCHEDULE, WEIGHTS, MEANS, VARIANCES)(x, T)
    assert torch.equal(ORACLE(x, T, NOTHING).x0, whole.x0)
    assert torch.equal(ORACLE(x, T).eps, whole.eps)
    exact = log_marginals(x, T).log_softmax(1).gather(1, TABLE.long())[:, 0]
    assert torch.allclose(ORACLE.class_log_prob(x, T, CONDITION), exact, atol=1e-12)
    assert torch.equal(ORACLE.class_log_prob(x, T, NOTHING), torch.zeros(5).double())


# Classifier-free guidance


@pytest.mark.parametrize("t", [0.02, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("w", [-0.5, 0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_guided_score_is_that_of_the_guided_density(w: float, t: float) -> None:
    guided, level = Guided(ORACLE, w)(x_t(), t, CONDITION), SCHEDULE(t)
    assert torch.allclose(-guided.eps / level.sigma, guided_score(x_t(), t, w), rtol=1e-8, atol=1e-9)
    assert torch.allclose(level.alpha * guided.x0 + level.sigma * guided.eps, x_t(), atol=1e-10)


def test_scale_one_is_the_conditional_and_zero_the_unconditional_denoiser() -> None:
    for w, condition in ((1.0, CONDITION), (0.0, NOTHING)):
        assert torch.equal(Guided(ORACLE, w)(x_t(), T, CONDITION).x0, ORACLE(x_t(), T, condition).x0)


@pytest.mark.parametrize(
    ("scale", "t", "sizes"),
    [
        (1.5, 0.3, [10]),
        (1.0, 0.3, [5]),
        (0.0, 0.3, [5]),
        (1.5, 0.2, [5]),  # the interval is open at its low end
        (1.5, 0.6, [10]),  # and closed at its high end
        (1.5, 0.61, [5]),
        (0.0, 0.7, [5]),
    ],
)
def test_evaluations_and_the_interval(scale: float, t: float, sizes: list[int]) -> None:
    watched = Watched()
    got = Guided(watched, scale, (0.2, 0.6))(x_t(), t, CONDITION)
    assert [size for size, _ in watched.calls] == sizes
    outside = not 0.2 < t <= 0.6
    w = 1.0 if outside else scale
    if sizes == [10]:
        assert torch.equal(watched.calls[0][1].table[:5], TABLE)
        assert bool(watched.calls[0][1].table[5:].isnan().all())
    elif outside:
        assert torch.equal(got.x0, ORACLE(x_t(), t, CONDITION).x0)
    assert torch.allclose(-got.eps / SCHEDULE(t).sigma, guided_score(x_t(), t, w), atol=1e-9)


def test_the_interval_holds_for_single_precision_and_lists() -> None:
    """float32 has 0.30000001 for 0.3, which would lie beyond the interval's end."""
    guided, plain = Guided(ORACLE, 3.0, (0.1, T)), Guided(ORACLE, 3.0)
    inside, outside = plain(x_t(), T, CONDITION).x0, ORACLE(x_t(), 0.1, CONDITION).x0
    for t in (torch.tensor(T), torch.full((5,), T), [T] * 5):
        assert torch.allclose(guided(x_t(), t, CONDITION).x0, inside)
    for t in (torch.tensor(0.1), torch.full((5,), 0.1), [0.1] * 5):
        assert torch.allclose(guided(x_t(), t, CONDITION).x0, outside)


def test_bare_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="the condition is a Tensor, which has no unconditional counterpart"):
        Guided(ORACLE, 2.0)(x_t(), T, torch.arange(5))


def test_rows_with_times_of_their_own() -> None:
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    together = Guided(ORACLE, 2.5, (0.2, 0.6), 0.5)(x_t(), t, CONDITION)
    for i in range(5):
        row = slice(i, i + 1)
        alone = Guided(ORACLE, 2.5, (0.2, 0.6), 0.5)(x_t()[row], float(t[i]), Attributes(TABLE[row]))
        assert torch.allclose(together.x0[i], alone.x0[0], atol=1e-12)
        assert torch.allclose(together.eps[i], alone.eps[0], atol=1e-12)


def test_a_row_without_a_condition_is_unconditional() -> None:
    some = Attributes(torch.where(torch.arange(5)[:, None] == 2, math.nan, TABLE))
    got, whole = Guided(ORACLE, 3.0)(x_t(), T, some), ORACLE(x_t(), T)
    assert torch.allclose(got.x0[2], whole.x0[2], atol=1e-12)
    assert torch.allclose(got.x0[0], Guided(ORACLE, 3.0)(x_t(), T, CONDITION).x0[0], atol=1e-12)


def test_the_learned_variance_is_the_conditional_ones() -> None:
    expected = TABLE[:, :, None].double().expand(5, *SHAPE)
    for guided in (Guided(Watched(), 2.0), Guided(Watched(), 2.0, rescale=0.7), AutoGuided(Watched(), ORACLE, 2.0)):
        assert torch.equal(guided(x_t(), T, CONDITION).fraction, expected)


@pytest.mark.parametrize("rescale", [0.0, 0.35, 1.0])
def test_rescaling_is_equations_15_and_16(rescale: float) -> None:
    plain, got = Guided(ORACLE, 4.0)(x_t(), T, CONDITION), Guided(ORACLE, 4.0, rescale=rescale)(x_t(), T, CONDITION)
    x0, conditional = plain.x0.numpy(), ORACLE(x_t(), T, CONDITION).x0.numpy()
    ratio = conditional.std((1, 2), keepdims=True) / x0.std((1, 2), keepdims=True)
    assert np.allclose(got.x0.numpy(), rescale * x0 * ratio + (1 - rescale) * x0, atol=1e-12)
    level = SCHEDULE(T)
    assert torch.allclose(level.alpha * got.x0 + level.sigma * got.eps, x_t(), atol=1e-12)


@pytest.mark.parametrize("name", ["v", "eps", "mu"])
def test_the_papers_rescaling_is_of_the_networks_output(name: str) -> None:
    """Eq. 15-16 in another space than x0: by hand, and still a prediction that explains x_t."""
    space = PARAMETERIZATIONS[name]
    plain, conditional = Guided(ORACLE, 4.0)(x_t(), T, CONDITION), ORACLE(x_t(), T, CONDITION)
    got = Guided(ORACLE, 4.0, rescale=0.7, rescaled=space)(x_t(), T, CONDITION)
    output, reference = (target(space, p.x0, p.eps, SCHEDULE, torch.tensor(T)) for p in (plain, conditional))
    std = [o.flatten(1).std(1, correction=0)[:, None, None] for o in (output, reference)]
    expected = 0.3 * output + 0.7 * output * std[1] / std[0]
    assert torch.allclose(target(space, got.x0, got.eps, SCHEDULE, torch.tensor(T)), expected, rtol=1e-6, atol=1e-9)
    level = SCHEDULE(T)
    assert torch.allclose(level.alpha * got.x0 + level.sigma * got.eps, x_t(), atol=1e-9)
    assert not torch.allclose(got.x0, Guided(ORACLE, 4.0, rescale=0.7)(x_t(), T, CONDITION).x0, atol=1e-3)


def test_rescaling_an_image_of_one_value_leaves_it() -> None:
    oracle = ConditionalMixtureOracle(
        SCHEDULE, WEIGHTS, MEANS.flatten(1)[:, :1], VARIANCES[:, 0], torch.tensor([0, 1, 0, 2])
    )
    x = images(5, (1,))
    plain, got = (Guided(oracle, 4.0, rescale=r)(x, T, CONDITION) for r in (0.0, 1.0))
    assert torch.allclose(plain.x0, got.x0)


@dataclass(frozen=True)
class Pair:
    """N(1, 0.04) where a condition is given, N(-0.2, 0.5) where none is."""

    schedule: Linear = SCHEDULE

    def __call__(self, x: torch.Tensor, t: torch.Tensor | float, condition: Attributes) -> Prediction:
        given, whole = (
            GaussianOracle(self.schedule, torch.tensor(m).double(), torch.tensor(v).double())(x, t)
            for m, v in ((1.0, 0.04), (-0.2, 0.5))
        )
        absent = condition.table.isnan()
        return Prediction(torch.where(absent, whole.x0, given.x0), torch.where(absent, whole.eps, given.eps))


@pytest.mark.parametrize("w", [0.0, 1.0, 1.5, 3.0])
def test_a_whole_guided_run_is_the_odes(w: float) -> None:
    """With two Gaussians the guided field is affine: dx/du in y = x/alpha and u = log(sigma/alpha) keeps the samples
    Gaussian, and their mean and standard deviation obey two linear equations, which scipy solves."""
    first, last = (SCHEDULE(t) for t in (1.0, 1e-3))

    def right(u: float, state: np.ndarray) -> list[float]:
        abar = 1 / (1 + math.exp(2 * u))
        alpha, sigma = abar**0.5, (1 - abar) ** 0.5
        slope = offset = 0.0
        for share, mean, variance in ((w, 1.0, 0.04), (1 - w, -0.2, 0.5)):
            spread = abar * variance + sigma**2
            slope += share * sigma / spread
            offset -= share * sigma / spread * alpha * mean
        return [math.exp(u) * (slope * alpha * state[0] + offset), math.exp(u) * slope * alpha * state[1]]

    span = [-float(level.logsnr) / 2 for level in (first, last)]
    start = [0.0, 1 / float(first.alpha)]
    mean, std = solve_ivp(right, span, start, rtol=1e-9, atol=1e-10).y[:, -1] * float(last.alpha)
    count = 500
    source = noise(count, (1,))
    times = torch.linspace(1, 1e-3, 1000, dtype=torch.float64)
    x = sample(Guided(Pair(), w), DDIM(), times, source, Attributes(torch.zeros(count, 1)))[:, 0]
    z = source.prior()[:, 0]
    # 1000 first-order steps leave a few thousandths; every sample is mean + std z, so no statistical error enters
    assert torch.allclose(x, mean + std * z, atol=0.01)
    assert float(x.mean()) == pytest.approx(mean + std * float(z.mean()), abs=0.003)
    assert float(x.std()) == pytest.approx(std * float(z.std()), rel=0.04)


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a condition"):
        Guided(ORACLE, 2.0)(x_t(), T)
    for scale in (math.nan, math.inf):
        with pytest.raises(ValueError, match="give a finite number"):
            Guided(ORACLE, scale)
    for interval in ((0.5, 0.5), (-0.1, 0.5), (0.2, 1.1), (0.8, 0.2)):
        with pytest.raises(ValueError, match="low < high"):
            Guided(ORACLE, 2.0, interval)
    with pytest.raises(ValueError, match="choose from 0"):
        Guided(ORACLE, 2.0, rescale=1.1)
    with pytest.raises(ValueError, match="same schedule"):
        AutoGuided(ORACLE, GaussianOracle(Cosine(), torch.zeros(1), torch.ones(1)), 2.0)
    dark = GaussianOracle(ZeroTerminalSNR(base=Linear()), torch.zeros(1), torch.ones(1))
    for kind in (ClassifierGuided, ImageGuided):
        with pytest.raises(ValueError, match="alpha = 0"):
            kind(dark, ORACLE.class_log_prob)


# Autoguidance


@pytest.mark.parametrize("w", [0.0, 1.0, 2.2])
def test_autoguidance_leads_away_from_the_weak_denoiser(w: float) -> None:
    weak = ConditionalMixtureOracle(SCHEDULE, WEIGHTS, 0.5 * MEANS, VARIANCES + 0.4, LABELS)
    strong_asked, weak_asked = Watched(), Watched(weak)
    got = AutoGuided(strong_asked, weak_asked, w)(x_t(), T, CONDITION)
    a, b = weak(x_t(), T, CONDITION), ORACLE(x_t(), T, CONDITION)
    assert torch.allclose(got.x0, w * b.x0 + (1 - w) * a.x0, atol=1e-12)
    assert torch.allclose(got.eps, w * b.eps + (1 - w) * a.eps, atol=1e-12)
    assert [len(asked.calls) for asked in (strong_asked, weak_asked)] == [int(w != 0), int(w != 1)]
    outside = AutoGuided(ORACLE, weak, w, (0.5, 1.0))(x_t(), T, CONDITION)
    assert torch.equal(outside.x0, b.x0)


# Classifiers


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("w", [1.0, 1.5])
def test_the_exact_classifier_makes_the_conditional_denoiser(w: float, t: float) -> None:
    """Unconditional prediction and grad log q(c | x_t): at w = 1 the conditional one, at any w classifier-free
    guidance."""
    unconditional = Guided(ORACLE, 0.0)
    with torch.no_grad():
        got = ClassifierGuided(unconditional, ORACLE.class_log_prob, w)(x_t(), t, CONDITION)
        same = Guided(ORACLE, w)(x_t(), t, CONDITION)
    assert torch.allclose(got.x0, same.x0, rtol=1e-7, atol=1e-8)
    assert torch.allclose(got.eps, same.eps, rtol=1e-7, atol=1e-8)
    assert not got.x0.requires_grad


def test_a_classifier_is_told_the_time_of_each_row() -> None:
    seen = []

    def log_prob(x: torch.Tensor, t: torch.Tensor, condition: object) -> torch.Tensor:
        seen.append((t, condition))
        return x.flatten(1).sum(1) * t

    guided = ClassifierGuided(ORACLE, log_prob, 2.0)(x_t(), T, CONDITION)
    assert torch.equal(seen[0][0], torch.full((5,), T, dtype=torch.float64))
    assert seen[0][1] is CONDITION
    moved = ORACLE(x_t(), T, CONDITION).eps - guided.eps
    assert torch.allclose(moved, SCHEDULE(T).sigma * 2.0 * T * torch.ones(5, *SHAPE).double(), atol=1e-12)


def test_guidance_by_clean_images_goes_through_the_denoiser() -> None:
    """For Gaussian data x0 is affine in x_t with slope alpha v / spread, so that the chain rule is one product."""
    v = torch.tensor(0.3).double()
    oracle, level = GaussianOracle(SCHEDULE, torch.zeros(SHAPE).double(), v), SCHEDULE(T)

    def log_prob(x: torch.Tensor, t: torch.Tensor, condition: Attributes) -> torch.Tensor:
        return -(x - condition.table[:, :, None]).square().flatten(1).sum(1)

    plain = oracle(x_t(), T)
    slope = level.alpha * v / (level.abar * v + level.sigma**2)
    gradient = -2 * (plain.x0 - TABLE[:, :, None]) * slope
    got = ImageGuided(oracle, log_prob, 0.7)(x_t(), T, CONDITION)
    assert torch.allclose(got.eps, plain.eps - 0.7 * level.sigma * gradient, atol=1e-10)
    assert torch.allclose(level.alpha * got.x0 + level.sigma * got.eps, x_t(), atol=1e-10)
    assert not got.x0.requires_grad


@pytest.mark.parametrize("kind", ["classifier", "image", "free"])
def test_guidance_can_be_differentiated_itself(kind: str) -> None:
    """A posterior method or the flow's likelihood takes the gradient of a guided prediction: against differences."""
    guided: Denoiser = {
        "classifier": ClassifierGuided(ORACLE, ORACLE.class_log_prob, 1.5),
        "image": ImageGuided(ORACLE, lambda x, t, c: -(x**4).flatten(1).sum(1), 0.3),
        "free": Guided(ORACLE, 2.0, rescale=0.5),
    }[kind]
    x, step = x_t().requires_grad_(), 1e-5
    (gradient,) = torch.autograd.grad(guided(x, T, CONDITION).x0.square().sum(), x)
    direction = images(5, SHAPE, seed=20)
    ends = [guided(x.detach() + s * step * direction, T, CONDITION).x0.square().sum() for s in (1, -1)]
    assert float((gradient * direction).sum()) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_guidance_wraps_guidance() -> None:
    """Autoguidance of a guided pair: linear in each, so the order of the combinations does not matter."""
    weak = ConditionalMixtureOracle(SCHEDULE, WEIGHTS, 0.5 * MEANS, VARIANCES + 0.4, LABELS)
    one = AutoGuided(Guided(ORACLE, 2.0), Guided(weak, 2.0), 1.7)(x_t(), T, CONDITION)
    other = Guided(AutoGuided(ORACLE, weak, 1.7), 2.0)(x_t(), T, CONDITION)
    assert torch.allclose(one.x0, other.x0, atol=1e-12)
