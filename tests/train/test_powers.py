"""Averages by power functions: the profile, the products in closed form, and reconstruction against direct tracking."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.errors import UserError
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.train import checkpoint
from sfumato.train.powers import LENGTHS, PowerAverages, Profile, gamma_of, interval, length_of, product, solve
from sfumato.train.snapshots import average
from sfumato.train.trainer import Trainer

from .conftest import final, go, tiny

BUILT = {"ema__snapshots": "16", "train__grids": "0", "train__held_outs": "0", "optim__lr": "0.01"}


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.2886751, 0.0)])
def test_lengths_and_exponents_are_those_of_the_paper(length: float, gamma: float) -> None:
    assert gamma_of(length) == pytest.approx(gamma, abs=5e-3)
    assert length_of(gamma_of(length)) == pytest.approx(length)


@pytest.mark.parametrize("gamma", [0.5, 6.94, 16.97])
def test_the_length_is_the_standard_deviation_of_the_profile(gamma: float) -> None:
    tau = (np.arange(200_000) + 0.5) / 200_000
    p = (gamma + 1) * tau**gamma
    mean = (p * tau).mean()
    assert math.sqrt((p * (tau - mean) ** 2).mean()) == pytest.approx(length_of(gamma), rel=1e-4)


def test_tracking_weighs_each_step_by_its_unit_of_time() -> None:
    """The average of step numbers as weights: sum_j j ((j/t)^(g + 1) - ((j - 1)/t)^(g + 1))."""
    net = nn.Linear(1, 1, bias=False)
    averages = PowerAverages(net)
    for step in range(1, 301):
        net.weight.data.fill_(float(step))
        averages.update(averages.rates(step), torch.ones(()))
    j = np.arange(1, 301)
    for length in LENGTHS:
        power = gamma_of(length) + 1
        expected = float((j * ((j / 300) ** power - ((j - 1) / 300) ** power)).sum())
        assert averages.state()[f"power/{length:g}/weight"].item() == pytest.approx(expected, rel=1e-6)


def test_a_skipped_step_changes_nothing() -> None:
    net = nn.Linear(3, 2)
    averages = PowerAverages(net)
    averages.update(averages.rates(1), torch.ones(()))
    before = {name: tensor.clone() for name, tensor in averages.state().items()}
    net.weight.data.mul_(2)
    averages.update(averages.rates(2), torch.zeros(()))
    assert all(torch.equal(before[name], tensor) for name, tensor in averages.state().items())


@pytest.mark.parametrize(("a", "b"), [((6.94, 100), (16.97, 300)), ((16.97, 100), (6.94, 300)), ((2.0, 80), (2.0, 80))])
def test_products_are_those_of_numerical_integration(a: tuple[float, int], b: tuple[float, int]) -> None:
    tau = (np.arange(3_000_000) + 0.5) / 10_000
    p, q = (np.where(tau <= t, (g + 1) / t * (np.minimum(tau, t) / t) ** g, 0.0) for g, t in (a, b))
    expected = float((p * q).sum() / 10_000)
    assert product(Profile(*a), Profile(*b)) == pytest.approx(expected, rel=1e-4)
    assert product(Profile(*b), Profile(*a)) == pytest.approx(expected, rel=1e-4)


def test_a_tracked_profile_is_found_again() -> None:
    profiles = [Profile(gamma_of(length), step) for step in (64, 128, 192) for length in LENGTHS]
    factors, error = solve(profiles, profiles[-1])
    assert error < 1e-6
    assert factors.tolist() == pytest.approx([0, 0, 0, 0, 0, 1], abs=1e-5)


@pytest.mark.parametrize("most", [4, 16, 32])
def test_snapshots_are_bounded_and_evenly_spaced(most: int) -> None:
    kept: set[int] = set()
    for step in range(1, 20_001):
        every = interval(step, most)
        if step % every == 0:
            kept = {k for k in kept if k % every == 0} | {step}
            assert kept == set(range(every, step + 1, every))
        assert len(kept) <= most
        assert step < 16 * most or len(kept) >= most // 2


@pytest.fixture(scope="module")
def tracked(digits, tmp_path_factory) -> tuple[Run, dict[float, dict[str, torch.Tensor]]]:
    """A run of 300 steps with snapshots, and averages of other lengths that were tracked directly, at 200 and 300."""
    lengths = (0.03, 0.05, 0.07, 0.10, 0.15, 0.20)
    run, found = Run(tmp_path_factory.mktemp("powers") / "run"), {}
    apply, direct = Trainer._apply, []

    def tracking(self, *arguments):
        if not direct:
            direct.append(PowerAverages(self.net, lengths))
        metrics = apply(self, *arguments)
        direct[0].update(direct[0].rates(self.images // 8 + 1), metrics.applied)
        if self.images // 8 + 1 in (200, 300):
            found[self.images // 8 + 1] = {name: t.clone() for name, t in direct[0].state().items()}
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_apply", tracking)
        many = BUILT | {"ema__snapshots": "32"}
        go(tiny(train__images="2400", train__keep="1600", **many), run, digits)
    return run, found


def error_of(source: str, direct: dict[str, torch.Tensor], length: float) -> float:
    """The distance of a reconstructed average from the tracked one, over the latter's distance from the weights."""
    found, raw = average(source, length).state, load(source, "raw").net.state_dict()
    prefix = f"power/{length:g}/"
    wanted = {name.removeprefix(prefix): t for name, t in direct.items() if name.startswith(prefix)}
    off = sum(float((found[name] - t).square().sum()) for name, t in wanted.items())
    return math.sqrt(off / sum(float((raw[name] - t).square().sum()) for name, t in wanted.items()))


