"""Every objective, parameterisation and variance trains, resumes bit for bit, samples, and is scored."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from sfumato.diffusion import PARAMETERIZATIONS, Ancestral, Noise, Terms, sample, trailing, vlb
from sfumato.errors import UserError
from sfumato.model import load
from sfumato.run.events import Finished, HeldOut, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.train import train
from sfumato.train.trainer import Trainer
from sfumato.train.validation import HeldOutLosses

from .conftest import tiny

PAIRS = [
    ("simple", "small"),
    ("simple", "large"),
    ("hybrid", "learned"),
    ("vlb", "small"),
    ("vlb", "large"),
    ("vlb", "learned"),
]


@pytest.mark.parametrize(("objective", "variance"), PAIRS)
@pytest.mark.parametrize("predicts", PARAMETERIZATIONS)
def test_every_combination_trains_samples_and_is_scored(digits, objective, variance, predicts) -> None:
    given = {
        "diffusion__objective": objective,
        "diffusion__variance": variance,
        "diffusion__parameterization": predicts,
        "diffusion__schedule__num_steps": "50",
    }
    trainer = Trainer(tiny(**given), digits)
    before = trainer.held_out().held_out.loss.mean()
    for _ in range(12):
        metrics = trainer.step()
        assert bool(metrics.applied)
    assert bool(metrics.terms.loss.isfinite().all())
    assert float(trainer.held_out().held_out.loss.mean()) < float(before)
    rule = trainer.config.diffusion.build_variance()
    denoiser = trainer.model().denoiser
    drawn = sample(denoiser, Ancestral(rule), trailing(7, denoiser.schedule), Noise(0, torch.arange(2), digits.shape))
    assert bool(drawn.isfinite().all())
    x_0 = trainer.encode(digits.rows(torch.arange(2))[0])
    scored = vlb(denoiser, x_0, trailing(7, denoiser.schedule), Noise(0, torch.arange(2), digits.shape), rule)
    assert bool(scored.total.isfinite().all())


@pytest.mark.parametrize("kind", ["min-snr", "p2", "sigmoid", "edm"])
def test_weighted_losses_train(digits, kind) -> None:
    trainer = Trainer(tiny(diffusion__weighting__kind=kind), digits)
    before = trainer.held_out().held_out.loss.mean()
    for _ in range(12):
        trainer.step()
    assert float(trainer.held_out().held_out.loss.mean()) < float(before)


@pytest.mark.parametrize("given", [{"diffusion__weighting__kind": "min-snr"}, {"diffusion__loss_space": "eps"}])
def test_a_loss_without_gradient_at_pure_noise_is_a_warning(digits, tmp_path, given) -> None:
    given = {"diffusion__zero_terminal_snr": "true", "train__images": "8", **given}
    warnings = [e.message for e in train(tiny(**given), Run(tmp_path / "run"), digits) if isinstance(e, Warned)]
    assert any("no gradient at t = 1" in message for message in warnings)
    given = {**given, "diffusion__zero_terminal_snr": "false"}
    assert not list(Trainer(tiny(**given), digits).warnings())
    assert not list(Trainer(tiny(diffusion__zero_terminal_snr="true"), digits).warnings())


IMPORTANCE = {
    "diffusion__objective": "vlb",
    "diffusion__variance": "learned",
    "diffusion__timesteps__kind": "importance",
    "diffusion__schedule__num_steps": "4",  # ten losses at each t come quickly
    "train__grid_steps": "4",
}
GRIDS_OF_FOUR = {"train__grid_steps": "4"}
MUON = {"optim__name": "muon", "diffusion__timesteps__kind": "logit-normal", "diffusion__parameterization": "x0"}


@pytest.mark.parametrize("given", [IMPORTANCE, MUON], ids=["importance", "muon"])
def test_all_of_the_state_resumes_bit_for_bit(digits, tmp_path, given) -> None:
    """A loss history and Muon's momenta are part of the state: 20 steps are 10 and 10."""
    config = tiny(**given)
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    list(train(config, whole, digits))
    events = train(config, broken, digits)
    for event in events:
        if isinstance(event, Stepped) and event.step == 10:
            break
    events.close()
    assert isinstance(list(train(config, broken, digits))[-1], Finished)
    for name in ("raw", "ema"):
        paths = (run.path / "weights" / f"{name}.safetensors" for run in (whole, broken))
        assert next(paths).read_bytes() == next(paths).read_bytes()


def test_importance_sampling_learns_where_losses_are_great(digits) -> None:
    trainer = Trainer(tiny(**IMPORTANCE), digits)
    for _ in range(20):
        trainer.step()
    assert float(trainer.history.probabilities.max()) > 0.3


