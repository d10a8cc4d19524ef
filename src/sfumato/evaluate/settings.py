"""The settings of an evaluation, checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfumato.diffusion import VARIANCES
from sfumato.errors import UserError, nearest
from sfumato.evaluate.cache import SPLITS
from sfumato.generate.recipe import Recipe, takes

KINDS = ("bits", "quality", "memorisation")
"""The kinds of measurements, in their order."""
CHOICES = {"method": ("sampled", "vlb", "flow"), "real": SPLITS, "variance": (*VARIANCES, "analytic")}


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        num: images generated, and held-out images scored; None is 1,000 and 256.
        seed: of the generated images, of the noise of held-out ones, and of the bootstrap.
        recipe: how images are generated; `vlb` takes the bound of a chain of so many `steps`, evenly spaced, all by
            default; `range` = "clip" clips in scoring too.
        variance: of the reverse step, in scoring and, where the sampler takes one, in sampling; None is the recipe's,
            else the model's own.
        method: of the bits: sampled, vlb or flow (see `bits`).
        repeats: draws of noise for each held-out image; None is 2 for sampled, else 1.
        extractor: as `open_extractor`; None is the best that needs no file.
        real: the real images to compare with, `train` or `held_out`.

    Raises:
        UserError: an invalid value.
    """

    num: int | None = None
    seed: int = 0
    recipe: Recipe = Recipe()
    variance: str | None = None
    method: str = "sampled"
    repeats: int | None = None
    extractor: str | None = None
    real: str = "train"

    def __post_init__(self) -> None:
        for name, number in (("num", self.num), ("repeats", self.repeats)):
            if number is not None and number < 1:
                raise UserError(f"{name} is {number}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(f"{name} can't be '{value}'{nearest(value, choices)}")
        variance = self.variance or self.recipe.variance
        object.__setattr__(self, "variance", variance)
        if takes(self.recipe.sampler, "variance"):
            object.__setattr__(self, "recipe", replace(self.recipe, variance=variance))

    @property
    def num_scored(self) -> int:
        """How many held-out images are scored, if there are so many."""
        return self.num or 256

    @property
    def num_generated(self) -> int:
        """How many images to generate."""
        return self.num or 1000
