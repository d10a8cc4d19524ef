"""Training and sampling on an Apple GPU, emulated: no float64 and no 64-bit integer arithmetic on it."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion.noise import Purpose, normal
from sfumato.diffusion.variance import Large
from sfumato.errors import UserError
from sfumato.evaluate.bits import FlowDensity, SampledBound, WholeBound, measure_bits
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.train.metrics import Meter
from sfumato.train.trainer import Trainer

from ..apple import MPS, Apple, Refused
from .conftest import KINDS, kind, tiny


def test_the_emulation_refuses_what_the_device_can_not_do():
    with Apple():
        x = torch.arange(4.0).to("mps")
        assert x.device.type == "mps"
        assert (x + 1).device.type == "mps"
        assert (x + torch.tensor(2.0)).cpu().device.type == "cpu"
        index = torch.tensor([1, 2]).to("mps")
        assert x[index].tolist() == [1.0, 2.0]
        with pytest.raises(Refused, match="float64"):
            x.double()
        with pytest.raises(Refused, match="float64"):
            torch.zeros(2, dtype=torch.float64, device="mps")
        with pytest.raises(Refused, match="64-bit integers"):
            index * 3
        with pytest.raises(Refused, match="on mps and on the CPU"):
            x + torch.arange(4.0)


@pytest.mark.parametrize("more", KINDS)
def test_a_training_step_a_held_out_loss_and_a_grid(digits, more):
    config = kind(**more)
    trainer = Trainer(config, digits)
    with Apple():
        on_gpu = Trainer(config, digits, MPS)
        assert on_gpu.ema.net.exit.bias.device.type == "mps" if hasattr(on_gpu.ema.net.exit, "bias") else True
        meter = Meter(MPS)
        for step in (1, 2):
            meter.add(on_gpu.step(), step)
        totals = meter.read()
        losses = on_gpu.held_out().held_out.loss.cpu()
        pictures = on_gpu.sample_grid()
    for _ in range(2):
        trainer.step()
    assert totals.applied == 2
    assert torch.allclose(losses, trainer.held_out().held_out.loss, rtol=1e-3, atol=1e-4)
    assert pictures.shape == (4, 1, 8, 8)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-2", "heun", "edm", "unipc"])
def test_samples_are_those_of_a_cpu(digits, sampler):
    recipe, config = Recipe(sampler=sampler, steps=4), tiny()
    trainer = Trainer(config, digits)
    expected = torch.cat([x for _, x in prepare(trainer.model(), recipe).stream(3, 1)])
    with Apple():
        on_gpu = Trainer(config, digits, MPS)
        found = torch.cat([x for _, x in prepare(on_gpu.model(), recipe).stream(3, 1)])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "estimator", [SampledBound(Large(), terms=3), WholeBound(torch.linspace(1, 0, 6).double(), Large())]
)
def test_bits_are_those_of_a_cpu(digits, estimator):
    trainer, images = Trainer(tiny(), digits), digits.rows(torch.arange(4))[0]
    model = trainer.model()
    expected = measure_bits(model.denoiser, model.codec, images, estimator)
    with Apple():
        model = Trainer(tiny(), digits, MPS).model()
        found = measure_bits(model.denoiser, model.codec, images, estimator, device=MPS)
        with pytest.raises(UserError, match="flow is solved in float64"):
            measure_bits(model.denoiser, model.codec, images, FlowDensity(Large()), device=MPS)
    for name, table in expected.tables.items():
        assert torch.allclose(found.tables[name], table, rtol=1e-3, atol=1e-4), name


def test_noise_is_computed_on_the_cpu_and_moved():
    index = torch.arange(3)
    with Apple():
        z = normal(1, Purpose.PRIOR, index.to("mps"), (4,))
        assert z.device.type == "mps"
        z = z.cpu()
    assert torch.equal(z, normal(1, Purpose.PRIOR, index, (4,)))


@pytest.mark.parametrize("more", [{}, {"augment__p": "0.5"}, {"optim__name": "muon", "data__flip": "true"}])
def test_a_step_reads_nothing_back_from_the_device(digits, more):
    """What a step computes is read when a report is due: reading makes Python wait for a GPU."""
    with Apple() as apple:
        trainer, meter = Trainer(tiny(**more), digits, MPS), Meter(MPS)
        meter.add(trainer.step(), 1)
        before = apple.rules.reads
        meter.add(trainer.step(), 2)
        assert apple.rules.reads == before
        meter.read()
        assert apple.rules.reads > before
