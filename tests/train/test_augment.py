"""The network is told how its images were altered, and nothing of it leaks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.augment import KINDS, NUMBERS, AugmentConfig
from sfumato.config.config import from_dict, to_dict
from sfumato.config.presets import resolve
from sfumato.data.augment import augment, draw
from sfumato.diffusion import Guided, NetworkDenoiser, V, marginal
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.schedule import Cosine
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.nets import Interface
from sfumato.nets.unet.unet import UNet, UNetConfig
from sfumato.run.folder import Run
from sfumato.train.trainer import Trainer

from .conftest import equal, final, go, tiny


def pictures(num: int = 3) -> torch.Tensor:
    return torch.randn(num, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def row(**columns: float) -> torch.Tensor:
    names = ("xflip", "yflip", "scale", "cos", "sin", "a", "b", "x", "y")
    return torch.tensor([columns.get(name, 0.0) for name in names])


SHAPES = AttributeVocabulary((Attribute("shape", ("disc", "ring", "cross")),))


def network(vocabulary: AttributeVocabulary | None = SHAPES) -> UNet:
    config = UNetConfig(8, (1,), 1, (), groups=4, dropout=0.0)
    net = config.build(Interface(1, vocabulary, NUMBERS)).eval()
    torch.manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net


@torch.no_grad()
def test_zeros_are_nothing_done():
    net, x, t = network(), pictures(2), torch.tensor([3.0, 4.0])
    label, zeros = SHAPES.rows([[1.0], [math.nan]]), torch.zeros(2, NUMBERS)
    plain = net(x, t, label)
    assert torch.equal(net(x, t, label, zeros), plain)
    assert not torch.allclose(net(x, t, label, row(scale=1.0).repeat(2, 1)), plain)
    unlabelled = network(None)
    assert torch.equal(unlabelled(x, t, augment=zeros), unlabelled(x, t))
    assert not torch.allclose(unlabelled(x, t, augment=zeros + 1), unlabelled(x, t))


@torch.no_grad()
def test_guidance_goes_towards_labels_and_not_towards_alterations():
    """What is subtracted is the plain unconditional prediction, whatever the network was shown in training."""
    net, x = network(), pictures(2)
    label = SHAPES.rows([[1.0], [2.0]])
    guided = Guided(NetworkDenoiser(net, Cosine(), V()), 1.5)(x, 0.5, label).eps
    zeros = NetworkDenoiser(partial(net, augment=torch.zeros(2, NUMBERS)), Cosine(), V())
    with_label, without = zeros(x, 0.5, label).eps, zeros(x, 0.5).eps
    assert torch.allclose(guided, without + 1.5 * (with_label - without), atol=1e-5)


def test_the_configuration_tells_the_network_and_leaves_out_the_flip_of_the_data():
    on = resolve("small8", overrides={"augment.p": "0.12"})
    assert (on.interface(1).augment, on.augment.kinds) == (NUMBERS, KINDS)
    assert replace(on, augment=AugmentConfig()).interface(1).augment == 0
    assert not AugmentConfig(0.5, ()).on
    mirrored = resolve("small8", overrides={"augment.p": "0.12", "data.flip": "true"})
    assert mirrored.augment.kinds == KINDS[1:]
    older = to_dict(resolve("small32"))
    del older["augment"]
    assert from_dict(older) == resolve("small32"), "a run from before resumes"


def test_a_chance_of_nothing_changes_no_bit(digits):
    """The layer takes no random number of another's, and zeros through it add nothing."""
    plain = Trainer(tiny(augment__p="0"), digits)
    hardly = Trainer(tiny(augment__p="1e-12", augment__kinds="scale,rotate"), digits)
    assert plain.net.augment is None
    for _ in range(3):
        assert torch.equal(plain.step().terms.loss, hardly.step().terms.loss)
    state, extra = plain.net.state_dict(), hardly.net.state_dict()
    assert equal(state, {name: extra[name] for name in state})
    assert set(extra) - set(state) == {"augment.weight"}


