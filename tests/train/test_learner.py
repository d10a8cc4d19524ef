"""One step against Algorithm 1 written out, and what addresses promise: any batch, the same step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sfumato.data.formats.pixels import to_model
from torch.nn import functional

from sfumato.conditions.attributes import Attribute, describe
from sfumato.diffusion import Eps, Noise, V, trailing
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.train.meter import Meter, summed
from sfumato.train.trainer import Learner, kept, seeded

from .conftest import Altered, tiny


def states_equal(a: Learner, b: Learner) -> bool:
    left, right = a.state(), b.state()
    return all(torch.equal(left[kind][name], right[kind][name]) for kind in left for name in left[kind])


@pytest.mark.parametrize(("space", "build"), [("eps", Eps), ("v", V)])
def test_a_step_is_algorithm_1(digits, space, build):
    """The same images, times and noise through DDPM Eq. 4 and 14 by hand give the same loss and the same gradient."""
    config = tiny(digits, diffusion__parameterization=space, net__dropout="0", optim__clip="none")
    learner = Learner(config, digits)
    learner.step()  # away from the zero output of fresh weights
    net, start = copy.deepcopy(learner.net), learner.images
    outcome = learner.step()

    positions = torch.arange(start, start + 8)
    batch = digits.batch(positions, 0)
    x_0 = to_model(batch.x)
    u = uniform(0, Purpose.TRAIN_TIME, positions)
    i = (u * 50).floor() + 1  # t ~ Uniform{1 .. T}
    eps = normal(0, Purpose.TRAIN_NOISE, positions, (1, 8, 8))
    abar = config.diffusion.schedule(i / 50).alpha.square()[:, None, None, None]
    x_t = (abar.sqrt() * x_0 + (1 - abar).sqrt() * eps).float()
    wanted = {"eps": eps, "v": (abar.sqrt() * eps - (1 - abar).sqrt() * x_0).float()}[space]
    told = batch.conditions.clone()
    told[uniform(0, Purpose.LABEL_DROPOUT, positions) < 0.1] = math.nan
    loss = functional.mse_loss(net(x_t, (i - 1).float(), told), wanted, reduction="none").flatten(1).mean(1)
    gradient = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient if g is not None))

    assert torch.allclose(outcome.terms.t, i / 50)
    assert torch.allclose(outcome.terms.loss, loss, rtol=1e-4, atol=1e-6)
    assert float(outcome.grad_norm) == pytest.approx(norm, rel=1e-3)
    assert float(outcome.applied) == 1


def test_an_example_does_not_depend_on_its_batch(digits):
    """Positions 0..15 in one batch or in two: the same times, and at equal weights the same losses."""
    one = Learner(tiny(digits, train__batch="16", net__dropout="0"), digits).step().terms
    halves = Learner(tiny(digits, net__dropout="0", optim__lr="1e-30"), digits)  # a rate that moves no weight
    parts = [halves.step().terms, halves.step().terms]
    assert torch.equal(one.t, torch.cat([part.t for part in parts]))
    assert torch.allclose(one.loss, torch.cat([part.loss for part in parts]), rtol=1e-4)


def test_two_learners_of_one_seed_are_the_same_and_of_two_are_not(digits):
    a, b = Learner(tiny(digits), digits), Learner(tiny(digits), digits)
    assert states_equal(a, b)
    torch.manual_seed(123)  # the global generator is nobody's business
    a.step()
    torch.rand(7)
    b.step()
    assert states_equal(a, b)
    assert not states_equal(a, Learner(tiny(digits, train__seed="1"), digits))


def test_dropout_differs_between_steps_and_not_between_runs(digits):
    def mask(step: int) -> torch.Tensor:
        with seeded(0, Purpose.DROPOUT, step, torch.device("cpu")):
            return functional.dropout(torch.ones(64), 0.5)

    assert torch.equal(mask(3), mask(3))
    assert not torch.equal(mask(3), mask(4))

    def seeds() -> list[int]:
        """Torch's seed while each of three steps runs its network."""
        learner, seen = Learner(tiny(digits), digits), []

        def watched(loss: torch.Tensor) -> torch.Tensor:
            seen.append(torch.initial_seed())
            return loss

        learner.objective = Altered(learner.objective, watched)
        for _ in range(3):
            learner.step()
        return seen

    assert seeds() == seeds()
    assert len(set(seeds())) == 3
    quiet, noisy = (Learner(tiny(digits, net__dropout=p), digits) for p in ("0", "0.5"))
    for _ in range(3):
        quiet.step()
        noisy.step()
    assert not states_equal(quiet, noisy)


