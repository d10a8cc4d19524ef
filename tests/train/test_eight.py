"""AdamW with moments of eight bits, against AdamW, with the real library; and the refusal without it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from sfumato.cli.main import main
from sfumato.config.train import OptimConfig
from sfumato.errors import UserError
from sfumato.nets import Interface, Network
from sfumato.run.folder import Run
from sfumato.train.eight import check_eight
from sfumato.train.forecast import forecast
from sfumato.train.optim import Optimizer
from sfumato.train.trainer import Trainer

from ..ranks.jobs import results
from .conftest import final, go, log_of, tiny

ONE, ZERO, CPU = torch.ones(()), torch.zeros(()), torch.device("cpu")
EIGHT = {"optim__name": "adamw8bit", "optim__lr": "1e-3", "net__base": "24", "net__groups": "4"}


class Net(Network):
    """A weight of 9,216 entries, in the layout of images, and small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.interface = Interface()
        self.inner = nn.Conv2d(32, 32, 3)

    def forward(self, x, time, condition=None, augment=None):
        return self.inner(x)

    def summary(self) -> str:
        return "for a test"


def net() -> Net:
    torch.manual_seed(0)
    return Net().to(memory_format=torch.channels_last)


def with_gradient(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        scales = torch.logspace(-3, 0, len(weight)).reshape(-1, *[1] * (weight.ndim - 1))
        weight.grad = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator) * scales)


def test_without_the_library_it_is_refused_before_anything_is_written(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(UserError, match=r"needs bitsandbytes.*pip install 'sfumato\[8bit\]', or set optim.name=adamw"):
        go(tiny(**EIGHT), Run(tmp_path / "run"), digits)
    assert not (tmp_path / "run" / "config.toml").exists()
    with pytest.raises(UserError, match=r"not on mps: set optim\.name=adamw"):
        check_eight("adamw8bit", torch.device("mps"))
    for name in ("adam", "adamw", "muon"):
        check_eight(name, torch.device("mps"))


def test_moments_take_a_quarter_of_the_memory_that_is_planned(digits, tmp_path):
    plain, eight = (
        forecast(tiny(**{**EIGHT, "optim__name": name}), digits, tmp_path / "run", seconds=0)
        for name in ("adamw", "adamw8bit")
    )
    assert plain.state_bytes - eight.state_bytes == 6 * plain.parameters
    assert plain.run_bytes - eight.run_bytes == 18 * plain.parameters


def test_updates_are_nearly_those_of_adamw():
    """Ten steps on gradients of three orders of magnitude: within 5 % of what AdamW does; small tensors exactly."""
    pytest.importorskip("bitsandbytes")
    modules = [net(), net()]
    start = modules[0].inner.weight.detach().clone()
    optimizers = [
        Optimizer(OptimConfig(name=name, weight_decay=0.1), module)
        for name, module in zip(("adamw", "adamw8bit"), modules, strict=True)
    ]
    for k in range(10):
        for module, optimizer in zip(modules, optimizers, strict=True):
            with_gradient(module, k)
            optimizer.step(1e-2, ONE)
    exact, eight = (module.inner.weight.detach() - start for module in modules)
    assert 0 < float((exact - eight).norm()) < 0.05 * float(exact.norm())
    assert torch.equal(modules[0].inner.bias, modules[1].inner.bias)
    state = optimizers[1].state()
    assert {key for key, tensor in state.items() if tensor.dtype == torch.uint8} == {
        f"code{k}/inner.weight" for k in (1, 2)
    }
    assert sum(tensor.nbytes for key, tensor in state.items() if "inner.weight" in key) < 2.04 * start.numel()


def test_a_skipped_step_changes_no_weight_and_no_moment():
    pytest.importorskip("bitsandbytes")
    module = net()
    optimizer = Optimizer(OptimConfig(name="adamw8bit"), module)
    with_gradient(module, 0)
    optimizer.step(1e-2, ONE)
    before = {**{f"w/{n}": p for n, p in module.named_parameters()}, **optimizer.state()}
    before = {name: tensor.detach().clone() for name, tensor in before.items()}
    with_gradient(module, 1)
    module.inner.weight.grad[0, 0, 0, 0] = float("nan")
    optimizer.step(1e-2, ZERO)
    after = {**{f"w/{n}": p for n, p in module.named_parameters()}, **optimizer.state()}
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"steps8"}
    with_gradient(module, 2)
    optimizer.step(1e-2, ONE)
    assert bool(module.inner.weight.isfinite().all())
    assert not torch.equal(module.inner.weight, before["w/inner.weight"])


def test_a_run_resumes_with_the_same_bits_and_in_other_numbers_of_processes(digits, tmp_path):
    pytest.importorskip("bitsandbytes")
    config = tiny(train__images="64", **EIGHT)
    alone, resumed, both = (Run(tmp_path / name) for name in ("alone", "resumed", "both"))
    go(config, alone, digits)
    for steps in (2, 5, None):
        go(config, resumed, digits, steps)
    assert final(alone) == final(resumed)
    assert log_of(alone) == log_of(resumed)
    go(config, both, digits, 4)
    results(2, lambda world: len(go(config, both, digits, world=world)), tmp_path / "job")
    assert Trainer(config, digits).optimizer.state().keys() >= {"steps8"}
    assert both.list_checkpoints()[0].name == alone.list_checkpoints()[0].name


def test_the_command_line_trains_with_it(tmp_path, capsys):
    pytest.importorskip("bitsandbytes")
    small = ["--net.base", "24", "--net.groups", "4", "--net.blocks", "1"]
    words = ["train", "digits", "--optim.name", "adamw8bit", "--images", "32", "--train.batch", "16", *small]
    assert main([*words, "--run", str(tmp_path / "run"), "--train.grids", "0", "--device", "cpu", "--json"]) == 0
    assert capsys.readouterr().err == ""
