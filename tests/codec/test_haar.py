"""A second codec goes all the way, through training, sampling, scoring and files; its bits are those in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.diffusion import VARIANCES, Cosine, GaussianOracle, Noise, Prediction, trailing, vlb
from sfumato.errors import UserError
from sfumato.generate.sample import sample
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.train import train
from tests.train.conftest import tiny

from .haar import Haar, HaarConfig

SHAPE = (2, 6, 8)
PIXELS, HAAR = Pixels(EIGHT, SHAPE), Haar(Pixels(EIGHT, SHAPE))


@dataclass(frozen=True)
class Transformed:
    """A denoiser of pixels as one of coefficients."""

    oracle: GaussianOracle

    @property
    def schedule(self) -> Cosine:
        return self.oracle.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: None = None) -> Prediction:
        prediction = self.oracle(HAAR.to_pixels(x_t), t)
        return Prediction(HAAR.from_pixels(prediction.x0), HAAR.from_pixels(prediction.eps))


@dataclass(frozen=True)
class TransformedNoise:
    """The noise of pixels as that of their coefficients."""

    noise: Noise

    def prior(self) -> Tensor:
        return HAAR.from_pixels(self.noise.prior())

    def step(self, i: int) -> Tensor:
        return HAAR.from_pixels(self.noise.step(i))


def test_there_and_back() -> None:
    values = torch.randint(0, 256, (5, *SHAPE), dtype=torch.uint8)
    assert torch.equal(HAAR.decode(HAAR.encode(values)), values)
    assert HAAR.encode(values).shape[1:] == HAAR.shape == (8, 3, 4)
    x = torch.randn(5, *HAAR.shape, dtype=torch.float64)
    torch.testing.assert_close(HAAR.from_pixels(HAAR.to_pixels(x)), x)
    torch.testing.assert_close(HAAR.to_pixels(x).square().sum(), x.square().sum())
    assert HAAR.to_pixels(HAAR.clip(x)).abs().max() <= 1 + 1e-12
    with pytest.raises(UserError, match="even height"):
        HaarConfig().build(EIGHT, (1, 5, 8))


@pytest.mark.parametrize("format", [EIGHT, PixelFormat("float", -3.0, 5.0)])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_bits_of_an_oracle_are_those_in_pixels(format: PixelFormat, variance: str) -> None:
    mean = torch.linspace(-0.5, 0.5, 2 * 6 * 8, dtype=torch.float64).reshape(SHAPE)
    oracle = GaussianOracle(Cosine(60), mean, torch.tensor(0.04, dtype=torch.float64))
    values = Pixels(format, SHAPE).decode((mean + 0.2 * torch.randn(7, *SHAPE)).clamp(-1, 1))
    noise, times = Noise(3, torch.arange(7), SHAPE, torch.float64), trailing(60, oracle.schedule)
    pixels, haar = Pixels(format, SHAPE), Haar(Pixels(format, SHAPE))
    x_0 = pixels.encode(values).double()
    ours = vlb(oracle, x_0, times, noise, VARIANCES[variance], decoder=pixels.decoder)
    theirs = vlb(
        Transformed(oracle), haar.from_pixels(x_0), times, TransformedNoise(noise), VARIANCES[variance],
        decoder=haar.decoder,
    )  # fmt: skip
    for name in ("prior", "steps", "decoder", "total"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=1e-9, rtol=0, msg=name)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_data(DataConfig("digits", labels="source"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("haar") / "run")
    list(train(tiny(codec__kind="haar", train__images="64"), run, digits))
    return run


def test_it_trains_is_saved_and_sampled(run: Run) -> None:
    model = load(run)
    assert isinstance(model.codec, Haar)
    assert (model.shape, model.codec.image_shape) == ((4, 4, 4), (1, 8, 8))
    x = sample(model, 3, seed=1)
    assert x.shape == (3, 4, 4, 4)
    assert model.codec.decode(x).shape == model.codec.shown(x).shape == (3, 1, 8, 8)
    assert model.codec.to_pixels(x).abs().max() <= 1 + 1e-5
