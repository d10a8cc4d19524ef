r"""Which t to train on: importance sampling by loss history, for objectives whose terms differ by orders of magnitude.

The bound L = sum_t L_t is estimated from one t at a time, and its terms span orders of magnitude, so a uniform t makes
a noisy gradient. Drawing t with probability p_t and weighing its loss by 1 / (T p_t) leaves the mean as it is, and the
variance is least for

    p_t ~ sqrt( E[L_t^2] ),     E[L_t^2] from the last 10 losses seen at t                             IDDPM Eq. 18

Until every t has been seen 10 times t is uniform; afterwards a thousandth of the probability is, so that no t is left
out. The history is a value: `update` returns the next one, and its tensors are saved with a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.objective import Terms

_LENGTH = 10
_UNIFORM = 1e-3


@dataclass(frozen=True)
class LossHistory:
    """The newest ten losses at each step of the chain, (T, 10), in no order, and how many each has had, (T,) int64."""

    losses: Tensor
    seen: Tensor

    @classmethod
    def empty(cls, num_steps: int) -> LossHistory:
        """Return the history of a chain of T steps before training."""
        return cls(torch.zeros(num_steps, _LENGTH, dtype=torch.float64), torch.zeros(num_steps, dtype=torch.int64))

    @property
    def probabilities(self) -> Tensor:
        """p_t for t = 1/T .. 1, (T,) float64, summing to one."""
        num_steps = len(self.seen)
        even = torch.full((num_steps,), 1 / num_steps, dtype=torch.float64)
        root = self.losses.square().mean(1).sqrt()
        if int(self.seen.min()) < _LENGTH or float(root.sum()) == 0:
            return even
        return (1 - _UNIFORM) * root / root.sum() + _UNIFORM * even

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and the weights 1 / (T p_t) that keep the mean, both (B,) float64, for u (B,) uniform in
        [0, 1)."""
        p = self.probabilities
        step = torch.searchsorted(p.cumsum(0), u.to(torch.float64), right=True).clamp(max=len(p) - 1)
        return (step + 1).to(torch.float64) / len(p), 1 / (len(p) * p[step])

    def update(self, terms: Terms) -> LossHistory:
        """Return the history with a batch's unweighted losses added; non-finite ones are left out."""
        losses, seen = self.losses.clone(), self.seen.clone()
        steps = (terms.t.cpu() * len(seen)).round().long() - 1
        loss = terms.loss.detach().double().cpu()
        for i in loss.isfinite().nonzero()[:, 0].tolist():
            losses[steps[i], seen[steps[i]] % _LENGTH] = loss[i]
            seen[steps[i]] += 1
        return LossHistory(losses, seen)
