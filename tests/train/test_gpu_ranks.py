"""Ranks, precisions and memory on NVIDIA GPUs: what goes through NCCL on one card, and on two where there are two.

What a CPU can do too is done there as well, through gloo, in fewer steps.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from sfumato.ranks import Place, World
from sfumato.ranks.join import joined
from sfumato.run.folder import Run
from sfumato.train.trainer import Trainer

from ..cli.test_processes import are_gone, children, start, torchrun, wait_for_steps, weights
from ..cli.test_processes import train as words_for
from ..ranks.jobs import CPU, free_port
from .conftest import equal, tensors, tiny

CUDA = torch.device("cuda", 0)
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
COUNT = torch.cuda.device_count() if torch.cuda.is_available() else 0
both = pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=GPU)], ids=["cpu", "cuda"])
gpu = pytest.mark.parametrize("device", [pytest.param(CUDA, marks=GPU)], ids=["cuda"])
SMOOTH = {"optim__name": "adamw", "optim__lr": "1e-4", "train__precision": "fp32", "train__graph": "false"}
NEAR = 2e-5
"""Relative distance that rounding may reach in 20 steps of `SMOOTH`; a step of a wrong gradient is a thousand times as
far."""


@pytest.fixture
def one(device, monkeypatch):
    """A job of one rank that is treated as one of several, so that everything goes through the process group."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(World, "alone", property(lambda self: self._watch is None))
    with joined(Place(0, 1, 0, "127.0.0.1", free_port(), "a test"), device) as world:
        assert not world.alone
        yield world


