"""Show that the tests catch what they claim to catch: break the code on purpose, one place at a time, and run the
tests.

    python scripts/mutations.py                 every mutation
    python scripts/mutations.py --only ddim     those whose name contains a word

Each mutation replaces one piece of text in a copy of `src/`; the named tests then run against the copy and must fail.
A mutation whose text is no longer in the file, or that the tests survive, makes the script exit with 1. So does a test
that fails without any mutation.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """One planted mistake: `old` becomes `new` in `file`, and `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


M = Mutation
MUTATIONS = [
    M(
        "budget: a resumed run trains by its last plan from the checkpoint on",
        "train/pace.py",
        "self.plan = self.course.before(images)",
        "self.plan = self.course.plans[-1]",
        "tests/train/test_budget.py",
    ),
    M(
        "budget: a plan so short that the decay should have begun",
        "train/budget.py",
        "steps=max(new.steps, math.ceil(step / free))",
        "steps=max(new.steps, step + 1)",
        "tests/train/test_budget.py",
    ),
    M(
        "budget: time before training does not count",
        "train/budget.py",
        "plan = _longest(config, speed, elapsed, MONITORING)",
        "plan = _longest(config, speed, 0.0, MONITORING)",
        "tests/train/test_budget.py",
    ),
    M(
        "posterior: coefficients of x_t and x_0 swapped",
        "diffusion/process.py",
        "broadcast(a, x_t) * x_t + broadcast(b, x_0) * x_0",
        "broadcast(b, x_t) * x_t + broadcast(a, x_0) * x_0",
        "tests/diffusion/test_process.py",
    ),
    M(
        "posterior: variance of the forward step in place of beta~",
        "diffusion/process.py",
        "level_s.alpha * drop, level_s.sigma.square() * drop",
        "level_s.alpha * drop, level_t.sigma.square() * drop",
        "tests/diffusion/test_process.py",
    ),
    M(
        "forward step: alpha without its root",
        "diffusion/process.py",
        "broadcast(level_t.alpha / level_s.alpha, x_s) * x_s",
        "broadcast((level_t.alpha / level_s.alpha).square(), x_s) * x_s",
        "tests/diffusion/test_process.py",
    ),
    M(
        "closed form: standard deviation taken for log variance",
        "diffusion/process.py",
        "broadcast(2 * level.sigma.log(), x_0)",
        "broadcast(level.sigma.log(), x_0)",
        "tests/diffusion/test_process.py",
    ),
    M(
        "variance: small and large swapped",
        "diffusion/variance.py",
        "return small, step_variance(level_s, level_t).log()",
        "return step_variance(level_s, level_t).log(), small",
        "tests/diffusion/test_process.py tests/diffusion/test_samplers.py tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "kl: the two variances swapped in the quadratic term",
        "diffusion/gaussian.py",
        "(self.mean - other.mean).square() * (-other.logvar).exp()",
        "(self.mean - other.mean).square() * (-self.logvar).exp()",
        "tests/diffusion/test_process.py",
    ),
    M(
        "gaussian: sample with the variance for the standard deviation",
        "diffusion/gaussian.py",
        "self.mean + self.std * noise",
        "self.mean + self.variance * noise",
        "tests/diffusion/test_process.py",
    ),
    M(
        "cosine: offset s left out of the normaliser",
        "diffusion/schedule.py",
        "((t + self.s) / (1 + self.s) * (math.pi / 2))",
        "((t + self.s) * (math.pi / 2))",
        "tests/diffusion/test_schedule.py",
    ),
    M(
        "linear: table read one step off",
        "diffusion/schedule.py",
        "table[nearest.long()]",
        "table[(nearest.long() - 1).clamp(min=0)]",
        "tests/diffusion/test_schedule.py",
    ),
    M(
        "betas: not scaled with the length of the chain",
        "diffusion/schedule.py",
        "(betas * (1000 / num_steps)).clamp",
        "betas.clamp",
        "tests/diffusion/test_schedule.py",
    ),
    M(
        "zero-terminal SNR: first step not kept",
        "diffusion/schedule.py",
        "(alpha[1:] - last) * (first / (first - last))",
        "(alpha[1:] - last) / (1 - last)",
        "tests/diffusion/test_schedule.py",
    ),
    M(
        "resolution shift: half of it",
        "diffusion/schedule.py",
        "return 2 * math.log(reference / size)",
        "return math.log(reference / size)",
        "tests/diffusion/test_schedule.py",
    ),
    M(
        "flow path: the time of the ratio of variances",
        "diffusion/schedule.py",
        "2 * (torch.log1p(-t) - t.log())",
        "torch.log1p(-t) - t.log()",
        "tests/diffusion/test_flow_matching.py",
    ),
    M(
        "flow path: not divided by its scale",
        "diffusion/schedule.py",
        "scale = torch.hypot(1 - t, t)",
        "scale = torch.ones_like(t)",
        "tests/diffusion/test_flow_matching.py",
    ),
    M(
        "velocity: noise scaled",
        "diffusion/parameterization.py",
        "return -one, one",
        "return -one, 0.999 * one",
        "tests/diffusion/test_flow_matching.py",
    ),
    M(
        "flow likelihood: ends short of pure noise",
        "diffusion/flow.py",
        "_NOISIEST = -20.0",
        "_NOISIEST = -8.0",
        "tests/diffusion/test_flow.py",
    ),
    M(
        "v: sign of the image's part",
        "diffusion/parameterization.py",
        "return -level.sigma, level.alpha",
        "return level.sigma, level.alpha",
        "tests/diffusion/test_parameterization.py",
    ),
    M(
        "mu: the step's own level in place of the one before",
        "diffusion/parameterization.py",
        "schedule((t - 1 / schedule.num_steps).clamp(min=0.0)), schedule(t)",
        "schedule((t - 2 / schedule.num_steps).clamp(min=0.0)), schedule(t)",
        "tests/diffusion/test_parameterization.py",
    ),
    M(
        "network time: off by one",
        "diffusion/denoiser.py",
        "t * self.schedule.num_steps - 1",
        "t * self.schedule.num_steps",
        "tests/diffusion/test_denoiser.py",
    ),
    M(
        "clip: noise not made consistent",
        "diffusion/prediction.py",
        "return replace(self, x0=x0, eps=(x_t - level.alpha * x0) / level.sigma)",
        "return replace(self, x0=x0)",
        "tests/diffusion/test_denoiser.py tests/diffusion/test_samplers.py",
    ),
    M(
        "times: 0 .. T - 1 in place of 1 .. T",
        "diffusion/timesteps.py",
        ".clamp(max=num_steps - 1) + 1) / num_steps",
        ".clamp(max=num_steps - 1)) / num_steps",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "muon: the momentum without its gradient",
        "train/muon.py",
        "directions = torch._foreach_add(gradients, moved, alpha=MOMENTUM)",
        "directions = moved",
        "tests/train/test_optim.py",
    ),
    M(
        "timesteps: logit-normal scaled before it is shifted",
        "diffusion/timesteps.py",
        "self.mean + self.std * torch.special.ndtri(u.double())",
        "self.std * (self.mean + torch.special.ndtri(u.double()))",
        "tests/diffusion/test_timesteps.py",
    ),
    M(
        "loss: summed where it should be averaged",
        "diffusion/objective.py",
        "noised.t).square().flatten(1).mean(1)",
        "noised.t).square().flatten(1).sum(1)",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "ancestral: noise in the last step",
        "diffusion/samplers/ddim.py",
        "step.mean if s == 0 else step.sample(noise.step(state.step))",
        "step.mean + 0.01 * noise.step(state.step) if s == 0 else step.sample(noise.step(state.step))",
        "tests/diffusion/test_samplers.py tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "sigmoid weight: without -dlogsnr/dt",
        "diffusion/objective.py",
        "    by_logsnr: ClassVar[bool] = True",
        "    by_logsnr: ClassVar[bool] = False",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "pndm: followed in t on every grid",
        "diffusion/samplers/pndm.py",
        "for points in (t, t.sqrt(), logsnr, (logsnr / -14).exp()):",
        "for points in (t,):",
        "tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "heun: a tenth of an image is tolerated from near-pure noise",
        "diffusion/samplers/ddim.py",
        "max(short, min(2 * short, 0.1))",
        "max(short, 0.1)",
        "tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "leading and uniform with the point 1/T for solvers in logsnr",
        "diffusion/grid.py",
        "torch.cat([times[:-2], times[-1:]])",
        "grid(num_steps, schedule)",
        "tests/diffusion/test_grid.py",
    ),
    M(
        "precision: closed balls",
        "evaluate/metrics/prdc.py",
        "inside = distance < real_radius",
        "inside = distance <= real_radius",
        "tests/evaluate/test_prdc.py",
    ),
    M(
        "measured variance: interpolated in t",
        "diffusion/variance.py",
        "noise = -self.schedule(self.times.to(level.logsnr.device)).logsnr",
        "noise, level = self.times, Level(level.alpha, level.sigma, -self.schedule.time(level.logsnr))",
        "tests/diffusion/test_process.py",
    ),
    M(
        "optimal variance: a level for each entry of the last axis",
        "diffusion/variance.py",
        "self.posterior_variance(level_t.shaped(prediction.x0))",
        "self.posterior_variance(level_t)",
        "tests/diffusion/test_process.py",
    ),
    M(
        "decoder: torch's log Phi in the tail",
        "diffusion/decoder.py",
        "return torch.where(x < _TAIL, _log_mills(x) - x.clamp(max=_TAIL).square() / 2, body)",
        "return torch.special.log_ndtr(x)",
        "tests/diffusion/test_likelihood.py",
    ),
    M(
        "network's time in the images' precision",
        "diffusion/denoiser.py",
        "torch.promote_types(x_t.dtype, torch.float32)",
        "x_t.dtype",
        "tests/diffusion/test_denoiser.py",
    ),
    M(
        "ancestral: levels of s and t swapped",
        "diffusion/samplers/ddim.py",
        "        level_s, level_t = step_levels(denoiser.schedule, s, state.t)",
        "        level_t, level_s = step_levels(denoiser.schedule, s, state.t)",
        "tests/diffusion/test_samplers.py tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "ddim: eta multiplies the variance",
        "diffusion/samplers/ddim.py",
        "std = self.eta * posterior_variance.sqrt()",
        "std = (self.eta * posterior_variance).sqrt()",
        "tests/diffusion/test_samplers.py tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "ddim: direction without the noise's share taken off",
        "diffusion/samplers/ddim.py",
        "(level_s.sigma.square() - std.square()).clamp(min=0.0).sqrt()",
        "level_s.sigma",
        "tests/diffusion/test_samplers.py tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "dpm-solver: the slope read at the end of the step",
        "diffusion/samplers/dpm.py",
        "(h / (2 * (lambda_0 - lambda_1)))",
        "(h / (lambda_0 - lambda_1))",
        "tests/diffusion/test_samplers_order.py",
    ),
    M(
        "dpm-solver: the published half of the third order's last term",
        "diffusion/samplers/dpm.py",
        "- 2 * ((e + h)",
        "- ((e + h)",
        "tests/diffusion/test_samplers_order.py",
    ),
    M(
        "unipc: arrivals are not corrected",
        "diffusion/samplers/unipc.py",
        "if last.end is state.x and",
        "if False and",
        "tests/diffusion/test_samplers_order.py",
    ),
    M(
        "unipc: factorials forgotten",
        "diffusion/samplers/unipc.py",
        "math.factorial(k) * g",
        "g",
        "tests/diffusion/test_samplers_diffusers.py",
    ),
    M(
        "heun: the second slope alone",
        "diffusion/samplers/heun.py",
        "rho_step(level_s, level_t) / 2 * (ahead",
        "rho_step(level_s, level_t) * (ahead",
        "tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "edm: logsnr raised by half",
        "diffusion/samplers/heun.py",
        "logsnr - 2 * math.log1p",
        "logsnr - math.log1p",
        "tests/diffusion/test_samplers_definitions.py",
    ),
    M(
        "pndm: weights of the step before",
        "diffusion/samplers/pndm.py",
        "(-1.0) ** k / (k + 1)",
        "1 / (k + 1)",
        "tests/diffusion/test_samplers_diffusers.py",
    ),
    M(
        "fit: the memory of a step is the first time's",
        "diffusion/fit.py",
        "before = here",
        "before = 0",
        "tests/diffusion/test_grid.py",
    ),
    M(
        "sampler noise: every step draws the same",
        "diffusion/noise.py",
        "self.shape, step=i, dtype=self.dtype)",
        "self.shape, step=0, dtype=self.dtype)",
        "tests/diffusion/test_noise.py",
    ),
    M(
        "philox: nine rounds",
        "diffusion/noise.py",
        "_ROUNDS = 10",
        "_ROUNDS = 9",
        "tests/diffusion/test_noise.py",
    ),
    M(
        "random key: examples beyond 2^32 fold onto others",
        "diffusion/noise.py",
        "tail = (index >> 32) | (int(purpose) << 24)",
        "tail = (index * 0) | (int(purpose) << 24)",
        "tests/diffusion/test_noise.py",
    ),
    M(
        "box-muller: both normals from the cosine",
        "diffusion/noise.py",
        "radius * angle.sin()",
        "radius * angle.cos()",
        "tests/diffusion/test_noise.py",
    ),
    M(
        "grid: trailing starts one step short of noise",
        "diffusion/grid.py",
        "(chain - torch.arange(num_steps",
        "(chain - 1 - torch.arange(num_steps",
        "tests/diffusion/test_grid.py",
    ),
    M(
        "mixture: prior weights forgotten",
        "diffusion/oracle.py",
        "log_q.flatten(2).sum(2) + (weights / weights.sum()).log()",
        "log_q.flatten(2).sum(2)",
        "tests/diffusion/test_oracle.py",
    ),
    M(
        "learned variance: the two bounds swapped",
        "diffusion/variance.py",
        "between = small + prediction.fraction * (large - small)",
        "between = large + prediction.fraction * (small - large)",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "bound: a sampled term not multiplied by T",
        "diffusion/objective.py",
        "return num_steps * nats.flatten(1).mean(1)",
        "return nats.flatten(1).mean(1)",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "hybrid: the mean not detached",
        "diffusion/objective.py",
        "x0=prediction.x0.detach(), eps=prediction.eps.detach()",
        "x0=prediction.x0, eps=prediction.eps",
        "tests/diffusion/test_objective.py",
    ),
    M(
        "decoder: a bin of twice the width",
        "diffusion/decoder.py",
        "half_bin, inverse_std = 1 / (self.levels - 1)",
        "half_bin, inverse_std = 2 / (self.levels - 1)",
        "tests/diffusion/test_likelihood.py",
    ),
    M(
        "flow: the change of variables forgotten",
        "diffusion/flow.py",
        "prior + change + state[:, -1]",
        "prior + state[:, -1]",
        "tests/diffusion/test_flow.py",
    ),
    M(
        "EMA: updated before the optimiser's step",
        "train/trainer.py",
        """        self.optimizer.step(lr, applied)
        self.ema.update(config.ema.decay(start, batch, planned), applied)
""",
        """        self.ema.update(config.ema.decay(start, batch, planned), applied)
        self.optimizer.step(lr, applied)
""",
        "tests/train/test_ema.py",
    ),
    M(
        "EMA: decay and its complement swapped",
        "train/ema.py",
        "applied * (1 - decay)",
        "applied * decay",
        "tests/train/test_ema.py",
    ),
    M(
        "EMA: no ramp",
        "config/train.py",
        "half_life = min(half_life, self.ramp * images)",
        "half_life = half_life",
        "tests/train/test_ema.py",
    ),
    M(
        "training: every position the same noise",
        "train/trainer.py",
        "normal(seed, Purpose.TRAIN_NOISE, positions.to(self.device)",
        "normal(seed, Purpose.TRAIN_NOISE, 0 * positions.to(self.device)",
        "tests/train/test_trainer.py",
    ),
    M(
        "training: a non-finite step is taken",
        "train/trainer.py",
        "applied = (loss.isfinite() & norm.isfinite()).float()",
        "applied = (loss.isfinite() | True).float()",
        "tests/train/test_trainer.py tests/train/test_loop.py",
    ),
    M(
        "warm-up: one batch late",
        "train/optim.py",
        "min(1.0, (images + batch) / warmup)",
        "min(1.0, images / warmup)",
        "tests/train/test_optim.py",
    ),
    M(
        "data: an epoch's order is every epoch's",
        "data/dataset.py",
        "permutation(seed, Purpose.ORDER, count, step=epoch)",
        "permutation(seed, Purpose.ORDER, count, step=0)",
        "tests/data/test_dataset.py",
    ),
    M(
        "pixels: 256 in place of 255",
        "codec/format.py",
        "return (self.high - self.low) / 2",
        "return (self.high - self.low + 1) / 2",
        "tests/codec/test_pixels.py",
    ),
    M(
        "network: cosines before sines",
        "nets/embedding.py",
        "torch.cat([angle.sin(), angle.cos()], dim=1)",
        "torch.cat([angle.cos(), angle.sin()], dim=1)",
        "tests/nets",
    ),
    M(
        "inverse: blur's adjoint is the blur",
        "diffusion/inverse/operators.py",
        "self._transfer(y).conj())",
        "self._transfer(y))",
        "tests/diffusion/inverse/test_operators.py",
    ),
    M(
        "inverse: grey solved with w in place of w^2",
        "diffusion/inverse/operators.py",
        "self._column(residual).square() * prior_variance",
        "self._column(residual) * prior_variance",
        "tests/diffusion/inverse/test_operators.py",
    ),
    M(
        "inverse: block means solved without factor^2",
        "diffusion/inverse/operators.py",
        "prior_variance / self.factor**2 + noise_variance",
        "prior_variance / self.factor + noise_variance",
        "tests/diffusion/inverse/test_operators.py",
    ),
    M(
        "inverse: PiGDM with s_y in place of s_y^2",
        "diffusion/inverse/posterior.py",
        "self.operator.solve(residual, v, self.noise_std**2)",
        "self.operator.solve(residual, v, self.noise_std)",
        "tests/diffusion/inverse/test_posterior.py",
    ),
    M(
        "inverse: moment matching without alpha in Tweedie's covariance",
        "diffusion/inverse/posterior.py",
        "level.sigma.square() / level.alpha, 0.0)",
        "level.sigma.square(), 0.0)",
        "tests/diffusion/inverse/test_posterior.py",
    ),
    M(
        "inverse: DPS's step without beta's root",
        "diffusion/inverse/posterior.py",
        "self.scale * level_t.alpha / level_s.alpha / beta",
        "self.scale / beta",
        "tests/diffusion/inverse/test_posterior.py",
    ),
    M(
        "inverse: the score's gradient taken from x0",
        "diffusion/prediction.py",
        "eps=self.eps - level.sigma * gradient)",
        "eps=self.eps + level.sigma * gradient)",
        "tests/diffusion/inverse/test_posterior.py",
    ),
    M(
        "score: the noise itself, without its sign",
        "diffusion/prediction.py",
        "return -self.eps / level.like(self.eps).sigma",
        "return self.eps / level.like(self.eps).sigma",
        "tests/diffusion/test_oracle.py",
    ),
    M(
        "guidance: the condition that gives nothing comes first",
        "diffusion/guidance.py",
        "condition.cat(condition.absent())",
        "condition.absent().cat(condition)",
        "tests/diffusion/test_guidance.py",
    ),
    M(
        "flow: examples take the conditions of the batch's first rows",
        "diffusion/flow.py",
        "condition.take(rows)",
        "condition.take(torch.arange(len(rows)))",
        "tests/diffusion/test_flow.py",
    ),
    M(
        "inverse: RePaint jumps back with the noise that it came with",
        "diffusion/inverse/repaint.py",
        "noise.step(_FORWARD + (repeat << 20) + state.step)",
        "noise.step(state.step)",
        "tests/diffusion/inverse/test_repaint.py",
    ),
    M(
        "inverse: RePaint keeps the history of what it threw away",
        "diffusion/inverse/repaint.py",
        "state.step - len(visited), state.prediction)",
        "state.step - len(visited), state.prediction, state.history)",
        "tests/diffusion/inverse/test_repaint.py",
    ),
    M(
        "inverse: RePaint's known part without noise",
        "diffusion/inverse/repaint.py",
        "marginal(known, denoiser.schedule(s)).sample(z)",
        "marginal(known, denoiser.schedule(s)).mean",
        "tests/diffusion/inverse/test_repaint.py",
    ),
    M(
        "conditions: attributes shown with their own chance alone, not with a common one",
        "conditions/table.py",
        "u[:, 2:] < 2 * u[:, 1:2]",
        "u[:, 2:] < 0.5",
        "tests/conditions/test_table.py",
    ),
    M(
        "conditions: not given is the first value",
        "conditions/embedding.py",
        "torch.where(number.isnan(), -1.0, number).long() + 1",
        "number.nan_to_num(0.0).long() + 1",
        "tests/conditions/test_embedding.py",
    ),
    M(
        "conditions: every batch is scored given the first images' labels",
        "evaluate/bits.py",
        "condition.take(index)",
        "condition.take(torch.arange(len(index)))",
        "tests/evaluate/test_bits.py",
    ),
    M(
        "conditions: attributes drawn one by one",
        "evaluate/target.py",
        "return self.data.conditions.take(torch.from_numpy(rows))",
        "one, other = (self.data.conditions.take(torch.from_numpy(r.copy())) for r in (rows, rows[::-1]))\n"
        "        return type(one)(torch.stack([one.table[:, 0], other.table[:, 1]], 1))",
        "tests/evaluate/test_stages.py",
    ),
    M(
        "conditions: other images' numbers in their own scale",
        "conditions/vocabulary.py",
        "(there.mean + there.std * column - attribute.mean) / attribute.std",
        "column",
        "tests/evaluate/test_target.py",
    ),
    M(
        "conditions: a number over its variance",
        "data/labels.py",
        "(x - attribute.mean) / attribute.std",
        "(x - attribute.mean) / attribute.std**2",
        "tests/data/test_labels.py",
    ),
    M(
        "data: test pictures are trained on",
        "data/sources/layout.py",
        "sides.setdefault(folder, (place[0], out))",
        "sides.setdefault(folder, (place[0], out and place[0].startswith('val')))",
        "tests/data/test_layout.py",
    ),
    M(
        "data: parts whose names differ otherwise are parts too",
        "data/sources/layout.py",
        "if part[1] in both}",
        "if both or len({held_out for held_out, _ in found.values()}) > 1}",
        "tests/data/test_layout.py",
    ),
    M(
        "data: copies of training pictures are held out",
        "data/split.py",
        "out = held_out & ~copies",
        "out = held_out.copy()",
        "tests/data/test_layout.py",
    ),
    M(
        "data: classes called by numbers in the order of text",
        "data/labels.py",
        "(numbers[text] if scale else 0.0, text)",
        "(0.0, text)",
        "tests/data/test_layout.py",
    ),
    M(
        "data: the first line of labels is always a header",
        "data/label_files.py",
        "if headless := header[0] in images:",
        "if headless := False:",
        "tests/data/test_labels.py",
    ),
    M(
        "data: missing values among numbers are values",
        "data/labels.py",
        "return missing if missing and left and is_plain else set()",
        "return set()",
        "tests/data/test_labels.py",
    ),
    M(
        "data: labels of the test part beside the images to train on",
        "data/sources/npz.py",
        "and part_of(name) == part_of(image))",
        ")",
        "tests/data/test_arrays.py",
    ),
    M(
        "tiff: a fourth band of no meaning is opacity",
        "data/formats/tiff.py",
        "opacity = self.one(_EXTRA, 0) != 0 or",
        "opacity = True or",
        "tests/data/test_tiff.py",
    ),
    M(
        "tiff: floats' differences taken pixel by pixel, not band by band",
        "data/formats/tiff.py",
        "raw.reshape(rows, -1, bands), axis=1",
        "raw.reshape(rows, -1, 1), axis=1",
        "tests/data/test_tiff.py",
    ),
    M(
        "conditions: images take rows in blocks, not in turn",
        "generate/sample.py",
        "condition.take(index % len(condition))",
        "condition.take(index * len(condition) // num % len(condition))",
        "tests/generate/test_generate.py",
    ),
    M(
        "augment: turned the other way",
        "data/augment.py",
        "_matrix(cos, -sin, sin, cos)",
        "_matrix(cos, sin, -sin, cos)",
        "tests/data/test_augment.py",
    ),
    M(
        "augment: moved down by a share of the width",
        "data/augment.py",
        "_SHIFT * height * y",
        "_SHIFT * width * y",
        "tests/data/test_augment.py",
    ),
    M(
        "augment: the spline's neighbour beyond the edge is the last pixel",
        "data/augment.py",
        "count - 1 - inner)",
        "count - 1)",
        "tests/data/test_augment.py",
    ),
    M(
        "augment: stretched along the mirrored direction",
        "data/augment.py",
        "_matrix(even - odd * a, odd * b, odd * b, even + odd * a)",
        "_matrix(even - odd * a, -odd * b, -odd * b, even + odd * a)",
        "tests/data/test_augment.py",
    ),
    M(
        "augment: upside down twice as often",
        "data/augment.py",
        "(0.5, config.p / 2,",
        "(0.5, config.p,",
        "tests/data/test_augment.py",
    ),
    M(
        "augment: images altered and the network not told",
        "train/trainer.py",
        "augment(x_0, numbers), numbers.to(self.device)",
        "augment(x_0, numbers), 0 * numbers.to(self.device)",
        "tests/train/test_augment.py",
    ),
    M(
        "codec: L_0 of the oracle in another space",
        "diffusion/likelihood.py",
        "decoder(step, x_0)",
        "decoder(step, x_0.clamp(-0.5, 0.5))",
        "tests/codec/test_haar.py",
    ),
    M(
        "codec: predictions are clipped to pixels' range whatever the codec",
        "generate/recipe.py",
        "Clipped(denoiser, codec.clip)",
        "Clipped(denoiser)",
        "tests/codec tests/generate/test_recipe.py",
    ),
    M(
        "plugins: a run forgets the files that it needs",
        "config/config.py",
        "return files_of([*_nodes(config), *filter(None, spaces)])",
        "return {}",
        "tests/cli/test_use.py",
    ),
    M(
        "interrupt: a generator left behind is not closed at exit",
        "train/interrupt.py",
        "        _OPEN[events] = os.getpid()",
        "        pass",
        "tests/train/test_interrupt.py",
    ),
    M(
        "data check: every finding is in full",
        "inspect/render.py",
        "item in open_[:FULL]",
        "True",
        "tests/cli/test_data_check.py",
    ),
    M(
        "conditions: guidance subtracts the condition itself",
        "diffusion/guidance.py",
        "condition.cat(condition.absent())",
        "condition.cat(condition)",
        "tests/conditions/test_tokens.py",
    ),
    M(
        "network: augmentation's numbers do not reach the network",
        "nets/base.py",
        "emb = emb + self.augment(augment)",
        "emb = emb + 0 * self.augment(augment)",
        "tests/nets/test_contract.py",
    ),
    M(
        "transformer: gate left out of attention",
        "nets/transformer/blocks.py",
        "torch.addcmul(x, gate_1, self._drop(",
        "torch.addcmul(x, 1 + 0 * gate_1, self._drop(",
        "tests/nets/test_transformer.py",
    ),
    M(
        "transformer: rows and columns of a position exchanged",
        "nets/transformer/blocks.py",
        "rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)",
        "columns[None].expand(height, -1, -1), rows[:, None].expand(-1, width, -1)",
        "tests/nets/test_transformer.py",
    ),
    M(
        "transformer: keys are not normalised",
        "nets/transformer/blocks.py",
        "q, k = (F.rms_norm(each, each.shape[-1:], eps=EPS) for each in (q, k))",
        "q = F.rms_norm(q, q.shape[-1:], eps=EPS)",
        "tests/nets/test_transformer.py",
    ),
    M(
        "the history keeps weighted losses",
        "train/trainer.py",
        "self.history.update(terms)",
        "self.history.update(weighted)",
        "tests/train/test_objectives.py::test_the_history_keeps_losses_without_their_weights",
    ),
    M(
        "half of the influence of KID's first set",
        "evaluate/metrics/kernel.py",
        "2 * (within_x - across.mean(1))",
        "(within_x - across.mean(1))",
        "tests/evaluate/test_metrics.py",
    ),
    M(
        "density's real influences without 1/k",
        "evaluate/metrics/prdc.py",
        "len(balls) / (k * len(held))",
        "len(balls) / len(held)",
        "tests/evaluate/test_prdc.py",
    ),
    M(
        "shrinkage with 1 + 2/D",
        "evaluate/metrics/frechet.py",
        "(1 - 2 / dim) * square",
        "(1 + 2 / dim) * square",
        "tests/evaluate/test_frechet.py",
    ),
    M(
        "shrinkage of N + 1 + 2/D",
        "evaluate/metrics/frechet.py",
        "(count + 1 - 2 / dim)",
        "(count + 1 + 2 / dim)",
        "tests/evaluate/test_frechet.py",
    ),
    M(
        "the chance of a copy with the number of generated images",
        "evaluate/memorisation.py",
        "(repeated + 1) / (len(train) + 1)",
        "(repeated + 1) / (len(generated) + 1)",
        "tests/evaluate/test_memorisation.py::test_one_copy_is_a_finding_where_no_two_training_images_are_equal",
    ),
    M(
        "the flow's decoder two steps up",
        "diffusion/flow.py",
        "schedule(min(2 * t, 1.0))",
        "schedule(min(3 * t, 1.0))",
        "tests/diffusion/test_flow.py::test_the_first_step_has_the_width_of_the_second",
    ),
    M(
        "the interval of guidance closed at its low end, row by row",
        "diffusion/guidance.py",
        "(t > low) & (t <= high)",
        "(t >= low) & (t <= high)",
        "tests/diffusion/test_guidance.py",
    ),
    M(
        "validation: the training loss is the held-out images' own",
        "train/validation.py",
        "data.train[: len(index)]",
        "data.held_out[: len(index)]",
        "tests/train/test_validation.py::test_the_losses_are_those_of_given_times_and_noise",
    ),
    M(
        "validation: every held-out image the same noise",
        "train/validation.py",
        "part.to(device), tuple",
        "0 * part.to(device), tuple",
        "tests/train/test_validation.py::test_the_losses_are_those_of_given_times_and_noise",
    ),
    M(
        "validation: the bound in nats",
        "train/validation.py",
        "bound.losses(prediction, noised) / math.log(2)",
        "bound.losses(prediction, noised)",
        "tests/train/test_validation.py::test_the_losses_are_those_of_given_times_and_noise",
    ),
    M(
        "validation: a warning is forgotten in a checkpoint",
        "train/validation.py",
        "bool(warned))",
        "False)",
        "tests/train/test_validation.py::test_the_state_passes_through_a_checkpoint",
    ),
    M(
        "loop: the best weights are those of every validation",
        "train/loop.py",
        "best = trainer.best.images == self.images and",
        "best =",
        "tests/train/test_objectives.py::test_the_best_weights_stay_where_the_loss_rises",
    ),
    M(
        "loop: seconds of earlier sessions are forgotten",
        "train/loop.py",
        "self.earlier = position.seconds",
        "self.earlier = 0.0",
        "tests/train/test_loop.py::test_seconds_of_earlier_sessions_count",
    ),
    M(
        "optimiser: its eps is always 1e-8",
        "train/optim.py",
        "eps=config.eps",
        "eps=1e-8",
        "tests/train/test_optim.py",
    ),
    M(
        "muon: the rest by Adam, whose weight decay goes through the moments",
        "train/optim.py",
        '"muon": torch.optim.AdamW',
        '"muon": torch.optim.Adam',
        "tests/train/test_optim.py",
    ),
    M(
        "muon: weight decay without the rate",
        "train/muon.py",
        "1 - lr * decay",
        "1 - decay",
        "tests/train/test_optim.py",
    ),
    M(
        "grids: the same seed for every run",
        "train/trainer.py",
        "stream(num, config.seed,",
        "stream(num, 0,",
        "tests/train/test_trainer.py::test_a_grid_is_what_the_default_recipe_samples",
    ),
    M(
        "times: the hybrid loss without the weights of its times",
        "train/trainer.py",
        'if diffusion.objective == "simple":',
        'if diffusion.objective != "vlb":',
        "tests/train/test_objectives.py::test_times_that_are_not_uniform_have_weights_in_a_bound",
    ),
    M(
        "meter: the gradient's norm adds up over readings",
        "train/metrics.py",
        "for tensor in (self._loss, self._count, self._norm, self._applied):",
        "for tensor in (self._loss, self._count, self._applied):",
        "tests/train/test_trainer.py::test_a_meter_sums_by_noise_level_and_leaves_out_what_was_skipped",
    ),
    M(
        "crop: by the numbers that decide on mirroring",
        "data/augment.py",
        "uniform(seed, Purpose.CROP",
        "uniform(seed, Purpose.FLIP",
        "tests/data/test_depths.py",
    ),
    M(
        "fit: an odd rest is cut from the left",
        "data/formats/fitting.py",
        "(h - rows) // 2, (w - columns) // 2",
        "(h - rows) // 2, (w - columns + 1) // 2",
        "tests/data/test_fitting.py",
    ),
    M(
        "fingerprint: without the side of the split",
        "data/dataset.py",
        ' + self.held_out.astype("<i8").tobytes()',
        ' + b""',
        "tests/data/test_dataset.py::test_whatever_training_sees_is_in_the_fingerprint",
    ),
    M(
        "fingerprint: without the larger pictures of random crops",
        "data/dataset.py",
        "digest.update(repr(self.whole.shape).encode())",
        "pass",
        "tests/data/test_dataset.py::test_whatever_training_sees_is_in_the_fingerprint",
    ),
    M(
        "background: 256 steps of 16 bits in place of 257",
        "data/formats/fitting.py",
        "257.0 * np.array(rgb)",
        "256.0 * np.array(rgb)",
        "tests/data/test_fitting.py",
    ),
    M(
        "fit: 16 bits wrap where the filter overshoots",
        "data/formats/fitting.py",
        ".clip(0, np.iinfo(pixels.dtype).max)",
        ".clip(0)",
        "tests/data/test_fitting.py",
    ),
    M(
        "augment: turned by the number that decides on turning",
        "data/augment.py",
        "2 * math.pi * u[:, -2]",
        "2 * math.pi * u[:, 3]",
        "tests/data/test_augment.py::test_how_far_has_nothing_to_do_with_whether",
    ),
    M(
        "augment: amounts from the random numbers of the decisions",
        "data/augment.py",
        "(4,), step=1, dtype",
        "(4,), step=0, dtype",
        "tests/data/test_augment.py",
    ),
    M(
        "variance: measured with clipped images whatever the recipe",
        "generate/sample.py",
        'resolved.range == "clip")',
        "True)",
        "tests/generate/test_variance.py::test_it_is_measured_as_the_recipe_samples",
    ),
    M(
        "variance: measured without conditions",
        "generate/variance.py",
        "noise_errors(denoiser, x_0, times, noise, labels)",
        "noise_errors(denoiser, x_0, times, noise, None)",
        "tests/generate/test_variance.py::test_each_image_is_measured_with_its_condition_and_noise_of_its_own",
    ),
    M(
        "variance: every image the same noise",
        "generate/variance.py",
        "Noise(0, index.to(model.device)",
        "Noise(0, 0 * index.to(model.device)",
        "tests/generate/test_variance.py::test_each_image_is_measured_with_its_condition_and_noise_of_its_own",
    ),
    M(
        "energy distance: an image's distance from itself counts",
        "evaluate/metrics/energy.py",
        "/ (len(real) - 1)",
        "/ len(real)",
        "tests/evaluate/test_verdict.py::test_the_energy_distance_is_its_definition",
    ),
    M(
        "wavelets: strength, not its logarithm",
        "evaluate/extractors/wavelets.py",
        "0.5 * torch.log(F.adaptive_avg_pool2d(square, regions) + FLOOR**2)",
        "(F.adaptive_avg_pool2d(square, regions) + FLOOR**2).sqrt()",
        "tests/evaluate/test_verdict.py::test_noise_has_its_own_strength_at_the_first_scale_and_flat_images_the_floor",
    ),
    M(
        "verdict: the better view decides",
        "evaluate/verdict.py",
        "return max(filter(None",
        "return min(filter(None",
        "tests/evaluate/test_verdict.py::test_the_worse_view_decides_and_is_named",
    ),
    M(
        "evaluate: the best is marked by its value alone",
        "evaluate/text.py",
        'own["high"] < other["low"]',
        'own["value"] < other["value"]',
        "tests/cli/test_evaluate.py::test_only_the_row_that_is_better_than_all_others_by_interval_is_marked",
    ),
    M(
        "compare: precision of unequal numbers of images",
        "evaluate/measurement.py",
        "theirs = generated[:alike] if whole and equal else generated",
        "theirs = generated",
        "tests/evaluate/test_measurement.py::test_whole_sets_are_compared_by_all_but_those_that_need_equal_numbers",
    ),
    M(
        "diagnose: a short training beside the cause that explains the samples",
        "diagnose/causes/__init__.py",
        "if not (finding.last and explained)",
        "if finding is not None",
        "tests/diagnose/test_causes.py::test_a_short_training_is_not_blamed_where_another_cause_explains_the_distance",
    ),
    M(
        "ending: a grid compared with all labels",
        "evaluate/ending.py",
        "like = rows[(asked.isnan() | (table == asked)).all(1)]",
        "like = rows",
        "tests/evaluate/test_ending.py::test_a_grid_is_compared_with_images_of_its_labels",
    ),
    M(
        "recipe: a grid fitted without conditions",
        "generate/recipe.py",
        "self.steps, rows, sampler",
        "self.steps, None, sampler",
        "tests/generate/test_recipe.py::test_a_grid_is_fitted_to_the_conditions_that_are_asked_for",
    ),
    M(
        "recipe: autoguidance everywhere",
        "generate/recipe.py",
        "AutoGuided(plain, weak, self.guidance, self.interval)",
        "AutoGuided(plain, weak, self.guidance)",
        "tests/generate/test_recipe.py::test_guidance_is_inside_what_keeps_the_range",
    ),
    M(
        "folder: labels counted within the batch",
        "generate/writers.py",
        "labels[n]}",
        "labels[n - start]}",
        "tests/generate/test_writers.py",
    ),
    M(
        "progress: the prior counts as a step",
        "generate/sample.py",
        "len(state.x) if state.step else 0",
        "len(state.x)",
        "tests/generate/test_generate.py",
    ),
    M(
        "samples: only images without any finite value are reported",
        "generate/sample.py",
        "isfinite().all(1)",
        "isfinite().any(1)",
        "tests/generate/test_generate.py",
    ),
    M(
        "compare: real and generated images swapped",
        "evaluate/measurement.py",
        "metric(ours, theirs, seed)",
        "metric(theirs, ours, seed)",
        "tests/evaluate/test_measurement.py",
    ),
    M(
        "bits: every sampled term the same noise",
        "evaluate/bits.py",
        "noise.index, noise.shape, step=k)",
        "noise.index, noise.shape, step=0)",
        "tests/evaluate/test_bits.py::test_every_sampled_term_has_noise_of_its_own",
    ),
    M(
        "bits: the flow's direction is its noise",
        "evaluate/bits.py",
        "noise.step(1).sign()",
        "noise.step(0).sign()",
        "tests/evaluate/test_bits.py::test_a_flows_directions_are_not_its_noise",
    ),
    M(
        "bits: sampled steps not stratified",
        "evaluate/bits.py",
        "quantile = (torch.arange(count, device=u.device) + u) / max(1, count)",
        "quantile = u",
        "tests/evaluate/test_bits.py::test_sampled_steps_are_one_from_each_stratum",
    ),
    M(
        "conditions: those of held-out images too",
        "evaluate/target.py",
        "rows = self.data.train[(u * len(self.data.train)).long().numpy()]",
        "rows = (u * len(self.data)).long().numpy()",
        "tests/evaluate/test_stages.py::test_conditions_are_those_of_training_images_and_held_out_images_come_in_random_order",
    ),
    M(
        "held-out images in their order",
        "evaluate/target.py",
        'split_rows(self.data, "held_out")[:num]',
        "torch.from_numpy(self.data.held_out)[:num]",
        "tests/evaluate/test_stages.py::test_conditions_are_those_of_training_images_and_held_out_images_come_in_random_order",
    ),
    M(
        "memorisation: the line is the next held-out image's",
        "evaluate/memorisation.py",
        "values[rank - 1]",
        "values[rank]",
        "tests/evaluate/test_memorisation.py::test_the_line_is_the_first_hundredth_of_the_held_out_images",
    ),
    M(
        "memorisation: features of the first images, not of the different ones",
        "evaluate/memorisation.py",
        "theirs[kept]",
        "theirs[: len(kept)]",
        "tests/evaluate/test_memorisation.py::test_rows_in_the_space_of_features_are_those_of_different_images",
    ),
    M(
        "memorisation: held-out distances in other units",
        "evaluate/memorisation.py",
        "raw.held_out_distance * unit",
        "raw.held_out_distance",
        "tests/evaluate/test_memorisation.py::test_distances_of_held_out_images_and_of_sixteen_bits_are_in_the_same_units",
    ),
    M(
        "memorisation: distances of 16 bits in their own levels",
        "evaluate/memorisation.py",
        "127.5 / data.format.scale / math",
        "1 / math",
        "tests/evaluate/test_memorisation.py::test_distances_of_held_out_images_and_of_sixteen_bits_are_in_the_same_units",
    ),
    M(
        "features: images counted within their batch",
        "evaluate/features.py",
        "extractor.name, done)",
        "extractor.name, 0)",
        "tests/evaluate/test_extractors.py::test_an_image_whose_features_are_not_finite_is_counted_over_all_batches",
    ),
    M(
        "influences: chance is counted twice",
        "evaluate/metrics/prdc.py",
        "1 - less / variance",
        "1",
        "tests/evaluate/test_prdc.py",
    ),
    M(
        "density: a ball that loses an image stays as it is",
        "evaluate/metrics/prdc.py",
        "balls - wider",
        "balls",
        "tests/evaluate/test_prdc.py",
    ),
    M(
        "network: cost counts the network at half the size",
        "nets/protocol.py",
        'torch.empty(1, self.interface.channels, height, width, device="meta")',
        'torch.empty(1, self.interface.channels, height // 2, width // 2, device="meta")',
        "tests/nets/test_cost.py",
    ),
    M(
        "missing data: a pixel is a hole only where all of its values are marked",
        "data/formats/fitting.py",
        "np.isnan(pixels) if floats else marked).any(axis=2)",
        "np.isnan(pixels) if floats else marked).all(axis=2)",
        "tests/data/test_values.py",
    ),
    M(
        "findings: a mark is found only a hundred ranges away",
        "data/findings.py",
        "gap > rest or (",
        "gap > 100 * rest or (",
        "tests/data/test_values.py",
    ),
    M(
        "clamping: only before resampling",
        "data/formats/fitting.py",
        "pixels = pixels if form.clamp is None else pixels.clip(*form.clamp)",
        "pixels = pixels if True else pixels.clip(*form.clamp)",
        "tests/data/test_values.py",
    ),
    M(
        "labels: values that are left keep their old numbers",
        "data/split.py",
        "new[known] = np.arange(len(known))",
        "new[known] = known",
        "tests/data/test_dataset.py",
    ),
    M(
        "keys of files: only length and time of modification",
        "data/sources/files.py",
        "return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino",
        "return status.st_size, status.st_mtime_ns",
        "tests/data/test_folder.py",
    ),
    M(
        "data check: identity of the picture as bytes",
        "inspect/scan.py",
        "_identify(out, pixels)",
        "_identify(out, shown)",
        "tests/inspect/test_report.py",
    ),
    M(
        "mirroring: allowed wherever it is not advised against",
        "data/mirror.py",
        'return self.verdict == "flip"',
        'return self.verdict != "keep"',
        "tests/data/test_mirror.py",
    ),
    M(
        "memorisation: one copy is no finding",
        "evaluate/memorisation.py",
        "return bool(self.copied) and not self.repeated",
        "return False",
        "tests/evaluate/test_memorisation.py",
    ),
    M(
        "checkpoint: pruning counts every folder, not those before the one just saved",
        "train/checkpoint.py",
        "if int(path.name) < position.images and _images(path) == int(path.name)",
        "if path != final",
        "tests/train/test_checkpoint.py",
    ),
    M(
        "checkpoint: weights files are left as they are",
        "train/checkpoint.py",
        'if _sha(read_regular(path, entry["bytes"])) == entry["sha256"]:',
        "if path.exists():",
        "tests/train/test_checkpoint.py",
    ),
    M(
        "loop: saved while steps are skipped",
        "train/saver.py",
        "if self.trainer.images in (0, self.saved_at) or self.skips:",
        "if self.trainer.images in (0, self.saved_at):",
        "tests/train/test_trouble.py",
    ),
    M(
        "weights: values that are not finite are taken",
        "weights.py",
        "if not all(tensor.isfinite().all() for tensor in tensors.values()):",
        "if not tensors:",
        "tests/test_model.py",
    ),
    M(
        "import: rows of OpenAI's attention taken in another order",
        "exchange/openai.py",
        'if ".qkv." in name and order == "legacy":',
        'if ".qkv." in name and order == "new":',
        "tests/exchange/test_from_openai.py",
    ),
    M(
        "import: EDM's rows of attention by head, not by channel",
        "exchange/edm.py",
        'net.heads, "channel")',
        'net.heads, "head")',
        "tests/exchange/test_from_edm.py",
    ),
    M(
        "import: k-diffusion's constant of unaltered images left out",
        "exchange/kdiffusion.py",
        "[:, : waves.shape[0]].sum(1)",
        "[:, : waves.shape[0]].sum(1) * 0",
        "tests/exchange/test_from_kdiffusion.py",
    ),
    M(
        "import: diffusers' sines and cosines swapped",
        "exchange/diffusers/settings.py",
        'cosine_first=bool(settings["flip_sin_to_cos"])',
        'cosine_first=not settings["flip_sin_to_cos"]',
        "tests/exchange/test_from_diffusers.py",
    ),
    M(
        "export: roundings of betas add up",
        "exchange/diffusers/write.py",
        "product *= float(1 - beta)",
        "product = abar",
        "tests/exchange/test_to_diffusers.py",
    ),
    M(
        "guarded reader: a tensor larger than its storage",
        "data/formats/torch_file.py",
        "or math.prod(self.shape) > self.storage.count",
        "or False",
        "tests/data/test_torch_file.py",
    ),
    M(
        "guarded reader: any name becomes an object",
        "data/formats/torch_file.py",
        'name.startswith(self.objects or ("\\0",))',
        'name.startswith(self.objects or ("",))',
        "tests/data/test_torch_file.py",
    ),
]


def run_tests(source: Path, tests: str) -> tuple[bool, str]:
    """Run tests against the package in `source`; return whether they passed and pytest's last line."""
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run {tests}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    reason = [line for line in done.stdout.split("\n") if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, reason[0][:110] if reason else ""


def attempt(mutation: Mutation) -> tuple[bool, str]:
    """Plant one mutation in a copy of the package; return whether it was caught and by what."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        file = source / "sfumato" / mutation.file
        text = file.read_text()
        if mutation.old not in text:
            return False, f"its text no longer stands in {mutation.file}"
        file.write_text(text.replace(mutation.old, mutation.new, 1))
        passed, reason = run_tests(source, mutation.tests)
        return not passed, reason or "no test noticed"


def main() -> int:
    """Try every mutation and print a line for each; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only mutations whose name contains this")
    chosen = [m for m in MUTATIONS if parser.parse_args().only in m.name]
    for tests in sorted({test for m in chosen for test in m.tests.split()}):
        passed, reason = run_tests(ROOT / "src", tests)
        if not passed:
            print(f"{tests} fails without any mutation: {reason}")
            return 1
    caught = 0
    for mutation in chosen:
        start = time.perf_counter()
        ok, reason = attempt(mutation)
        caught += ok
        mark = "caught  " if ok else "SURVIVED"
        print(f"{mark} {mutation.name} ({time.perf_counter() - start:.0f} s): {reason}", flush=True)
    print(f"{caught} of {len(chosen)} mutations caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
