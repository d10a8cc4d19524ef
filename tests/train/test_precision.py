"""Less precision in the network alone, activations computed again, compiled networks."""

from __future__ import annotations

import math
import shutil

import pytest
import torch

from sfumato.errors import UserError
from sfumato.run.events import Skipped, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.train import precision as precisions
from sfumato.train.metrics import Meter
from sfumato.train.precision import LossScale, Precision, resolve_precision, slow_here
from sfumato.train.trainer import Trainer

from .conftest import equal, final, go, log_of, tensors, tiny

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BF16, FP16 = (Precision(name, dtype, False) for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)))


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_training_in_half_precision_is_near_and_its_state_is_float32(digits, name):
    exact, half = Trainer(tiny(), digits), Trainer(tiny(train__precision=name), digits)
    losses = []
    for trainer in (exact, half):
        meter = Meter(CPU)
        for step in range(20):
            meter.add(trainer.step(), step)
        losses.append(meter.read().buckets.mean)
    # the first step of float16 may be spent on finding the loss scale
    assert losses[1] == pytest.approx(losses[0], rel=0.02 if name == "bf16" else 0.05)
    assert not equal(tensors(exact), tensors(half))
    kinds = {tensor.dtype for tensor in tensors(half).values() if tensor.is_floating_point()}
    assert kinds <= {torch.float32, torch.float64}


def test_the_loss_the_noise_and_the_times_are_not_cast(digits, monkeypatch):
    seen = {}
    trainer = Trainer(tiny(train__precision="bf16"), digits)
    losses = type(trainer.objective).losses

    def watched(self, prediction, noised):
        seen.update(prediction=prediction.x0.dtype, x_t=noised.x_t.dtype, eps=noised.eps.dtype, t=noised.t.dtype)
        return losses(self, prediction, noised)

    monkeypatch.setattr(type(trainer.objective), "losses", watched)
    terms = trainer.step().terms
    assert seen == {"prediction": torch.float32, "x_t": torch.float32, "eps": torch.float32, "t": torch.float64}
    assert terms.loss.dtype == torch.float32


def test_a_loss_scale_that_is_too_great_halves_and_is_no_fault(digits, run, monkeypatch):
    """Float16's greatest number is 65504, so the first steps overflow; none of them is reported as a fault."""
    monkeypatch.setattr(LossScale, "first", 2.0**22)
    events = go(tiny(train__precision="fp16"), run, digits)
    steps = [event for event in events if isinstance(event, Stepped)]
    assert 0 < len(steps) < 20
    assert not [event for event in events if isinstance(event, Skipped)]


def test_the_loss_scale_follows_what_overflows():
    scale, one, zero = LossScale(FP16, CPU), torch.ones(()), torch.zeros(())
    assert float(scale.scaled(one)) == 2.0**16
    gradient = [torch.full((3,), 2.0**16)]
    scale.unscale(gradient)
    assert gradient[0].tolist() == [1.0] * 3
    assert float(scale.update(zero)) == 1
    assert float(scale.scale) == 2.0**15
    for _ in range(LossScale.longest):
        assert float(scale.update(one)) == 0
    assert float(scale.scale) == 2.0**16
    scale.scale.fill_(1.0)
    assert float(scale.update(zero)) == 0  # a fault: there is nothing left to halve
    assert float(scale.scale) == 1.0
    assert LossScale(BF16, CPU).state() == {}


def test_the_loss_scale_is_saved_and_a_training_in_float16_resumes_bit_for_bit(digits, tmp_path):
    config, whole, cut = tiny(train__precision="fp16"), Run(tmp_path / "whole"), Run(tmp_path / "cut")
    go(config, whole, digits)
    go(config, cut, digits, 7)
    go(config, cut, digits)
    assert final(whole) == final(cut)
    ours, theirs = ([line for line in log_of(run) if line["event"] != "warned"] for run in (whole, cut))
    assert ours == theirs