def trained(digits, device, steps=None, world=World(), **more) -> Trainer:
    """A trainer after some steps; 20 on a GPU, 3 on a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    trainer = Trainer(tiny(train__batch="16", **more), digits, device, world)
    for _ in range(steps or (20 if device.type == "cuda" else 3)):
        metrics = trainer.step()
    assert bool(metrics.terms.loss.isfinite().all())
    return trainer


def apart(a: Trainer, b: Trainer) -> float:
    """The relative distance of all weights and averages."""
    ours, theirs = ({n: t.double() for n, t in tensors(x).items() if n.startswith(("raw/", "ema/"))} for x in (a, b))
    assert ours.keys() == theirs.keys()
    difference = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    return (difference / sum(float(tensor.square().sum()) for tensor in theirs.values())) ** 0.5


@both
@pytest.mark.parametrize(
    "more", [{}, {"train__micro": "5"}, {"train__recompute": "true"}, {"ema__snapshots": "4"}], ids=str
)
def test_gradients_that_go_through_the_process_group_are_those_without(digits, device, one, more):
    assert apart(trained(digits, device, world=one, **SMOOTH, **more), trained(digits, device, **SMOOTH)) < NEAR


@both
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_divided_weights_are_those_without(digits, device, one, optimizer):
    options = SMOOTH | {"optim__name": optimizer, "train__recompute": "true"}
    divided, plain = (trained(digits, device, world=w, train__shard="true", **options) for w in (one, World()))
    assert apart(divided, plain) < (NEAR if optimizer == "adamw" else 1e-3)


@both
def test_divided_weights_in_half_precision(digits, device, one):
    options = SMOOTH | {"train__precision": "bf16", "train__recompute": "true"}
    divided = trained(digits, device, world=one, train__shard="true", **options)
    assert apart(divided, trained(digits, device, **options)) < 1e-3
    assert all(tensor.dtype != torch.bfloat16 for tensor in tensors(divided).values())


@both
def test_a_state_that_ranks_share_resumes(digits, device, one):
    """What is gathered, broadcast and copied back has its bits, on the device and on the processor."""
    options = SMOOTH | {"diffusion__timesteps__kind": "importance", "ema__snapshots": "4"}
    for more in ({}, {"train__shard": "true"}):
        trainer = trained(digits, device, 3, world=one, **options, **more)
        before = {name: {key: t.cpu().clone() for key, t in part.items()} for name, part in trainer.state().items()}
        again = Trainer(trainer.config, digits, device, one)
        again.load(before, trainer.images)
        assert equal(tensors(again), tensors(trainer))
        assert again.held_out() is not None
        assert again.sample_grid().shape == trainer.sample_grid().shape


@both
def test_in_half_precision_it_is_near(digits, device):
    half = trained(digits, device, **SMOOTH | {"train__precision": "bf16"})
    assert 0 < apart(half, trained(digits, device, **SMOOTH)) < 1e-3


@both
def test_a_loss_scale_that_overflows_is_halved_and_is_no_fault(digits, device):
    options = SMOOTH | {"train__precision": "fp16"}
    trainer = trained(digits, device, **options)
    trainer.scale.scale.fill_(2.0**24)
    skipped = 0
    for _ in range(12):
        metrics = trainer.step()
        skipped += int(metrics.applied.item() == 0)
        assert metrics.applied.item() or metrics.forgiven.item()
    assert trainer.scale.scale.item() == 2.0 ** (24 - skipped)
    state = {kind: {name: t.cpu().clone() for name, t in part.items()} for kind, part in trainer.state().items()}
    again = Trainer(trainer.config, digits, device)
    again.load(state, trainer.images)
    assert again.scale.scale.item() == trainer.scale.scale.item()
    losses = [each.step().terms.loss.mean().item() for each in (trainer, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@both
def test_moments_of_eight_bits_are_near(digits, device):
    pytest.importorskip("bitsandbytes")
    options = SMOOTH | {"net__base": "24", "net__groups": "4"}
    eight = trained(digits, device, **options | {"optim__name": "adamw8bit"})
    assert 0 < apart(eight, trained(digits, device, **options)) < 1e-3
    assert any(tensor.dtype == torch.uint8 for tensor in eight.state()["optim"].values())


@gpu
def test_memory_is_saved(digits, device):
    """Peak of two steps: less with recomputed activations, and with half precision."""

    def peak(**more: str) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        wide = {
            "net__base": "128",
            "net__groups": "8",
            "net__blocks": "3",
            "train__micro": "256",
            "train__batch": "256",
        }
        trainer = Trainer(tiny(**SMOOTH | wide | more), digits, device)
        trainer.step()
        trainer.step()
        return torch.cuda.max_memory_allocated()

    plain = peak()
    assert peak(train__recompute="true") < 0.8 * plain
    assert peak(train__precision="bf16") < 0.9 * plain


@gpu
def test_as_many_images_at_once_as_fit(digits, device):
    """700 MiB are left: the gradient is taken of fewer images at once, and the step is that of all."""
    torch.cuda.empty_cache()
    total, held = torch.cuda.get_device_properties(0).total_memory, torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (held + 700 * 2**20) / total))
    wide = {"net__base": "128", "net__groups": "8", "net__blocks": "3", "train__batch": "2048"}
    try:
        trainer = Trainer(tiny(**SMOOTH | wide), digits, device)
        assert trainer.shares.micro < 2048
        assert any("images at once" in text for text in trainer.warnings())
        assert bool(trainer.step().terms.loss.isfinite().all())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# --- the command


ONE_GPU = pytest.mark.skipif(COUNT != 1, reason="for a machine with one GPU")
TWO_GPUS = pytest.mark.skipif(COUNT < 2, reason="needs two GPUs")
CALM = ("--device", "cuda", "--train.precision", "fp32", "--optim.name", "adamw", "--optim.lr", "1e-4")


@pytest.mark.gpu
@ONE_GPU
def test_two_processes_need_two_gpus(tmp_path):
    for words in (
        [*words_for(tmp_path / "run", 80, *CALM), "--processes", "2"],
        [*torchrun("--standalone", "--nproc-per-node", "2"), *words_for(tmp_path / "run", 80, *CALM)],
    ):
        process = start(words, tmp_path)
        _, errors = process.communicate(timeout=120)
        assert process.returncode != 0
        said = [line for line in errors.splitlines() if line.startswith("sfumato: ")]
        assert len(said) == 1
        assert "this machine has 1 GPUs" in said[0] or "ranks 0 and 1 have the same GPU" in said[0]


@pytest.mark.gpu
@TWO_GPUS
@pytest.mark.parametrize("more", [(), ("--train.shard", "true"), ("--train.compile", "true")], ids=str)
def test_two_gpus_train_as_one(tmp_path, more):
    runs = tmp_path / "one", tmp_path / "two"
    for run, processes in zip(runs, ("1", "auto"), strict=True):
        process = start(words_for(run, 160, *CALM, "--processes", processes, *more), tmp_path)
        assert process.wait(300) == 0, process.communicate()[1]
    ours, theirs = weights(runs[0]), weights(runs[1])
    difference = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    assert difference**0.5 < 1e-4 * sum(float(tensor.square().sum()) for tensor in theirs.values()) ** 0.5


@pytest.mark.gpu
@TWO_GPUS
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named_and_the_job_resumes(tmp_path, rank):
    """A rank that waits for NCCL in a kernel can't be woken by an exception: the watch ends it."""
    run = tmp_path / "run"
    process = start(words_for(run, 800_000, *CALM, "--processes", "2", "--train.save_every", "1"), tmp_path)
    wait_for_steps(run, 16)
    ranks, begun = children(process.pid), time.monotonic()
    os.kill(ranks[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 45
    assert process.returncode == 2
    assert f"rank {rank} (process {ranks[rank]}" in errors
    assert are_gone(ranks)
    saved = int(Run(run).list_checkpoints()[0].name)
    process = start(["sfumato", "train", str(run), "--device", "cuda", "--processes", "2"], tmp_path)
    wait_for_steps(run, saved // 8 + 16)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
