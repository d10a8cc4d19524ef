"""Compiling for drawing: which batches, and the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels
from sfumato.config.config import Config
from sfumato.config.presets import resolve
from sfumato.diffusion import DDIM, Clipped, Noise, sample, trailing
from sfumato.errors import UserError
from sfumato.generate import compiled as module
from sfumato.generate.compiled import Compiled, compiled
from sfumato.model import Model, load, save

TINY = {"net.base": "8", "net.groups": "4", "net.multipliers": "1,2", "net.blocks": "1"}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    config: Config = resolve("small8", overrides=TINY)
    torch.manual_seed(0)
    net = config.net.build(config.interface(1))
    for parameter in net.parameters():  # the last convolution starts at zero, which would hide everything
        torch.nn.init.normal_(parameter, std=0.2)
    save(tmp_path / "a.safetensors", net.state_dict(), config, Pixels(EIGHT, (1, 8, 8)))
    return load(tmp_path / "a.safetensors")


def test_only_the_sizes_that_were_said_are_compiled() -> None:
    ran: list[tuple[str, int]] = []

    def net(name: str) -> object:
        return lambda x, time, condition=None: ran.append((name, len(x))) or x

    both = Compiled(net("eager"), net("fast"), frozenset({4, 8}))  # type: ignore[arg-type]
    with torch.no_grad():
        for size in (4, 8, 3):
            both(torch.zeros(size, 1, 8, 8), torch.zeros(size))
    both(torch.zeros(4, 1, 8, 8), torch.zeros(4))  # gradients are wanted: frozen code has none
    assert ran == [("fast", 4), ("fast", 8), ("eager", 3), ("eager", 4)]


def test_a_machine_that_cannot_compile_is_told_in_one_line(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no C compiler"), [])

    monkeypatch.setattr(module.torch, "compile", lambda net, **options: broken)
    with torch.no_grad(), pytest.raises(UserError, match="leave --compile out"):
        compiled(model, 2).denoiser(torch.zeros(2, 1, 8, 8), 0.5)


@pytest.mark.slow
def test_compiled_images_are_the_same_within_1e_4(model: Model) -> None:
    noise, times = Noise(0, torch.arange(4), model.shape), trailing(8, model.denoiser.schedule)
    eager, fast = (sample(Clipped(m.denoiser), DDIM(), times, noise) for m in (model, compiled(model, 4)))
    assert float(eager.std()) > 0.05
    assert float((eager - fast).abs().max()) < 1e-4
