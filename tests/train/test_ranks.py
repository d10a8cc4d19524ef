"""Trainings in several processes: the result of one process, whatever their number."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from sfumato.config.data import DataConfig
from sfumato.data.store import builders, parts
from sfumato.diffusion import noise
from sfumato.errors import UserError
from sfumato.nets.dropout import dropout, part_of_batch
from sfumato.ranks import World
from sfumato.run.events import Skipped
from sfumato.run.folder import Run
from sfumato.train import trainer as training
from sfumato.train.follow import follow, open_together
from sfumato.train.lineage import branch
from sfumato.train.trainer import Trainer

from ..ranks.jobs import CPU, Job, results
from .conftest import final, go, log_of, tensors, tiny

SMOOTH = {"optim__name": "adamw", "optim__lr": "1e-4"}
"""In float32 the rounding of sums is magnified from step to step, at small rates little."""
CONFIG = tiny(augment__p="0.3", train__batch="12", train__images="144", data__flip="true", **SMOOTH)


def distance(a: Run, b: Run) -> float:
    """The greatest relative distance of the weights, the average and the best average of two runs."""
    from safetensors.torch import load_file

    found = []
    for kind in ("raw", "ema", "best"):
        one, other = (load_file(run.weights_file(kind)) for run in (a, b))
        apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one) ** 0.5
        found.append(apart / sum(float(tensor.double().square().sum()) for tensor in one.values()) ** 0.5)
    return max(found)


def trained(size: int, config, run: Run, digits, folder, steps: int | None = None) -> None:
    results(size, lambda world: len(go(config, run, digits, steps, world=world)), folder)


def logs_agree(a: Run, b: Run) -> None:
    """The same events in the same order, with the same numbers up to rounding."""
    for one, other in zip(log_of(a), log_of(b), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=1e-4)
            elif key not in ("buckets", "bound"):
                assert other[key] == value


def test_two_processes_train_as_one_and_resume_as_one_or_two(digits, tmp_path):
    alone, both = Run(tmp_path / "alone"), Run(tmp_path / "both")
    go(CONFIG, alone, digits)
    trained(2, CONFIG, both, digits, tmp_path / "a", steps=5)
    go(CONFIG, both, digits, 8)
    trained(2, CONFIG, both, digits, tmp_path / "b")
    assert distance(alone, both) < 1e-6
    logs_agree(alone, both)


def exact_state(world: World, config, digits, steps: int) -> dict[str, torch.Tensor] | None:
    """The state after some steps that are taken in float64, where rounding hides no mistake."""
    torch.set_default_dtype(torch.float64)
    training.normal = partial(noise.normal, dtype=torch.float64)
    encode = Trainer.encode
    Trainer.encode = lambda self, values: encode(self, values).double()
    if not world.main:
        follow(world, CPU, digits)
        return None
    trainer = Trainer(config, digits, CPU, world)
    for _ in range(steps):
        trainer.step()
    return tensors(trainer)


@pytest.mark.parametrize(
    ("size", "optimizer", "steps"),
    [
        (2, "muon", 10),
        *(pytest.param(size, name, 200, marks=pytest.mark.slow) for size in (2, 4) for name in ("adamw", "muon")),
    ],
)
def test_steps_are_the_same_in_any_number_of_processes(digits, tmp_path, size, optimizer, steps):
    """Weights, average and moments after 200 steps, in float64."""
    config = tiny(train__batch="14", train__images="3200", optim__name=optimizer, data__flip="true", augment__p="0.3")
    act = partial(exact_state, config=config, digits=digits, steps=steps)
    (alone,), (many, *_) = results(1, act, tmp_path / "alone"), results(size, act, tmp_path / "many")
    assert alone.keys() == many.keys()
    for name, tensor in alone.items():
        if name.startswith("optim/watch/"):  # no held-out loss was taken
            continue
        apart = float((tensor.double() - many[name].double()).norm())
        assert apart <= 1e-6 * float(tensor.double().norm()), name
    assert float(alone["raw/exit.weight"].norm()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_two_hundred_steps_in_float32_differ_by_rounding(digits, tmp_path, size):
    config = tiny(train__batch="16", train__images="3200", data__flip="true", **SMOOTH)
    alone, many = Run(tmp_path / "alone"), Run(tmp_path / "many")
    go(config, alone, digits)
    trained(size, config, many, digits, tmp_path / "job")
    assert distance(alone, many) < 1e-6
    logs_agree(alone, many)


def inputs_of_two_steps(world: World, config, digits) -> list[dict[str, torch.Tensor]]:
    """What the objective is given in two steps, by name, and the noise of dropout."""
    given = []
    original = training.training_loss

    def watched(objective, denoiser, x_0, t, eps, condition):
        mask = dropout(torch.ones(len(x_0), 5), 0.5, True)
        given.append({"x_0": x_0, "t": t, "eps": eps, "labels": condition.table.nan_to_num(-1), "mask": mask})
        return original(objective, denoiser, x_0, t, eps, condition)

    training.training_loss = watched
    try:
        if world.main:
            trainer = Trainer(config, digits, CPU, world)
            trainer.step()
            trainer.step()
        else:
            follow(world, CPU, digits)
    finally:
        training.training_loss = original
    return given


def test_every_image_has_the_same_noise_time_label_and_mask_in_any_process(digits, tmp_path):
    (whole,) = results(1, partial(inputs_of_two_steps, config=CONFIG, digits=digits), tmp_path / "1")
    small = replace(CONFIG, train=replace(CONFIG.train, micro=2))
    for size, config in ((2, CONFIG), (4, small), (1, small)):
        act = partial(inputs_of_two_steps, config=config, digits=digits)
        found = results(size, act, tmp_path / f"{size}{config.train.micro}")
        per_step = len(found[0]) // 2
        for step in range(2):
            for name, expected in whole[step].items():
                parts = [given[name] for rank in found for given in rank[step * per_step : (step + 1) * per_step]]
                assert torch.equal(torch.cat(parts), expected), (size, name)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 5, 7)])
@pytest.mark.parametrize("strided", [False, True])
def test_a_part_of_a_batch_has_its_rows_of_the_mask(shape, strided):
    x = torch.randn(shape)
    if strided:
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.transpose(1, 2).contiguous()
    torch.manual_seed(1)
    whole = functional.dropout(x, 0.3, True)
    for first, last in ((0, 2), (2, 6), (0, 6)):
        torch.manual_seed(1)
        with part_of_batch(first, 6):
            assert torch.equal(dropout(x[first:last], 0.3, True), whole[first:last])
            assert torch.equal(dropout(x[first:last], 0.3, False), x[first:last])


@pytest.mark.parametrize("micro", [1, 5, 8])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(digits, tmp_path, micro):
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    go(tiny(**SMOOTH), whole, digits, 10)
    go(tiny(train__micro=str(micro), **SMOOTH), parts, digits, 10)
    assert distance(whole, parts) < 1e-6
    assert (final(whole)["weights/raw.safetensors"] == final(parts)["weights/raw.safetensors"]) is False or micro == 8


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all(digits, tmp_path, monkeypatch):
    losses = Trainer._losses

    def poisoned(self, examples):
        """NaN for the last image of the second and third batch."""
        bad = torch.isin(examples.positions, torch.tensor([23, 35]))
        return losses(self, examples) * torch.where(bad, math.nan, 1.0)

    def act(world):
        return [event for event in go(CONFIG, run, digits, world=world) if isinstance(event, Skipped)]

    monkeypatch.setattr(Trainer, "_losses", poisoned)
    run, alone = Run(tmp_path / "run"), Run(tmp_path / "alone")
    skipped, _ = results(2, act, tmp_path / "job")
    assert [(event.images, event.in_a_row) for event in skipped] == [(24, 1), (36, 2)]
    go(CONFIG, alone, digits)
    assert distance(alone, run) < 1e-6


def test_importance_sampling_sees_the_losses_of_all_ranks(digits, tmp_path):
    config = tiny(diffusion__timesteps__kind="importance", train__images="80", **SMOOTH)
    alone, both = Run(tmp_path / "alone"), Run(tmp_path / "both")
    go(config, alone, digits)
    trained(2, config, both, digits, tmp_path / "job")
    assert distance(alone, both) < 1e-6


def test_weights_to_begin_with_branches_and_changed_values_are_those_of_one_process(digits, whole, tmp_path):
    """`--init`, then another rate from a checkpoint on, then a branch, each in two processes."""
    options = {"train__images": "48", "train__keep": "24", **SMOOTH}
    first, slower = tiny(**options), tiny(**options | {"optim__lr": "3e-5"})
    alone, both = Run(tmp_path / "alone"), Run(tmp_path / "both")
    go(first, alone, digits, 3, init=whole.path)
    go(slower, alone, digits)
    results(2, lambda world: len(go(first, both, digits, 3, world=world, init=whole.path)), tmp_path / "a")
    trained(2, slower, both, digits, tmp_path / "b")
    assert distance(alone, both) < 1e-6
    logs_agree(alone, both)
    assert [line["event"] for line in log_of(both)].count("initialised") == 1
    assert [line["event"] for line in log_of(both)].count("changed") == 1
    for run in (alone, both):
        low = Run(tmp_path / f"{run.path.name}-low")
        branch(f"{run.path}@24", low)
        config = low.config()
        config = replace(config, optim=replace(config.optim, lr=1e-5))
        trained(2 if run is both else 1, config, low, digits, tmp_path / f"{run.path.name}-job")
    assert distance(Run(tmp_path / "alone-low"), Run(tmp_path / "both-low")) < 1e-6


def test_more_processes_than_images_are_refused(digits, tmp_path):
    with pytest.raises(UserError, match=r"can't share 1 images a step: set --train\.batch=2"):
        Trainer(tiny(train__batch="1"), digits, CPU, World(0, 2))


def test_a_rank_with_other_images_is_named(digits, tmp_path):
    def act(world):
        own = digits if world.main else replace(digits, held_out=digits.held_out[1:])
        return go(CONFIG, Run(tmp_path / "run"), own, 2, world=world)

    job = Job(2, act, tmp_path / "job")
    assert job.codes() == [2, 2]
    assert "the images of digits are not the same here as at rank 0" in job.result()[0]


def test_ranks_read_images_together(tmp_path, monkeypatch):
    """Each has cores of its own, and waits for the others as long as they take."""
    folder, left = tmp_path / "set", []
    folder.mkdir()
    for k in range(300):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{k:03}.png")
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SFUMATO_WORKERS", "1")
    monkeypatch.setattr(parts, "PART", 20)
    monkeypatch.setattr(builders, "_crew", lambda: f"crew-{os.getpid()}")
    leave = parts.Parts.leave
    monkeypatch.setattr(parts.Parts, "leave", lambda self, *part: (left.append(part[0]), leave(self, *part)))

    def act(world):
        if world.main:
            images = len(open_together(DataConfig(str(folder)), world, lambda done, total: time.sleep(0.003)).images)
            return images, len(left)
        follow(world, CPU)
        return 300, len(left)

    found = results(3, act, tmp_path / "job")
    assert [images for images, _ in found] == [300] * 3
    assert sum(count for _, count in found) >= 3
    assert len(list((tmp_path / "cache").glob("store/*/*"))) == 1
