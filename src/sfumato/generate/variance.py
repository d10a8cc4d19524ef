"""The measured (analytic) variance of a model's reverse step, on its own training images (`diffusion.variance`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.data.dataset import Dataset
from sfumato.diffusion import Clipped, Denoiser, Noise, Optimal, Variance
from sfumato.diffusion.noise import Purpose, permutation
from sfumato.diffusion.variance import MeasuredVariance, noise_errors
from sfumato.errors import UserError
from sfumato.model import Model

MEASURED_ON = 128
"""The number of training images for measuring a variance."""
TIMES = 24
"""Number of evenly spaced times, and of those dense near the data."""


def measured_variance(
    model: Model,
    data: Dataset,
    clip: bool = True,
    batch: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> Variance:
    """Measure the optimal variance of the reverse step; `prepare` takes it where a recipe says `analytic`.

    `clip` says whether predicted images are clipped, as they are in sampling with the range `clip`; `on_progress` is
    called with (images done, in all). Raises `UserError` where the model predicts values that are not finite.
    """
    denoiser: Denoiser = Clipped(model.denoiser, model.codec.clip) if clip else model.denoiser
    rows, times = training_rows(data)[:MEASURED_ON], measured_times(model.schedule.num_steps)
    return Optimal(
        MeasuredVariance(model.schedule, times, measure_errors(model, denoiser, data, rows, times, batch, on_progress))
    )


def measured_times(chain: int) -> Tensor:
    """Return times of a chain, half of them evenly spaced and half dense near the data, ascending, (K,)."""
    steps = [1 + (chain - 1) * k / (TIMES - 1) for k in range(TIMES)]
    steps += [chain ** (k / (TIMES - 1)) for k in range(TIMES)]
    return torch.tensor(sorted({round(step) for step in steps}), dtype=torch.float64) / chain


def training_rows(data: Dataset) -> Tensor:
    """Return the training rows in a random order that is the same for all measurements, (N,) int64."""
    seed = int.from_bytes(hashlib.sha256(b"evaluate rows of train 0").digest()[:8], "big")
    return torch.from_numpy(data.train)[permutation(seed, Purpose.ORDER, len(data.train))]


def measure_errors(
    model: Model,
    denoiser: Denoiser,
    data: Dataset,
    rows: Tensor,
    times: Tensor,
    batch: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the mean squared error of eps at each time, (K,) float64; raises `UserError` where the model predicts
    values that are not finite."""
    error = torch.zeros(len(times), dtype=torch.float64)
    for index in torch.split(torch.arange(len(rows)), batch):
        values, condition = data.rows(rows[index])
        labels = condition.to(model.device) if condition is not None and model.vocabulary is not None else None
        noise = Noise(0, index.to(model.device), model.shape)
        x_0 = model.codec.encode(values.to(model.device))
        error += noise_errors(denoiser, x_0, times, noise, labels).cpu().double().sum(0)
        if on_progress is not None:
            on_progress(int(index[-1]) + 1, len(rows))
    if not bool(error.isfinite().all()):
        raise UserError(f"{model.path} predicts values that are not finite: its training diverged")
    return error / len(rows)
