r"""Counter-based random numbers: every number is a pure function of what it is for.

A counter-based generator is a keyed bijection of 128-bit counters, without a state to carry, split or save; the counter
is the address of the number:

    words = Philox4x32-10(counter, key)                                        Salmon et al. 2011, Random123
    key     = (seed mod 2^32, seed div 2^32)
    counter = (block, index mod 2^32, step, purpose * 2^24 + index div 2^32)

`index` is the example (image i of a sample, position n of the training stream), `step` the time step or epoch,
`purpose` what the number is for, and `block` counts groups of four words inside one example. Different counters give
independent numbers; the same counter gives the same number in any batch, device or process, whatever was drawn before.
So image i of seed s does not depend on the batch size, and training resumes exactly without a generator's state.

Philox multiplies 32-bit words into 64 bits. Torch has no unsigned 64-bit product, but int64 products wrap modulo 2^64
and an arithmetic shift followed by a mask reads the high word, so plain int64 tensors serve on every device. Normals
come from the words by Box-Muller, four words to four normals:

    u = (w + 1/2) / 2^32,    r = sqrt(-2 log u_1),    z_1 = r cos(2 pi u_2),    z_2 = r sin(2 pi u_2)

The integers are the same everywhere; the normals agree to the last bits of log, cos and sin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Purpose(IntEnum):
    """What a random number is for, which keeps uses independent. A value is never used again."""

    PRIOR = 0  # x_T of a sample
    STEP = 1  # z of a sampling step
    TRAIN_NOISE = 2  # eps of a training example
    TRAIN_TIME = 3  # t of a training example
    ORDER = 4  # the order of the data in an epoch
    FLIP = 5  # mirror a training example
    LABEL_DROPOUT = 6  # train an example without its label
    DROPOUT = 7  # seeds of the network's dropout
    HELD_OUT_NOISE = 8  # eps of a held-out example
    HELD_OUT_TIME = 9  # t of a held-out example
    INITIAL_WEIGHTS = 10  # seed of a network's initialisation
    ORACLE = 11  # exact samples of an oracle's distribution
    LABEL = 12  # labels drawn for samples
    MEASUREMENT = 13  # noise of a measurement made up to try an edit
    AUGMENT = 14  # how a training example is altered
    CROP = 15  # where a training example is cut out of a larger picture


Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four int64 tensors that broadcast together, each word in [0, 2^32)."""


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return Philox4x32-10 of a counter, the keyed bijection of 128-bit counters (Salmon et al. 2011, "Parallel random
    numbers: as easy as 1, 2, 3"); the key is two words in [0, 2^32)."""
    c_0, c_1, c_2, c_3 = counter
    k_0, k_1 = key
    for _ in range(_ROUNDS):
        low, high = c_0 * _MULTIPLIERS[0], c_2 * _MULTIPLIERS[1]
        c_0 = ((high >> 32) ^ c_1).bitwise_xor_(k_0).bitwise_and_(_MASK)
        c_2 = ((low >> 32) ^ c_3).bitwise_xor_(k_1).bitwise_and_(_MASK)
        c_1, c_3 = high, low  # their high halves are masked in the next round
        k_0, k_1 = (k_0 + _WEYL[0]) & _MASK, (k_1 + _WEYL[1]) & _MASK
    return c_0, c_1 & _MASK, c_2, c_3 & _MASK


def words(seed: int, purpose: Purpose, index: Tensor, count: int, step: int = 0) -> Tensor:
    """Return `count` 32-bit words for each example, (B, count) int64 on `index`'s device (the CPU for one on an Apple
    GPU, which has no fast integers of 64 bits), each in [0, 2^32).

    The seed lies in [0, 2^64), the examples `index` (B,) int64 in [0, 2^56), the time step or epoch in [0, 2^32).
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} is out of range: use an integer from 0 to 2^64 - 1")
    if not 0 <= step < 2**32:
        raise ValueError(f"step {step} is out of range: use an integer from 0 to 2^32 - 1")
    index = index.cpu() if index.device.type == "mps" else index
    _check_index(index)
    index = index.to(torch.int64)[:, None]
    block = torch.arange(-(-count // 4), device=index.device)[None, :]
    tail = (index >> 32) | (int(purpose) << 24)
    counter = (block, index & _MASK, torch.full_like(index, step), tail)
    return torch.stack(philox(counter, (seed & _MASK, seed >> 32)), dim=-1).flatten(1)[:, :count]


def _check_index(index: Tensor) -> None:
    """Refuse indices that another key would share; on other devices than the CPU the check would stall the queue."""
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise ValueError(f"the index is {index.dtype}: number the examples by integers")
    if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < 2**56:
        wrong = int(index.min()) if int(index.min()) < 0 else int(index.max())
        raise ValueError(f"index {wrong} is out of range: number the examples from 0 to 2^56 - 1")


def uniform(seed: int, purpose: Purpose, index: Tensor, shape: tuple[int, ...] = (), step: int = 0) -> Tensor:
    """Return uniform numbers in [0, 1), multiples of 2^-32, (B, *shape) float64; arguments as `words`."""
    count = math.prod(shape)
    return (words(seed, purpose, index, count, step).to(torch.float64) * 2.0**-32).reshape(len(index), *shape)


def normal(
    seed: int,
    purpose: Purpose,
    index: Tensor,
    shape: tuple[int, ...],
    step: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return standard normal numbers by Box-Muller, (B, *shape); other arguments as `words`.

    They are computed in `dtype`, but in float32 where it is a half precision, which cannot hold the words; and on the
    CPU for an index on an Apple GPU.
    """
    if index.device.type == "mps":
        return normal(seed, purpose, index.cpu(), shape, step, dtype).to(index.device)
    count = math.prod(shape)
    counters = words(seed, purpose, index, 4 * -(-count // 4), step)
    pairs = counters.to(torch.promote_types(dtype, torch.float32)).reshape(len(index), -(-count // 4) * 2, 2)
    # log of a float32 near 2^-33 is exact enough: the tail reaches 6.8 standard deviations
    radius = pairs[..., 0].add(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
    angle = pairs[..., 1].add(0.5).mul_(2.0**-32 * 2.0 * math.pi)
    z = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return z.flatten(1)[:, :count].reshape(len(index), *shape).to(dtype)


def permutation(seed: int, purpose: Purpose, count: int, step: int = 0) -> Tensor:
    """Return a uniformly random order of 0 .. count - 1, (count,) int64: the argsort of one 63-bit number an element.

    Ties (probability under count^2 / 2^64) keep their order, so the result is always defined.
    """
    pair = words(seed, purpose, torch.arange(count), 2, step)
    return torch.argsort((pair[:, 0] << 31) | (pair[:, 1] >> 1), stable=True)


class NoiseSource(Protocol):
    """Where a sampler's random numbers come from; `Noise` is the usual one."""

    def prior(self) -> Tensor:
        """Return x_T ~ N(0, I), (B, C, H, W)."""

    def step(self, i: int) -> Tensor:
        """Return z ~ N(0, I) of step i, (B, C, H, W)."""


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of samples, as a value: samples `index` (B,) int64 of a seed, each of a shape (C, H, W)."""

    seed: int
    index: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def prior(self) -> Tensor:
        """Return the start of the chain, x_T ~ N(0, I): (B, *shape)."""
        return normal(self.seed, Purpose.PRIOR, self.index, self.shape, dtype=self.dtype)

    def step(self, i: int) -> Tensor:
        """Return z ~ N(0, I) of the sampler's i-th step (counted from 0 at the noisy end): (B, *shape)."""
        return normal(self.seed, Purpose.STEP, self.index, self.shape, step=i, dtype=self.dtype)
