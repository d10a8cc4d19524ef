"""Augmentation of training images, whose parameters the network gets as an input (`data.augment`)."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.errors import nearest

KINDS = ("x-flip", "y-flip", "scale", "rotate", "stretch", "translate")
NUMBERS = 9
"""How many numbers describe how an image was altered."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images, whose parameters the network gets as an input.

    Attributes:
        p: probability of each kind, for y-flip half of it; x-flip always has 1/2. 0 = nothing is altered. EDM takes
            0.12 for CIFAR-10 and 0.15 for sets of 70,000 and 15,000 faces.
        kinds: those in use.

    Raises:
        ValueError: p outside [0, 1], or a kind that is unknown or repeated.
    """

    p: float = 0.0
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p = {self.p}: must lie in [0, 1]")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f'kinds names "{kind}", which is unknown{nearest(kind, KINDS)}')
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds names one twice: {', '.join(self.kinds)}")

    @property
    def on(self) -> bool:
        """Whether anything is altered."""
        return self.p > 0 and len(self.kinds) > 0
