"""Training, sampling and measuring on an NVIDIA GPU, compared with a CPU."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.variance import Large
from sfumato.edit.invert import invert
from sfumato.evaluate.bits import FlowDensity, SampledBound, WholeBound, measure_bits
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.run.events import Started
from sfumato.run.folder import Run
from sfumato.train.metrics import Meter
from sfumato.train.trainer import Trainer

from .conftest import KINDS, equal, final, go, kind, log_of, tensors, tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
CUDA = torch.device("cuda")
EXACT = {"train__precision": "fp32", "net__dropout": "0"}


@pytest.fixture(autouse=True)
def _float32():
    """Other tests may have allowed TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def deterministic():
    """cuDNN's reproducible kernels."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = before


def test_random_numbers_are_those_of_a_cpu():
    index = torch.tensor([0, 1, 2**40])
    for function, more in ((normal, ((3, 5),)), (uniform, ((7,),))):
        there = function(3, Purpose.TRAIN_NOISE, index.cuda(), *more).cpu()
        assert torch.allclose(there, function(3, Purpose.TRAIN_NOISE, index, *more), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("more", KINDS)
def test_steps_a_held_out_loss_and_a_grid_are_those_of_a_cpu(digits, more):
    config = kind(**more, train__precision="fp32", **({} if "net__kind" in more else {"net__dropout": "0"}))
    here, there = Trainer(config, digits), Trainer(config, digits, CUDA)
    for step in range(1, 7):
        meter = Meter(CUDA)
        expected, found = here.step(), there.step()
        meter.add(found, step)
        assert meter.read().faults == 0
        assert torch.allclose(found.terms.loss.cpu(), expected.terms.loss, rtol=2e-3, atol=1e-4)
    assert there.replayed is None or (there.replayed.recorded and not there.replayed.reason)
    losses, expected = there.held_out().held_out.loss.cpu(), here.held_out().held_out.loss
    assert torch.allclose(losses, expected, rtol=2e-3, atol=1e-3)
    assert (there.sample_grid().float() - here.sample_grid().float()).abs().mean() < 1


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-2", "heun", "edm", "unipc"])
def test_samples_are_those_of_a_cpu(digits, sampler):
    recipe = Recipe(sampler=sampler, steps=4)
    here, there = (Trainer(tiny(**EXACT), digits, device) for device in ("cpu", CUDA))
    expected, found = (
        torch.cat([x for _, x in prepare(trainer.model(), recipe).stream(3, 1)]) for trainer in (here, there)
    )
    assert torch.allclose(found.cpu(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "estimator",
    [SampledBound(Large(), terms=3), WholeBound(torch.linspace(1, 0, 6).double(), Large()), FlowDensity(Large())],
)
def test_bits_are_those_of_a_cpu(digits, estimator):
    images = digits.rows(torch.arange(4))[0]
    here, there = (Trainer(tiny(**EXACT), digits, device).model() for device in ("cpu", CUDA))
    expected = measure_bits(here.denoiser, here.codec, images, estimator)
    found = measure_bits(there.denoiser, there.codec, images, estimator, device=CUDA)
    for name, table in expected.tables.items():
        assert torch.allclose(found.tables[name].cpu(), table, rtol=1e-3, atol=1e-3), name


def test_an_inversion_is_that_of_a_cpu(digits):
    image = digits.rows(torch.arange(1))[0][0]
    here, there = (Trainer(tiny(**EXACT), digits, device).model() for device in ("cpu", CUDA))
    expected, found = (invert(model, image, recipe=Recipe(steps=20)) for model in (here, there))
    assert torch.allclose(found.noise, expected.noise, atol=1e-2)


def test_a_step_in_a_graph_has_the_bits_of_one_that_is_launched_kernel_by_kernel(digits, deterministic):
    plain, graph = (Trainer(tiny(train__graph=text, ema__snapshots="4"), digits, CUDA) for text in ("false", "true"))
    for step in range(12):
        metrics = [trainer.step() for trainer in (plain, graph)]
        assert torch.equal(metrics[0].terms.loss, metrics[1].terms.loss), step
        assert torch.equal(metrics[0].norms, metrics[1].norms), step
    assert graph.replayed.reason == ""
    assert graph.replayed.recorded
    assert equal(tensors(plain), tensors(graph))


def test_a_long_sampling_in_a_graph_has_the_same_bits(digits):
    model = Trainer(tiny(**EXACT), digits, CUDA).model()
    sampling = prepare(model, Recipe(sampler="ddpm", steps=50))
    first = torch.cat([x for _, x in sampling.stream(4, 1, batch=4)])
    assert sampling.denoiser.denoiser.net.recorded
    assert torch.equal(first, torch.cat([x for _, x in sampling.stream(4, 1, batch=4)]))


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_an_interrupted_training_ends_with_the_same_bits(digits, tmp_path, name, deterministic):
    config = tiny(train__precision=name)
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    go(config, whole, digits, device=CUDA)
    go(config, stopped, digits, 16, device=CUDA)  # the first report
    events = go(config, stopped, digits, device=CUDA)
    assert next(event for event in events if isinstance(event, Started)).images == 128
    assert final(stopped) == final(whole)
    assert log_of(stopped) == log_of(whole)


def test_compiled_training_is_near(digits):
    plain, compiled = (Trainer(tiny(train__compile=text, **EXACT), digits, CUDA) for text in ("false", "true"))
    for _ in range(5):
        plain.step()
        compiled.step()
    ours, theirs = tensors(plain), tensors(compiled)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if name.startswith(("raw/", "ema/")):
            assert torch.allclose(tensor, theirs[name], rtol=1e-3, atol=1e-4), name


def test_a_step_does_not_wait_for_the_gpu(digits):
    """What a step computes is read when a report is due."""
    trainer = Trainer(tiny(), digits, CUDA)
    trainer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
