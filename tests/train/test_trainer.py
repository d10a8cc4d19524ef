"""One step against Algorithm 1 written out, and what random keys promise: any batch, the same step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.data import Dataset
from sfumato.diffusion import Eps, V
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.train.metrics import Meter, by_level
from sfumato.train.parallel import seeded
from sfumato.train.trainer import Trainer

from .conftest import Altered, equal, tensors, tiny


@pytest.mark.parametrize(("space", "build"), [("eps", Eps), ("v", V)])
def test_a_step_is_algorithm_1(digits, space, build):
    """The same images, times and noise through DDPM Eq. 4 and 14 by hand give the same loss and the same gradient."""
    given = {"diffusion__parameterization": space, "diffusion__timesteps__kind": "uniform"}
    config = tiny(**given, net__dropout="0", optim__clip="none")
    trainer = Trainer(config, digits)
    trainer.step()  # away from the zero output of fresh weights
    net, start = copy.deepcopy(trainer.net), trainer.images
    metrics = trainer.step()

    positions = torch.arange(start, start + 8)
    batch = digits.batch(positions, 0)
    x_0 = 2 * batch.x.float() / 255 - 1
    u = uniform(0, Purpose.TRAIN_TIME, positions)
    i = (u * 50).floor() + 1  # t ~ Uniform{1 .. T}
    eps = normal(0, Purpose.TRAIN_NOISE, positions, (1, 8, 8))
    abar = config.diffusion.schedule(i / 50).alpha.square()[:, None, None, None]
    x_t = (abar.sqrt() * x_0 + (1 - abar).sqrt() * eps).float()
    wanted = {"eps": eps, "v": (abar.sqrt() * eps - (1 - abar).sqrt() * x_0).float()}[space]
    table = batch.condition.table.clone()
    table[uniform(0, Purpose.LABEL_DROPOUT, positions) < 0.1] = math.nan
    loss = functional.mse_loss(net(x_t, (i - 1).float(), Attributes(table)), wanted, reduction="none")
    loss = loss.flatten(1).mean(1)
    gradient = torch.autograd.grad(loss.mean(), list(net.parameters()), allow_unused=True)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradient if g is not None))

    assert torch.allclose(metrics.terms.t, i / 50)
    assert torch.allclose(metrics.terms.loss, loss, rtol=1e-4, atol=1e-6)
    assert float(metrics.grad_norm) == pytest.approx(norm, rel=1e-3)
    assert float(metrics.applied) == 1


def test_an_example_does_not_depend_on_its_batch(digits):
    """Positions 0..15 in one batch or in two: the same times, and at equal weights the same losses."""
    one = Trainer(tiny(train__batch="16", net__dropout="0"), digits).step().terms
    halves = Trainer(tiny(net__dropout="0", optim__lr="1e-30"), digits)  # a rate that moves no weight
    parts = [halves.step().terms, halves.step().terms]
    assert torch.equal(one.t, torch.cat([part.t for part in parts]))
    assert torch.allclose(one.loss, torch.cat([part.loss for part in parts]), rtol=1e-4)


def test_two_trainers_of_one_seed_are_the_same_and_of_two_are_not(digits):
    a, b = Trainer(tiny(), digits), Trainer(tiny(), digits)
    assert equal(tensors(a), tensors(b))
    torch.manual_seed(123)  # the global generator does not matter
    a.step()
    torch.rand(7)
    b.step()
    assert equal(tensors(a), tensors(b))
    assert not equal(tensors(a), tensors(Trainer(tiny(train__seed="1"), digits)))


def test_dropout_differs_between_steps_and_not_between_runs(digits):
    def mask(step: int) -> torch.Tensor:
        with seeded(0, Purpose.DROPOUT, step, torch.device("cpu")):
            return functional.dropout(torch.ones(64), 0.5)

    assert torch.equal(mask(3), mask(3))
    assert not torch.equal(mask(3), mask(4))

    def seeds() -> list[int]:
        """Torch's seed while each of three steps runs its network."""
        trainer, seen = Trainer(tiny(), digits), []

        def watched(loss: torch.Tensor) -> torch.Tensor:
            seen.append(torch.initial_seed())
            return loss

        trainer.objective = Altered(trainer.objective, watched)
        for _ in range(3):
            trainer.step()
        return seen

    assert seeds() == seeds()
    assert len(set(seeds())) == 3
    quiet, noisy = (Trainer(tiny(net__dropout=p), digits) for p in ("0", "0.5"))
    for _ in range(3):
        quiet.step()
        noisy.step()
    assert not equal(tensors(quiet), tensors(noisy))