def test_the_history_keeps_losses_without_their_weights(digits) -> None:
    """Weighted by 1 / (T p_t) they would be even, and importance sampling would undo itself."""
    trainer = Trainer(tiny(**IMPORTANCE), digits)
    while trainer.history is None or float(trainer.history.probabilities.max()) < 0.3:
        trainer.step()
    before, terms = trainer.history, trainer.step().terms
    weights = 1 / (4 * before.probabilities[(4 * terms.t).round().long() - 1])
    assert float(weights.max()) > 1.2
    unweighted = before.update(Terms(terms.loss / weights, terms.t))
    torch.testing.assert_close(trainer.history.losses, unweighted.losses, rtol=1e-5, atol=0)
    assert torch.equal(trainer.history.seen, unweighted.seen)


def test_the_best_weights_are_kept(digits, run) -> None:
    events = [e for e in train(tiny(train__held_outs="4"), run, digits) if isinstance(e, HeldOut)]
    best = min(events, key=lambda event: event.loss)
    model = load(run, "best")
    assert model.images == best.images
    assert best.best
    assert [e.best for e in events] == [e.loss == min(x.loss for x in events[: i + 1]) for i, e in enumerate(events)]
    assert all(e.bound.mean > 0 and e.train > 0 for e in events)


def test_the_best_weights_stay_where_the_loss_rises(digits, run, monkeypatch) -> None:
    losses, measured = iter([1.0, 0.5, 0.9, 0.8, 0.7]), Trainer.held_out

    def held_out(trainer: Trainer) -> HeldOutLosses:
        found, loss = measured(trainer), next(losses)
        return replace(found, held_out=Terms(torch.full_like(found.held_out.loss, loss), found.held_out.t))

    monkeypatch.setattr(Trainer, "held_out", held_out)
    events = [e for e in train(tiny(train__held_outs="4"), run, digits) if isinstance(e, HeldOut)]
    assert [event.best for event in events] == [True, True, False, False, False]
    assert load(run, "best").images == events[1].images


@pytest.mark.parametrize("objective", ["hybrid", "vlb"])
def test_times_that_are_not_uniform_have_weights_in_a_bound(digits, objective) -> None:
    """1 / (T p_t), the mean of which over many times is one; in the simple loss the distribution is the weighting."""
    given = {"diffusion__timesteps__kind": "logit-normal", "diffusion__schedule__num_steps": "5", **GRIDS_OF_FOUR}
    config = tiny(**given, diffusion__objective=objective, diffusion__variance="learned")
    u = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t, weights = Trainer(config, digits)._sample_timesteps(u)
    p = config.diffusion.timesteps.probabilities(config.diffusion.build_schedule())
    torch.testing.assert_close(weights, 1 / (5 * p[(5 * t).round().long() - 1]))
    assert float(weights.mean()) == pytest.approx(1, abs=0.1)
    assert Trainer(tiny(**given), digits)._sample_timesteps(u)[1] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"diffusion__variance": "learned"}, "not trained by the simple loss"),
        ({"diffusion__objective": "hybrid"}, "set variance = learned"),
        ({"diffusion__objective": "vlb", "diffusion__weighting__kind": "p2"}, "leave out weighting"),
        ({"diffusion__weighting__kind": "p2", "diffusion__loss_space": "x0"}, "leave out loss_space"),
    ],
)
def test_combinations_without_effect_are_refused(digits, given, said) -> None:
    with pytest.raises(UserError, match=said):
        tiny(**given)


def test_there_are_all_pairs() -> None:
    """Simple can't teach a variance and hybrid needs one; every other pair is above."""
    every = set(itertools.product(("simple", "hybrid", "vlb"), ("small", "large", "learned")))
    assert every - set(PAIRS) == {("simple", "learned"), ("hybrid", "small"), ("hybrid", "large")}


def test_a_reported_loss_is_unbiased_under_importance_sampling(digits) -> None:
    """Reported losses are weighted: their mean estimates the same bound whether t is uniform or not."""
    given = {
        "diffusion__objective": "vlb",
        "diffusion__schedule__num_steps": "4",
        "optim__lr": "1e-9",
        "train__batch": "32",
        "train__grid_steps": "4",
    }
    means = {}
    for kind in ("importance", "logit-normal", "log-normal", "uniform"):
        trainer = Trainer(tiny(**given, diffusion__timesteps__kind=kind), digits)
        losses = [trainer.step().terms.loss.double() for _ in range(60)]
        means[kind] = torch.stack(losses[20:]).flatten()  # the history is full by then
    error = sum(float(v.var()) / len(v) for v in means.values()) ** 0.5
    for kind in ("importance", "logit-normal", "log-normal"):
        assert abs(float(means[kind].mean() - means["uniform"].mean())) < 4 * error
    assert float(means["importance"].var()) < float(means["uniform"].var())
