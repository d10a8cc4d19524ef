"""Weights that are divided over the ranks (`train.shard`): the training, and the run folder, of one process."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.distributed.fsdp  # before processes are forked: it takes seconds
from torch import nn

from sfumato.errors import UserError
from sfumato.ranks import World
from sfumato.run.folder import Run
from sfumato.train.follow import follow
from sfumato.train.shards import Shards
from sfumato.train.trainer import Trainer

from ..ranks.jobs import CPU, results
from .conftest import final, go, tensors, tiny
from .test_ranks import SMOOTH, distance, exact_state, logs_agree, trained

SHARDED = {"train__shard": "true"}


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (2, {"optim__name": "muon", "train__recompute": "true", "ema__snapshots": "4"}),
        pytest.param(4, {"optim__name": "adamw", "train__micro": "2"}, marks=pytest.mark.slow),
        pytest.param(4, {"optim__name": "muon"}, marks=pytest.mark.slow),
    ],
)
def test_steps_with_divided_weights_are_those_of_one_process(digits, tmp_path, size, options):
    """Weights, averages and moments in float64; of four ranks some have no row of a weight of five or six."""
    config = tiny(train__batch="16", train__images="3200", net__base="6", augment__p="0.3", **options)
    divided = tiny(train__batch="16", train__images="3200", net__base="6", augment__p="0.3", **options, **SHARDED)
    (alone,) = results(1, partial(exact_state, config=config, digits=digits, steps=10), tmp_path / "alone")
    many, *_ = results(size, partial(exact_state, config=divided, digits=digits, steps=10), tmp_path / "many")
    assert alone.keys() == many.keys()
    for name, tensor in alone.items():
        if name.startswith("optim/watch/"):  # no held-out loss was taken
            continue
        assert tensor.shape == many[name].shape
        apart = float((tensor.double() - many[name].double()).norm())
        assert apart <= 1e-9 * float(tensor.double().norm()), name
    assert float(alone["raw/exit.weight"].norm()) > 0


def test_a_run_goes_on_with_divided_weights_in_any_number_of_processes(digits, tmp_path):
    options = {"train__batch": "12", "train__images": "84", "data__flip": "true", "ema__snapshots": "4"} | SMOOTH
    whole, divided = tiny(**options), tiny(**options, **SHARDED)
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    go(whole, alone, digits)
    trained(3, divided, run, digits, tmp_path / "a", steps=2)
    go(divided, run, digits, 4)
    trained(2, divided, run, digits, tmp_path / "b")
    assert distance(alone, run) < 1e-6
    assert final(alone).keys() == final(run).keys()
    logs_agree(alone, run)


def test_a_rank_keeps_its_part_of_weights_moments_and_average(digits, tmp_path):
    """Bytes that a rank of four keeps: a quarter, but for what does not divide by four."""

    def kept(world: World, config) -> tuple[int, int]:
        if not world.main:
            follow(world, CPU, digits)
            return 0, 0
        trainer = Trainer(config, digits, CPU, world)
        trainer.step()
        parts = trainer._parts()
        weights = sum(p.numel() for p in trainer.shards.weights.values())
        return weights, sum(t.numel() for named in parts.values() for name, t in named.items())

    (alone,) = results(1, partial(kept, config=tiny(net__base="16")), tmp_path / "1")
    (many, *_) = results(4, partial(kept, config=tiny(net__base="16", **SHARDED)), tmp_path / "4")
    for whole, part in zip(alone, many, strict=True):
        assert part < 0.27 * whole


@pytest.mark.slow
def test_weights_to_begin_with_are_divided_too(digits, tmp_path, whole):
    """And a held-out loss, grids, and values that change on the way."""
    run, alone = Run(tmp_path / "run"), Run(tmp_path / "alone")
    options = {"train__images": "48"} | SMOOTH
    go(tiny(**options), alone, digits, init=whole.path)
    config = tiny(**options, **SHARDED)
    results(2, lambda world: len(go(config, run, digits, world=world, init=whole.path)), tmp_path / "job")
    assert distance(alone, run) < 1e-6
    logs_agree(alone, run)


def test_what_can_not_be_divided_is_refused(digits):
    two = World(0, 2)
    for options, message in (
        ({"train__batch": "7"}, r"can't share 7 images a step in equal parts: set --train\.batch=6 or 8"),
        ({"train__batch": "8", "train__compile": "true"}, r"train\.shard and train\.compile can't be combined"),
    ):
        with pytest.raises(UserError, match=message):
            Trainer(tiny(**options, **SHARDED), digits, CPU, two)


def test_one_process_divides_nothing(digits):
    plain, divided = (Trainer(tiny(**more), digits) for more in ({}, SHARDED))
    for trainer in (plain, divided):
        trainer.step()
    ours, theirs = tensors(plain), tensors(divided)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_rows_are_those_of_torch(tmp_path):
    """Weights of one to nine rows over four ranks, as `fully_shard` divides them."""

    def act(world: World) -> bool:
        net = nn.Sequential(*[nn.Linear(3, rows) for rows in range(1, 10)])
        for weight in net.parameters():
            nn.init.constant_(weight, 0)
            with torch.no_grad():
                weight += torch.arange(float(len(weight))).reshape(-1, *[1] * (weight.ndim - 1))
        net.recomputable = list
        whole = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        shards = Shards(net, world, on=True)
        assert all(torch.equal(whole[name][shards.here(name)], rows) for name, rows in shards.weights.items())
        gathered = shards.gathered({f"exp_avg/{name}": rows for name, rows in shards.weights.items()})
        list(() if world.main else world.orders())
        return all(torch.equal(gathered[f"exp_avg/{name}"], weight) for name, weight in whole.items())

    assert results(4, act, tmp_path) == [True] * 4