@pytest.mark.parametrize(
    ("capability", "name"), [((9, 0), "bf16"), ((8, 6), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp16"), ((6, 1), "fp32")]
)
def test_auto_takes_what_the_card_has(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    products, kernels = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        found = resolve_precision("auto", CUDA)
        assert (found.name, found.tf32) == (name, capability >= (8, 0))
        assert torch.backends.cudnn.allow_tf32 is found.tf32
        assert not resolve_precision("fp32", CUDA).tf32
        if capability < (8, 0):
            with pytest.raises(UserError, match="tf32, which cuda does not have"):
                resolve_precision("tf32", CUDA)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, kernels


def test_other_devices_compute_in_float32():
    for device in (CPU, torch.device("mps")):
        assert resolve_precision("auto", device).name == "fp32"
    with pytest.raises(UserError, match="on mps only fp32"):
        resolve_precision("bf16", torch.device("mps"))


def test_a_processor_without_units_for_half_precision_is_reported(digits, run, monkeypatch):
    monkeypatch.setattr(precisions, "_processor_flags", lambda: {"flags", "avx2"})
    assert slow_here(BF16, CPU).startswith("this processor has no units for bf16")
    assert slow_here(resolve_precision("fp32", CPU), CPU) == slow_here(BF16, CUDA) == ""
    events = go(tiny(train__precision="bf16", train__images="8"), run, digits)
    assert [event.message for event in events if isinstance(event, Warned)] == [slow_here(BF16, CPU)]
    monkeypatch.setattr(precisions, "_processor_flags", lambda: {"flags", "amx_bf16"})
    assert slow_here(BF16, CPU) == ""


def test_recomputed_activations_change_nothing(digits, tmp_path):
    kept, again = Run(tmp_path / "kept"), Run(tmp_path / "again")
    go(tiny(train__images="40"), kept, digits)
    go(tiny(train__images="40", train__recompute="true", train__micro="3"), again, digits)
    part = Run(tmp_path / "part")
    go(tiny(train__images="40", train__micro="3"), part, digits)
    ours, theirs = ({name: bytes_[-4000:] for name, bytes_ in final(each).items()} for each in (again, part))
    assert ours == theirs
    assert equal(weights(kept), weights(kept))


def weights(run: Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.weights_file("raw"))


def test_as_many_images_at_once_as_fit(digits, monkeypatch):
    """A device that has room for three: parts of two, and the result of a training in such parts."""
    losses = Trainer._losses

    def tight(self, examples):
        if len(examples.positions) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(self, examples)

    expected, trainer = Trainer(tiny(train__micro="2"), digits), Trainer(tiny(), digits)
    before = tensors(trainer)
    monkeypatch.setattr(Trainer, "_losses", tight)
    trainer.fit_memory()
    assert trainer.shares.micro == 2
    assert "2 images at once fit into memory" in next(trainer.warnings())
    assert equal(before, tensors(trainer))
    for each in (expected, trainer):
        each.step()
    assert equal(tensors(expected), tensors(trainer))

    def full(self, examples):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_losses", full)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit_memory()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_trains_within_1e_4(digits, tmp_path):
    plain, compiled = Run(tmp_path / "plain"), Run(tmp_path / "compiled")
    smooth = {"optim__name": "adamw", "optim__lr": "1e-4"}
    go(tiny(**smooth), plain, digits)
    go(tiny(train__compile="true", **smooth), compiled, digits)
    ours, theirs = weights(plain), weights(compiled)
    assert ours.keys() == theirs.keys()
    apart = math.sqrt(sum(float((ours[name] - theirs[name]).square().sum()) for name in ours))
    assert apart < 1e-4 * math.sqrt(sum(float(each.square().sum()) for each in ours.values()))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["auto", "bf16", "fp16", "tf32", "fp32"])
def test_a_gpu_trains_in_every_precision(digits, name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    trainer, meter = Trainer(tiny(train__precision=name), digits, "cuda"), Meter(CUDA)
    for step in range(20):
        meter.add(trainer.step(), step)
    totals = meter.read()
    assert totals.faults == 0
    assert math.isfinite(totals.buckets.mean)