def test_the_global_generator_is_put_back(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learner = Learner(tiny(digits), digits)
    learner.step()
    learner.draw(2)
    learner.held_out()
    assert torch.equal(torch.rand(3), expected)


def test_the_rate_is_that_of_the_images_seen_before_the_step(digits):
    learner = Learner(tiny(digits, optim__lr="1", optim__warmup="0", optim__decay="cosine"), digits)
    rates = [learner.step().lr for _ in range(3)]
    assert rates == pytest.approx([(1 + math.cos(math.pi * k / 20)) / 2 for k in range(3)])


def test_labels_are_dropped_by_address(digits):
    learner = Learner(tiny(digits, train__label_dropout="0.25"), digits)
    positions = torch.arange(20_000)
    told = torch.full((20_000, 1), 7.0)
    shown = learner._condition(told, positions)
    dropped = shown.isnan().double().mean().item()
    assert dropped == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 20_000))
    assert set(shown[~shown.isnan()].tolist()) == {7}
    again = learner._condition(told[500:], positions[500:])
    assert torch.equal(again.nan_to_num(-1), shown[500:].nan_to_num(-1))
    nothing = replace(digits, attributes=(), conditions=digits.conditions[:, :0])
    assert Learner(tiny(nothing, data__labels="none"), nothing)._condition(told, positions) is None


def test_of_several_attributes_any_number_may_be_shown():
    """None with p; else all of them in half of the cases, and in the others 0 .. A of A, each as likely as another."""
    num, size, p = 60_000, 5, 0.2
    shown = kept(uniform(3, Purpose.LABEL_DROPOUT, torch.arange(num), (2 + size,)), p)
    counts = torch.bincount(shown.sum(1), minlength=size + 1) / num
    part = (1 - p) / 2 / (size + 1)
    wanted = torch.tensor([p + part, *[part] * (size - 1), (1 - p) / 2 + part])
    error = 4 * (wanted * (1 - wanted) / num).sqrt()
    assert ((counts - wanted).abs() < error).all(), counts
    later = torch.arange(700, num)
    assert torch.equal(kept(uniform(3, Purpose.LABEL_DROPOUT, later, (2 + size,)), p), shown[700:]), "by address"
    # which are shown is nobody's preference: alone, each is as likely as another, and so is each pair
    alone = shown[shown.sum(1) == 1].double().mean(0)
    assert torch.allclose(alone, torch.full((size,), 1 / size, dtype=torch.float64), atol=0.03)
    first = shown[shown.sum(1) == 2]
    assert float((first[:, 0] & first[:, 1]).double().mean()) == pytest.approx(1 / 10, abs=0.02)


def test_without_dropout_everything_is_always_shown():
    for size in (1, 3):
        assert kept(uniform(0, Purpose.LABEL_DROPOUT, torch.arange(1000), (2 + size,)), 0.0).all()


def test_the_grid_shows_every_value_in_turn(digits, monkeypatch):
    asked = []

    def caught(*arguments, conditions, **more):
        asked.append(conditions)
        return iter([(0, torch.zeros(12, 1, 8, 8))])

    monkeypatch.setattr("sfumato.train.trainer.generate", caught)
    Learner(tiny(digits, train__grid_images="12"), digits).draw()
    assert asked[-1][:, 0].tolist() == [*range(10), 0, 1]
    size = Attribute("ink", mean=1.0, std=2.0)
    both = replace(
        digits,
        attributes=(*digits.attributes, size),
        conditions=np.concatenate([digits.conditions, digits.conditions / 10], 1),
    )
    Learner(tiny(both, train__grid_images="12"), both).draw()
    assert [describe(both.attributes, row) for row in asked[-1][8:].tolist()] == [
        "class=8",
        "class=9",
        "ink=-1",
        "ink=1",
    ]
    # a network that always saw both can't be asked for one
    Learner(tiny(both, train__grid_images="12", train__label_dropout="0"), both).draw()
    assert np.array_equal(asked[-1], both.conditions[both.train[:12]])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_no_trace(digits, bad):
    learner = Learner(tiny(digits), digits)
    learner.step()
    before = {kind: {n: t.clone() for n, t in tensors.items()} for kind, tensors in learner.state().items()}
    objective = learner.objective
    learner.objective = Altered(objective, lambda loss: loss * torch.where(torch.arange(len(loss)) == 3, bad, 1.0))
    outcome = learner.step()
    assert float(outcome.applied) == 0
    after = learner.state()
    assert all(torch.equal(before[kind][name], after[kind][name]) for kind in before for name in before[kind])
    learner.objective = objective
    assert float(learner.step().applied) == 1