@pytest.mark.parametrize(
    ("length", "most"),
    [(0.03, 1e-1), (0.05, 1e-4), (0.07, 5e-3), (0.10, 1e-4), (0.15, 1e-2), (0.20, 4e-2)],
)
def test_a_reconstructed_average_is_the_one_that_was_tracked(length: float, most: float, tracked) -> None:
    run, found = tracked
    assert error_of(str(run.path), found[300], length) < most, "19 states"
    assert error_of(f"{run.path}@1600", found[200], length) < 2 * most, "13 states"


def test_the_averages_change_no_bits_of_the_training_and_resume_with_their_own(digits, tmp_path) -> None:
    plain, whole, cut = (Run(tmp_path / name) for name in ("plain", "whole", "cut"))
    config = tiny(train__images="400", **BUILT)
    go(tiny(train__images="400", **(BUILT | {"ema__snapshots": "0"})), plain, digits)
    go(config, whole, digits)
    go(config, cut, digits, 20)
    go(config, cut, digits, 33)
    go(config, cut, digits)
    assert final(cut) == final(whole)
    files = sorted(path.name for path in whole.averages.iterdir())
    assert files == [f"{images:012d}.safetensors" for images in (128, 256, 384)]
    assert all((cut.averages / name).read_bytes() == (whole.averages / name).read_bytes() for name in files)
    one, other = load(plain, "raw").net.state_dict(), load(whole, "raw").net.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_snapshots_after_the_checkpoint_are_dropped_and_damaged_ones_left_out(digits, tmp_path) -> None:
    run, config = Run(tmp_path / "run"), tiny(train__images="400", train__keep="every 80", **BUILT)
    go(config, run, digits)
    good = average(run, 0.08)
    assert good.snapshots == 4
    (run.averages / f"{128:012d}.safetensors").write_bytes(b"rot")
    assert average(run, 0.08).snapshots == 3
    for folder in run.list_checkpoints():
        if int(folder.name) > 240:
            (folder / checkpoint.MANIFEST).unlink()
    run.finished_path.unlink()
    events = go(config, run, digits, 31)
    assert events[0].resumed_at == 240
    assert [int(path.stem) for path in sorted(run.averages.iterdir())] == [128]


@pytest.mark.parametrize("length", [0.0, 0.3, -1.0])
def test_a_length_out_of_reach_is_refused(length: float, tracked) -> None:
    with pytest.raises(UserError, match=r"give one above 0, at most 0\.25"):
        average(tracked[0], length)


def test_a_run_without_snapshots_is_refused(whole: Run) -> None:
    with pytest.raises(UserError, match=r"train with --ema.snapshots 32"):
        average(whole, 0.05)