def test_the_global_generator_is_put_back(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer = Trainer(tiny(), digits)
    trainer.step()
    trainer.sample_grid(2)
    trainer.held_out()
    assert torch.equal(torch.rand(3), expected)


def test_the_rate_is_that_of_the_images_seen_before_the_step(digits):
    trainer = Trainer(tiny(optim__lr="1", optim__warmup="0", optim__decay="cosine"), digits)
    rates = [trainer.step().lr for _ in range(3)]
    assert rates == pytest.approx([(1 + math.cos(math.pi * k / 20)) / 2 for k in range(3)])


def test_labels_are_dropped_by_position(digits):
    trainer = Trainer(tiny(train__label_dropout="0.25"), digits)
    positions, condition = torch.arange(20_000), Attributes(torch.full((20_000, 1), 7.0))
    shown = trainer.dropped(condition, positions).table
    fraction = shown.isnan().double().mean().item()
    assert fraction == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 20_000))
    assert set(shown[~shown.isnan()].tolist()) == {7}
    again = trainer.dropped(condition.take(positions[500:]), positions[500:]).table
    assert torch.equal(again.nan_to_num(-1), shown[500:].nan_to_num(-1))
    unlabelled = replace(digits, vocabulary=None, conditions=None)
    other = Trainer(tiny(data__labels="none"), unlabelled)
    assert other.dropped(None, positions) is other.grid_condition() is None
    other.step()


def test_a_grid_shows_every_value_in_turn(digits):
    trainer = Trainer(tiny(train__grid_images="12"), digits)
    assert trainer.grid_condition().table[:, 0].tolist() == [*range(10), 0, 1]
    table, ink = digits.conditions.table, Attribute("ink", mean=1.0, std=2.0)
    words = AttributeVocabulary((*digits.attributes, ink))
    both = replace(digits, vocabulary=words, conditions=Attributes(torch.cat([table, table / 10], 1)))
    shown = Trainer(tiny(train__grid_images="12"), both).grid_condition()
    assert words.describe(shown)[8:] == ["class=8", "class=9", "ink=-1", "ink=1"]
    # a network that always saw both can't be asked for one
    shown = Trainer(tiny(train__grid_images="12", train__label_dropout="0"), both).grid_condition()
    assert torch.equal(shown.table, both.conditions.table[both.train[:12]])


@pytest.mark.parametrize(
    ("change", "loss_is_finite", "gradient_is_finite"),
    [
        (lambda loss: loss * torch.where(torch.arange(len(loss)) == 3, math.nan, 1.0), False, False),
        (lambda loss: loss * torch.where(torch.arange(len(loss)) == 3, math.inf, 1.0), False, False),
        (lambda loss: loss + (loss * 0).sqrt(), True, False),  # a square root has an infinite gradient at 0
        (lambda loss: loss + torch.full_like(loss, math.inf), False, True),  # and a constant has none
    ],
)
def test_a_step_that_is_not_finite_leaves_no_trace(digits, change, loss_is_finite, gradient_is_finite):
    trainer = Trainer(tiny(), digits)
    trainer.step()
    before, objective = tensors(trainer), trainer.objective
    trainer.objective = Altered(objective, change)
    metrics = trainer.step()
    assert bool(metrics.terms.loss.isfinite().all()) is loss_is_finite
    assert bool(metrics.grad_norm.isfinite()) is gradient_is_finite
    assert float(metrics.applied) == 0
    assert equal(tensors(trainer), before)
    trainer.objective = objective
    assert float(trainer.step().applied) == 1


def test_held_out_losses_are_the_same_every_time_and_cover_all_levels(digits):
    trainer = Trainer(tiny(train__held_out_images="40"), digits)
    trainer.step()
    first, again = trainer.held_out().held_out, trainer.held_out().held_out
    assert torch.equal(first.loss, again.loss)
    assert len(first.loss) == 40
    assert by_level(first).count == (4,) * 10  # stratified: as many in every tenth of t
    other = Trainer(tiny(train__held_out_images="40", train__seed="9"), digits).held_out().held_out
    assert torch.equal(other.t, first.t)  # comparable between runs
    assert Trainer(tiny(train__held_out_images="0"), digits).held_out() is None