@pytest.mark.parametrize(
    ("addend", "loss_is_finite"),
    [(lambda loss: (loss * 0).sqrt(), True), (lambda loss: torch.full_like(loss, math.inf), False)],
)
def test_either_of_loss_and_gradient_alone_is_enough(digits, addend, loss_is_finite):
    """A finite loss with an infinite gradient (sqrt has one at 0), and the other way round (a constant has none)."""
    learner = Learner(tiny(digits), digits)
    before = {kind: {n: t.clone() for n, t in tensors.items()} for kind, tensors in learner.state().items()}
    learner.objective = Altered(learner.objective, lambda loss: loss + addend(loss))
    outcome = learner.step()
    assert bool(outcome.terms.loss.isfinite().all()) is loss_is_finite
    assert bool(outcome.grad_norm.isfinite()) is not loss_is_finite
    assert float(outcome.applied) == 0
    after = learner.state()
    assert all(torch.equal(before[kind][name], after[kind][name]) for kind in before for name in before[kind])


def test_held_out_is_the_same_every_time_and_covers_all_levels(digits):
    learner = Learner(tiny(digits, train__held_out_images="40"), digits)
    learner.step()
    first, again = learner.held_out().held_out, learner.held_out().held_out
    assert torch.equal(first.loss, again.loss)
    assert len(first.loss) == 40
    assert summed(first).count == (4,) * 10  # stratified: as many in every tenth of t
    other = Learner(tiny(digits, train__held_out_images="40", train__seed="9"), digits).held_out().held_out
    assert torch.equal(other.t, first.t)  # comparable between runs


def test_held_out_scores_the_average(digits):
    learner = Learner(tiny(digits, optim__lr="0.05", ema__half_life="1000", ema__ramp="none"), digits)
    for _ in range(5):
        learner.step()
    loss = learner.held_out().held_out.loss
    learner.net.load_state_dict(learner.ema.net.state_dict())
    assert torch.equal(learner.held_out().held_out.loss, loss)
    for weight in learner.ema.net.parameters():
        weight.zero_()
    assert not torch.allclose(learner.held_out().held_out.loss, loss)


def test_draw_starts_from_addressed_noise(digits):
    """A fresh network returns 0, so v = 0 and x0 = alpha x_t, eps = sigma x_t: DDIM by hand, clipped."""
    learner = Learner(tiny(digits), digits)
    times = trailing(2, learner.schedule).tolist()
    schedule = learner.schedule
    x = Noise(0, torch.arange(4), (1, 8, 8)).prior().double()
    for t, s in pairwise(times):
        here, there = schedule(t), schedule(s)
        x_0 = (here.alpha * x).clamp(-1, 1)
        x = there.alpha * x_0 + there.sigma * (x - here.alpha * x_0) / here.sigma
    expected = ((x.clamp(-1, 1) + 1) * 127.5).round()
    assert torch.equal(learner.draw(2).double(), expected)
    assert learner.net.training


def test_meter_sums_by_noise_level_and_leaves_out_what_was_skipped(digits):
    learner = Learner(tiny(digits), digits)
    meter, outcomes = Meter(torch.device("cpu")), [learner.step() for _ in range(4)]
    skipped = copy.deepcopy(outcomes[2])
    skipped.terms.loss[0] = math.nan
    skipped.applied.zero_()
    used = [outcomes[0], outcomes[1], outcomes[3]]
    for outcome in (*outcomes[:2], skipped, outcomes[3]):
        meter.add(outcome)
    reading = meter.read()
    losses = torch.cat([o.terms.loss for o in used]).double()
    t = torch.cat([o.terms.t for o in used])
    for i in range(10):
        inside = (t > i / 10) & (t <= (i + 1) / 10)
        assert reading.buckets.count[i] == int(inside.sum())
        assert reading.buckets.total[i] == pytest.approx(float(losses[inside].sum()))
    assert (reading.steps, reading.applied, reading.in_a_row) == (4, 3, 0)
    assert reading.norm == pytest.approx(sum(float(o.grad_norm) for o in used) / 3)
    assert reading.buckets.mean == pytest.approx(float(losses.mean()))
    for _ in range(2):
        meter.add(skipped)
    assert meter.read().in_a_row == 2
    meter.add(skipped)
    assert meter.read().in_a_row == 3
