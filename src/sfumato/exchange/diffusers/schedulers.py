"""The settings of diffusers' schedulers as a process of ours, and back.

A scheduler tells the chain, what the network predicts and the variance; which sampler it was is not kept, since any
samples from the model.

DDPMScheduler computes its levels from betas in float32: abar_t = prod (1 - beta_s). The betas written here are chosen
one after the other, each so that the product so far is nearest to ours, so that their roundings do not add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sfumato.config.diffusion import DiffusionConfig
from sfumato.diffusion import Cosine, Linear, Quadratic, Schedule
from sfumato.diffusion.schedule import Chain
from sfumato.errors import UserError
from sfumato.exchange.schedules import chain_of

VERSION = "0.35.0"
"""The version of diffusers whose settings are written."""
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
"""What a network predicts, as DDPMPipeline knows it."""
_VARIANCES = {"small": "fixed_small", "large": "fixed_large", "fixedlarge": "fixed_large", "learned": "learned_range"}
_THEIR_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
_READ = ("DDPM", "DDIM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete",
         "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "UniPCMultistep", "DEISMultistep",
         "KDPM2Discrete", "KDPM2AncestralDiscrete", "DDPMParallel", "DDIMParallel", "DDIMInverse")  # fmt: skip


def to_ours(table: Mapping[str, Any], learned: bool, predicts: str | None = None) -> DiffusionConfig:
    """Return the process of a scheduler.

    Args:
        table: its settings; empty for the linear chain of 1,000 steps.
        learned: the network has outputs for a variance.
        predicts: what the network predicts, where the scheduler does not say it.

    Raises:
        UserError: a scheduler, a prediction, a variance or a chain that is not read.
    """
    kind = str(table.get("_class_name", "DDPMScheduler"))
    if kind.removesuffix("Scheduler") not in _READ:
        raise UserError(f"its scheduler is a {kind[:60]}, which is not one of denoising diffusion in steps")
    prediction = str(table.get("prediction_type") or table.get("predict_epsilon") or "epsilon")
    prediction = {"True": "epsilon", "False": "sample"}.get(prediction, prediction)
    known = {theirs: ours for ours, theirs in PREDICTIONS.items()}
    if prediction not in known:
        raise UserError(f"prediction_type = {prediction[:40]!r} is not supported")
    variance = str(table.get("variance_type", "learned_range" if learned else "fixed_small"))
    if (_THEIR_VARIANCES.get(variance) == "learned") != learned:
        if learned or variance == "learned":
            raise UserError(f"variance_type = {variance!r} with a network of these channels is not supported")
        variance = "fixed_small"
    return DiffusionConfig(
        schedule=_chain(table),
        parameterization=predicts or known[prediction],
        variance=_THEIR_VARIANCES[variance],
        objective="hybrid" if learned else "simple",
        zero_terminal_snr=bool(table.get("rescale_betas_zero_snr", False)),
    )


def _chain(table: Mapping[str, Any]) -> Chain:
    """The chain of a scheduler's settings."""
    if table.get("trained_betas") is not None:
        return chain_of(table["trained_betas"])
    steps, low, high = (table.get(name, default) for name, default in
                        (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02)))  # fmt: skip
    kind, unit = table.get("beta_schedule", "linear"), steps / 1000
    if kind == "linear":
        return Linear(steps, low * unit, high * unit)
    if kind == "scaled_linear":
        return Quadratic(steps, low * unit, high * unit)
    if kind == "squaredcos_cap_v2":
        return Cosine(steps)
    if kind == "sigmoid":
        betas = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (high - low) + low
        return chain_of(betas.tolist())
    raise UserError(f"beta_schedule = {str(kind)[:40]!r} is not supported")


def to_theirs(diffusion: DiffusionConfig) -> dict[str, Any]:
    """Return the settings of DDPMScheduler for a process; a prediction that it does not know is named `sample`, which
    is what the pipeline file hands to it."""
    schedule = diffusion.build_schedule()
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": schedule.num_steps,
        "trained_betas": betas(schedule),
        "prediction_type": PREDICTIONS.get(diffusion.parameterization, "sample"),
        "variance_type": _VARIANCES[diffusion.variance],
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "timestep_spacing": "trailing",
    }


def betas(schedule: Schedule) -> list[float]:
    """Return betas in float32 whose running products of 1 - beta are nearest to abar of the schedule's steps."""
    steps = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64) / schedule.num_steps
    chosen, product = [], 1.0
    for abar in schedule(steps).abar.tolist():
        beta = torch.tensor(1 - abar / product, dtype=torch.float64).float()
        product *= float(1 - beta)  # in float32, as the scheduler subtracts
        chosen.append(float(beta))
    return chosen