def test_held_out_losses_are_of_the_average(digits):
    trainer = Trainer(tiny(optim__lr="0.05", ema__half_life="1000", ema__ramp="none"), digits)
    for _ in range(5):
        trainer.step()
    loss = trainer.held_out().held_out.loss
    trainer.net.load_state_dict(trainer.ema.net.state_dict())
    assert torch.equal(trainer.held_out().held_out.loss, loss)
    for weight in trainer.ema.net.parameters():
        weight.zero_()
    assert not torch.allclose(trainer.held_out().held_out.loss, loss)


@pytest.mark.parametrize(("kind", "seed"), [("ema", 0), ("raw", 3)])
def test_a_grid_is_what_the_default_recipe_samples(digits, kind, seed):
    """The same images as `sample` of the trainer's model, and the network trains on afterwards."""
    trainer = Trainer(tiny(train__grid_steps="none", train__seed=str(seed)), digits)
    for _ in range(3):
        trainer.step()
    model = trainer.model(kind)
    model.net.eval()
    images = sample(model, 4, Recipe(), seed=seed, condition=trainer.grid_condition())
    trainer.net.train()
    assert torch.equal(trainer.sample_grid(kind=kind), model.codec.shown(images))
    assert trainer.grid_steps == Recipe().resolve(model).steps
    assert trainer.net.training
    assert not trainer.ema.net.training


def test_a_meter_sums_by_noise_level_and_leaves_out_what_was_skipped(digits):
    trainer = Trainer(tiny(), digits)
    meter, steps = Meter(torch.device("cpu")), [trainer.step() for _ in range(4)]
    skipped = copy.deepcopy(steps[2])
    skipped.terms.loss[0] = math.nan
    skipped.applied.zero_()
    used = [steps[0], steps[1], steps[3]]
    for metrics in (*steps[:2], skipped, steps[3]):
        meter.add(metrics)
    sums = meter.read()
    losses = torch.cat([metrics.terms.loss for metrics in used]).double()
    t = torch.cat([metrics.terms.t for metrics in used])
    for i in range(10):
        inside = (t > i / 10) & (t <= (i + 1) / 10)
        assert sums.buckets.count[i] == int(inside.sum())
        assert sums.buckets.total[i] == pytest.approx(float(losses[inside].sum()))
    assert (sums.steps, sums.applied, sums.in_a_row) == (4, 3, 0)
    assert sums.grad_norm == pytest.approx(sum(float(metrics.grad_norm) for metrics in used) / 3)
    assert sums.buckets.mean == pytest.approx(float(losses.mean()))
    meter.add(steps[0])
    assert meter.read().grad_norm == pytest.approx(float(steps[0].grad_norm)), "each reading is of its own steps"
    for in_a_row in (2, 3):
        for _ in range(2 if in_a_row == 2 else 1):
            meter.add(skipped)
        assert meter.read().in_a_row == in_a_row


def in_format(data: Dataset, form: PixelFormat) -> Dataset:
    """The same images in another pixel format, their values those that mean the same to the network."""
    x = EIGHT.to_model(torch.from_numpy(np.array(data.images)))
    return replace(data, images=form.from_model(x).numpy(), format=form)


@pytest.mark.parametrize("form", [SIXTEEN, PixelFormat("float", -300.0, 100.0)], ids=lambda form: form.kind)
def test_the_same_images_teach_the_same_in_every_format(digits: Dataset, form: PixelFormat) -> None:
    """257 k of 16 bits is what k is of 8: under the simple loss not even the rounding differs by much."""
    losses = []
    for data in (digits, in_format(digits, form)):
        trainer = Trainer(tiny(train__images="80"), data)
        losses.append([float(trainer.step().terms.loss.mean()) for _ in range(3)])
        held_out = trainer.held_out()
        assert held_out is not None
        losses[-1].append(float(held_out.held_out.loss.mean()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("objective", ["vlb", "hybrid"])
def test_the_bound_counts_the_datas_own_levels(digits: Dataset, objective: str) -> None:
    config = tiny(diffusion__variance="learned", diffusion__objective=objective)
    for form in (EIGHT, SIXTEEN, PixelFormat("float", 0.0, 1.0)):
        trainer = Trainer(config, in_format(digits, form))
        found = trainer.objective
        assert getattr(found, "bound", found).decoder == trainer.codec.decoder
        assert getattr(trainer.codec.decoder, "levels", None) == form.levels
