r"""RePaint: the known part from the data, the unknown part from the model, repeated until they agree.

At each step t -> s the known pixels are drawn from their own noised distribution and the others from the sampler's step
(Lugmayr et al. 2022, 2201.09865, Eq. 8):

    x_s = mask ( alpha_s x_0 + sigma_s eps ) + (1 - mask) step(x_t)

The step has not seen the new known part: what it makes fits the known part of x_t, not that of x_s. So the image is
noised again, x_t ~ q(x_t | x_s), and the step repeated; each time the unknown part has seen more of the known one (Alg.
1). No number of repeats makes it exact: the known part stays a fresh noisy draw at every level, never the condition
itself. With `jump` > 1 the sampler goes down `jump` steps of the grid, a stretch, before the image is noised back over
all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.process import forward_step, marginal
from sfumato.diffusion.samplers.protocol import Sampler, State

_REPEATS = 1024
_KNOWN, _FORWARD = 1 << 30, 2 << 30


@dataclass(frozen=True)
class _Offset:
    """The noise of one repetition: the step numbers moved by an offset."""

    noise: NoiseSource
    offset: int

    def prior(self) -> Tensor:
        return self.noise.prior()

    def step(self, i: int) -> Tensor:
        return self.noise.step(i + self.offset)


@dataclass(frozen=True, eq=False)
class RePaint:
    """A sampler that fills the pixels outside a mask (Lugmayr et al. 2022, 2201.09865, Alg. 1). At the end the known
    pixels are exactly those of `known`, (1 or B, C, H, W), where the mask, (1 or C, H, W) or (B, ...) bool, is True.

    Each stretch of `jump` steps (10 of 250 in the paper) is sampled `repeats` times (10 in the paper; 1 is plain
    replacement, Song et al. 2020, score_sde). All of it happens within the sampler's one step that ends the stretch, so
    the grid and the states are those of the inner sampler. A multistep sampler's history is of an image that no longer
    exists: after each jump back it starts empty, and carries over from the last repetition into the next stretch.

    The noise of step i in repetition r has the step number i + (r << 20) for the inner sampler, and the same with bit
    30 (known part) or 31 (the jump back from step i) set: all differ for up to 2^20 steps and 1,024 repetitions.
    """

    sampler: Sampler
    known: Tensor
    mask: Tensor
    repeats: int = 10
    jump: int = 1

    order: ClassVar[int] = 1  # whatever the inner sampler's: no multistep method can extrapolate through fresh noise
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise ValueError(f"the mask is {self.mask.dtype}: make it bool, True where pixels are known")
        if not 1 <= self.repeats <= _REPEATS:
            raise ValueError(f"repeats = {self.repeats}: choose from 1 (plain replacement) to {_REPEATS}")
        if self.jump < 1:
            raise ValueError(f"jump = {self.jump}: a stretch has at least 1 step")

    @property
    def evaluations(self) -> int:
        """The inner sampler's times `repeats`, on average over a stretch."""
        return self.sampler.evaluations * self.repeats

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Go from state.t to s; where s ends a stretch, sample the whole stretch `repeats` - 1 times more."""
        history, visited = state.history or ((), ())
        visited = (*visited, state.t)
        here = self._down(denoiser, replace(state, history=history), s, noise, condition, 0)
        if len(visited) < self.jump and s > 0:
            return replace(here, history=(here.history, visited))
        for repeat in range(1, self.repeats):
            here = self._back(denoiser, here, visited, noise, repeat)
            for time in (*visited[1:], s):
                here = self._down(denoiser, here, time, noise, condition, repeat)
        return replace(here, history=(here.history, ()))

    def _down(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None, repeat: int
    ) -> State:
        """One step of the inner sampler, with the known part put in."""
        stepped = self.sampler.step(denoiser, state, s, _Offset(noise, repeat << 20), condition)
        known = self.known.to(stepped.x)
        if s > 0:
            z = noise.step(_KNOWN + (repeat << 20) + state.step)
            known = marginal(known, denoiser.schedule(s)).sample(z)
        return replace(stepped, x=torch.where(self.mask.to(stepped.x.device), known, stepped.x))

    def _back(
        self, denoiser: Denoiser, state: State, visited: tuple[float, ...], noise: NoiseSource, repeat: int
    ) -> State:
        """Noise the image up to where the stretch began, x_t ~ q(x_t | x_s), without the inner history."""
        z = noise.step(_FORWARD + (repeat << 20) + state.step)
        forward = forward_step(state.x, denoiser.schedule(state.t), denoiser.schedule(visited[0]))
        return State(forward.sample(z), visited[0], state.step - len(visited), state.prediction)