def test_a_step_shows_the_network_what_was_done(digits, monkeypatch):
    """The batch, the condition and the numbers by hand; labels are dropped, the numbers are not."""
    given = {"augment__p": "0.5", "train__label_dropout": "0.5", "train__batch": "32"}
    trainer = Trainer(tiny(**given, diffusion__timesteps__kind="uniform"), digits)
    seen = []
    monkeypatch.setattr(trainer.net, "forward", lambda *given, **more: seen.append((given, more)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.step()
    (x_t, _, condition), more = seen[0]
    numbers = draw(AugmentConfig(0.5), 0, torch.arange(32))
    assert torch.equal(more["augment"], numbers)
    assert 5 < int(condition.table.isnan().sum()) < 27
    plain = trainer.encode(digits.batch(torch.arange(32), 0).x)
    t = (uniform(0, Purpose.TRAIN_TIME, torch.arange(32)) * 50).floor().add(1) / 50
    eps = normal(0, Purpose.TRAIN_NOISE, torch.arange(32), tuple(plain.shape[1:]))
    wanted = marginal(augment(plain, numbers), trainer.schedule(t)).sample(eps)
    assert torch.allclose(x_t, wanted, atol=1e-6)
    assert not torch.equal(augment(plain, numbers), plain)


def test_held_out_losses_and_grids_are_of_images_as_they_are(digits):
    """They ask for nothing altered, as the same weights without the layer would."""
    trainer = Trainer(tiny(augment__p="0.5"), digits)
    for _ in range(3):
        trainer.step()
    plain = Trainer(tiny(), digits)
    plain.ema.net.load_state_dict({k: v for k, v in trainer.ema.net.state_dict().items() if k != "augment.weight"})
    assert float(trainer.ema.net.augment.weight.abs().max()) > 0
    found, wanted = trainer.held_out(), plain.held_out()
    assert torch.equal(found.held_out.loss, wanted.held_out.loss)
    assert found.train == wanted.train
    assert torch.equal(trainer.sample_grid(2), plain.sample_grid(2))


def test_interrupted_and_resumed_is_the_same_run(digits, tmp_path):
    config = tiny(augment__p="0.5")
    for name, stops in (("whole", ()), ("parts", (3, 11))):
        for stop in stops:
            go(config, Run(tmp_path / name), digits, stop)
        go(config, Run(tmp_path / name), digits)
    assert final(Run(tmp_path / "whole")) == final(Run(tmp_path / "parts"))


def uprightness(x: torch.Tensor) -> torch.Tensor:
    """How upright the ink of images (B, 1, H, W) stands: from 1 along a vertical line to -1 along a level one.

    It is the difference of the two second moments about the middle of the ink, over their sum; any turn by a quarter
    changes its sign, and of images turned by any angle the mean is 0.
    """
    ink = (x.double() + 1).clamp_min(0)[:, 0]
    share, place = ink / ink.sum((1, 2), keepdim=True), torch.arange(ink.shape[-1], dtype=torch.float64)
    across, down = share.sum(1), share.sum(2)
    wide, high = ((s * place.square()).sum(1) - (s * place).sum(1).square() for s in (across, down))
    return (high - wide) / (high + wide)


@pytest.mark.slow
def test_turning_does_not_leak(digits):
    """Thirty ones, half of what is met turned: asked for nothing, all stand; asked for lying ones, they lie.

    Of a network that isn't told, half of the samples would be turned, and their mean uprightness half of the data's.
    """
    ones = np.flatnonzero(digits.conditions.table[:, 0] == 1)[:30]
    few = replace(digits, train=ones, vocabulary=None, conditions=None)
    small = {"net__base": "16", "net__groups": "4", "net__multipliers": "1,2", "net__attention": "1"}
    turned = {"augment__p": "0.5", "augment__kinds": "rotate", "data__labels": "none"}
    pace = {"train__batch": "32", "train__images": "16000", "optim__lr": "3e-3", "net__dropout": "0"}
    trainer = Trainer(tiny(**small, **turned, **pace), few)
    while trainer.images < 16_000:
        trainer.step()

    def drawn(numbers: torch.Tensor | None) -> torch.Tensor:
        told = {} if numbers is None else {"augment": numbers.repeat(100, 1)}
        model = replace(trainer.model(), denoiser=trainer.denoiser(partial(trainer.ema.net, **told)))
        return torch.cat([x for _, x in prepare(model, Recipe("ddim", steps=10)).stream(200, 5, batch=100)])

    data = uprightness(trainer.encode(few.rows(torch.from_numpy(ones))[0]))
    plain, lying = uprightness(drawn(None)), uprightness(drawn(row(cos=-1, sin=1)))
    assert float(plain.mean()) > 0.8 * float(data.mean())
    assert float((plain < 0).double().mean()) < 0.02
    assert float(lying.mean()) < -0.2
