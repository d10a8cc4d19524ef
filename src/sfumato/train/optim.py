r"""The optimiser: Adam, AdamW (also with 8-bit moments, `eight`) or Muon, its rate over the run, gradient clipping.

The rate follows the images seen: n before the step, B in the step, of N planned,

    lr(n) = lr * min( 1, (n + B) / warmup ) * decay( n / N )
    decay(u) = 1  |  (1 + cos pi u) / 2  |  1 - u  |  min(1, (1 - u) / 0.3)      constant, cosine, linear, late

A run that is extended at S images, after its decay has begun, warms up and decays again over the added part (as Ibrahim
et al. 2024, 2403.08763, do for language models): n - S and N - S take the place of n and N, and the warm-up is 5 % of
N - S.

A step whose loss or gradient is not finite must change nothing, and the check must not make a GPU wait. So every step
is launched, and a flag on the device decides; torch's fused Adam has it for its gradient scaler: where `found_inf` is 1
neither weights nor moments nor step counts change, bit for bit. Muon (`muon`) takes the network's inner matrices
(`Network.matrices`), AdamW everything else at the same rate. Several processes divide the matrices to orthogonalise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from sfumato.config.train import OptimConfig, in_images
from sfumato.nets import Network
from sfumato.ranks import World
from sfumato.train import eight, muon
from sfumato.train.shards import Shards

LATE = 0.3
"""The last fraction of a run, in which the decay `late` goes to zero: a run keeps its full rate longer than by a cosine
(Haegele et al. 2024, 2405.18392)."""

REWARMED = 0.05
"""The fraction of an added part in which the rate rises again."""

_ADAMS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamw8bit": torch.optim.AdamW,
    "muon": torch.optim.AdamW,
}
_DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda u: 1.0,
    "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    "linear": lambda u: 1 - u,
    "late": lambda u: min(1.0, (1 - u) / LATE),
}
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(config: OptimConfig, images: int, batch: int, planned: int, start: int = 0) -> float:
    """Return lr(n) of the step of B = `batch` images that starts when n = `images` of N = `planned` have been seen.

    Args:
        start: S, where the run was extended; 0 in a run that was not.
    """
    seen, length = images - start, planned - start
    warmup = REWARMED * length if start else in_images(config.warmup, planned)
    rising = min(1.0, (seen + batch) / warmup) if warmup > 0 else 1.0
    return config.lr * rising * _DECAYS[config.decay](min(1.0, seen / length))


class Optimizer:
    """The optimiser of a network's weights and its state, zero at first.

    Adam's moments take their weight's memory layout: torch's fused kernels run through memory in order, so a moment in
    another layout would silently belong to other weights.

    Attributes:
        norms: of the gradient of each weight that has one, before they were clipped last.
        counts: whether it takes the rate and counts steps on the processor, so that no graph can hold its step.
    """

    norms: Tensor

    def __init__(self, config: OptimConfig, net: Network, world: World = World(), shards: Shards | None = None) -> None:
        self.config, self.world, self.shards = config, world, shards or Shards(net)
        self._named = self.shards.weights
        matrices = net.matrices() if config.name == "muon" else {}
        self._momenta = {name: torch.zeros_like(self._named[name]) for name in matrices}
        self._by_shape = [list(names) for _, names in groupby(sorted(matrices, key=self._shape), self._shape)]
        large = {name: weight for name, weight in self._named.items() if weight.numel() >= eight.SMALL}
        self._eight = eight.EightBit(large if config.name == eight.NAME else {})
        self.counts = config.name == eight.NAME
        self._elsewhere = {*matrices, *(large if config.name == eight.NAME else ())}
        rest = [weight for name, weight in self._named.items() if name not in self._elsewhere]
        self._adam: torch.optim.Optimizer = _ADAMS[config.name](  # type: ignore[call-arg]
            rest,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=next(net.parameters()).device.type == "cuda",
        )
        for weight in rest:
            self._adam.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
            }

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.shards.shapes[name]

    def clip(self) -> Tensor:
        """Scale all gradients to a joint norm of at most `config.clip`, and return the norm before: () tensor, not
        finite where any gradient is not."""
        weights = [weight for weight in self._named.values() if weight.grad is not None]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        self.norms = self.shards.norms(torch.stack(torch._foreach_norm(gradients)))
        norm: Tensor = torch.linalg.vector_norm(self.norms)
        if self.config.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(weights, self.config.clip, norm)
        return norm

    def step(self, lr: float | Tensor, applied: Tensor) -> None:
        """Take one step at rate `lr`, a number or a () tensor, where `applied`, a () tensor, is 1, and forget the
        gradients; where it is 0 change nothing, bit for bit."""
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.grad_scale = None  # type: ignore[attr-defined]
        self._adam.found_inf = 1 - applied  # type: ignore[attr-defined]
        self._adam.step()
        self._eight.step(self.config, lr, applied)
        first = 0
        for names in self._by_shape:
            weights = [self._named[name] for name in names]
            momenta, gradients = [self._momenta[name] for name in names], [weight.grad for weight in weights]
            orthogonalise = partial(self._orthogonalised_rows, names=names, first=first)
            rows, *others = self._shape(names[0])
            options = (lr, applied, self.config.weight_decay, orthogonalise, max(rows, math.prod(others)))
            muon.step(weights, momenta, gradients, *options)  # type: ignore[arg-type]
            first += len(names)
        for weight in self._named.values():
            weight.grad = None

    def _orthogonalised_rows(self, matrices: Tensor, names: list[str], first: int) -> Tensor:
        """Orthogonalise matrices, or those of which these are the rows here."""
        if not self.shards.on:
            return self._orthogonalised(matrices, first)
        whole = self.shards.whole(names[0], matrices.transpose(0, 1)).transpose(0, 1)
        return self._orthogonalised(whole, first)[:, self.shards.here(names[0])]

    def _orthogonalised(self, matrices: Tensor, first: int) -> Tensor:
        """Orthogonalise matrices, each on one rank in turn; `first` is the number of those of other shapes before."""
        if self.world.alone:
            return muon.orthogonalised(matrices)
        own = [row for row in range(len(matrices)) if (first + row) % self.world.size == self.world.rank]
        return self.world.gather(muon.orthogonalised(matrices[own]), own, len(matrices))

    def adopt(self, config: OptimConfig) -> None:
        """Go on with other values, of the same optimiser."""
        self.config = config
        values = {"betas": (config.beta1, config.beta2), "eps": config.eps, "weight_decay": config.weight_decay}
        for group in self._adam.param_groups:
            group.update(values)

    def state(self) -> dict[str, Tensor]:
        """Return the state as named tensors: `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`; `momentum/NAME`; those
        of `eight`."""
        adam = {
            f"{key}/{name}": self._adam.state[weight][key]
            for name, weight in self._named.items()
            if name not in self._elsewhere
            for key in _MOMENTS
        }
        momenta = {f"momentum/{name}": momentum for name, momentum in self._momenta.items()}
        return adam | self._eight.state() | momenta
