r"""Which t to train on: importance sampling by loss history, for objectives whose terms differ by orders of magnitude.

The bound L = sum_t L_t is estimated from one t a time, and its terms span orders of magnitude, so a uniform t makes a
noisy gradient. Drawing t with probability p_t and weighing its loss by 1 / (T p_t) changes nothing in the mean, and the
variance is least for

    p_t ~ sqrt( E[L_t^2] ),     E[L_t^2] from the last 10 losses seen at t                             IDDPM Eq. 18

Until every t has been seen 10 times t stays uniform; afterwards a thousandth of the probability does, so that no t is
ever forgotten. The history is a value: `update` returns the next one, and its tensors can be saved with a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.diffusion.objective import Terms

__all__ = ["LossHistory"]

_LENGTH = 10
_UNIFORM = 1e-3


@dataclass(frozen=True)
class LossHistory:
    """The last losses at each step of the chain.

    Attributes:
        losses: (T, 10), the newest ten of each t, in no order.
        seen: (T,) int64, how many losses each t has had.
    """

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
        """Turn uniform numbers into times and the weights that keep the mean.

        Args:
            u: (B,) float64 in [0, 1).

        Returns:
            t (B,) float64 in 1/T .. 1, and weights 1 / (T p_t), (B,) float64.
        """
        p = self.probabilities
        step = torch.searchsorted(p.cumsum(0), u.to(torch.float64), right=True).clamp(max=len(p) - 1)
        return (step + 1).to(torch.float64) / len(p), 1 / (len(p) * p[step])

    def update(self, terms: Terms) -> LossHistory:
        """Return the history with a batch's unweighted losses added; non-finite ones are passed over."""
        losses, seen = self.losses.clone(), self.seen.clone()
        steps = (terms.t.cpu() * len(seen)).round().long() - 1
        for step, loss in zip(steps.tolist(), terms.loss.detach().double().cpu().tolist(), strict=True):
            if loss == loss and abs(loss) != float("inf"):
                losses[step, int(seen[step]) % _LENGTH] = loss
                seen[step] += 1
        return replace(self, losses=losses, seen=seen)
