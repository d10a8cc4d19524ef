"""What a training is said to cost, against what it then takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato import resolve
from sfumato.config.config import fit
from sfumato.data import Dataset, open_data
from sfumato.nets.unet.unet import UNet, UNetConfig, cost
from sfumato.train import forecast as module
from sfumato.train.forecast import Forecast, forecast
from sfumato.train.plan import Speed


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data(resolve("digits").data)


def made(**given: object) -> Forecast:
    facts: dict[str, object] = {
        "parameters": 1000, "flops": 10**6, "batch": 10, "images": 1005, "state_bytes": 20_000,
        "activation_bytes": 1000, "store_bytes": 5000, "run_bytes": 60_000, "memory_here": 0, "disk_here": 10**9,
        "train_images": 100, "speed": Speed(step=0.5, grid=2.0, held_out=1.0), "grids": 3, "passes": 4,
    }  # fmt: skip
    return Forecast(**(facts | given))  # type: ignore[arg-type]


def test_saved_activations_of_one_convolution_counted_by_hand() -> None:
    """Doubling the pixels doubles what is kept, but for the attention's square; each convolution keeps its input."""
    config = UNetConfig(channels=1, base=4, multipliers=(1,), blocks=1, attention=(), groups=2)
    small, large = cost.activation_bytes(config, 8, 8), cost.activation_bytes(config, 8, 16)
    time = cost.activation_bytes(config, 1, 1)
    n = 64
    assert large / small > 1.8
    assert large < 2 * small + 2 * 2 * 4 * (2 * n) ** 2
    # 5 blocks of 2 convolutions, entrance and exit: 12 inputs of at least 4 channels, but the image's one
    assert small - time > (11 * 4 + 1) * 8 * 8 * 4 * 0.9


def test_weights_are_not_counted_as_activations() -> None:
    thin = UNetConfig(channels=1, base=4, multipliers=(1,), blocks=1, attention=(), groups=2)
    wide = replace(thin, base=64)
    with torch.device("meta"):
        weights = 4 * cost.parameters(UNet(wide))
    assert cost.activation_bytes(wide, 1, 1) < weights / 4


def test_state_is_what_the_learner_holds(digits: Dataset, tmp_path: Path) -> None:
    from sfumato.train.trainer import Learner

    config = resolve("digits", overrides={"train.images": "100"})
    config = fit(config, digits.shape, digits.attributes)
    found = forecast(config, digits, tmp_path / "not" / "there", seconds=0)
    learner = Learner(config, digits)
    held = sum(t.numel() * t.element_size() for group in learner.state().values() for t in group.values())
    gradients = 4 * found.parameters
    assert held + gradients == pytest.approx(found.state_bytes, rel=0.01)
    assert found.speed is None
    assert found.seconds is None
    assert found.store_bytes == digits.images.nbytes
    assert not (tmp_path / "not").exists()


def test_time_is_steps_grids_and_passes() -> None:
    assert made().seconds == 101 * 0.5 + 3 * 2.0 + 4 * 1.0
    assert made().images_per_second == 20
    assert made().epochs == 10.05
    assert made().memory == 30_000


def test_the_batch_that_fits() -> None:
    assert made(memory_here=100_000).fitting_batch == 32  # (80,000 - 20,000) / 1,000 = 60
    assert made(memory_here=20_000).fitting_batch == 0
    assert made().fitting_batch is None


def test_measured_with_fewer_images_it_is_scaled_up(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine said to be a thousand times slower measures with one image and multiplies."""
    asked = []

    def measured(learner: object, train: object, seconds: float) -> Speed:
        asked.append((train.batch, train.grid_images, train.held_out_images))
        return Speed(0.1, 0.2, 0.3)

    monkeypatch.setattr(module, "measure", measured)
    config = fit(resolve("digits"), digits.shape, digits.attributes)
    plain = forecast(config, digits, Path(), seconds=1.0).speed
    monkeypatch.setattr(module, "CPU_FLOPS", 1.0)
    scaled = forecast(config, digits, Path(), seconds=1.0).speed
    train = config.train
    assert asked == [(train.batch, train.grid_images, train.held_out_images), (1, 1, 1)]
    assert plain == Speed(0.1, 0.2, 0.3)
    assert scaled == Speed(0.1 * train.batch, 0.2 * train.grid_images, 0.3 * train.held_out_images)
