"""How images are drawn, in words: the one place where a command line's words become a denoiser, a sampler and times.

    Recipe(sampler="unipc", steps=20, guidance=2.0).settle(model)       every word decided, or one clear line
        .denoiser(model.denoiser)                                        guided, then kept in range
        .build(variance)                                                 the sampler
        .times(denoiser, shape)                                          the grid
        .facts()                                                         what is written beside every image

`sample`, `evaluate` and `edit` all draw by a recipe, so that what one of them can do, each can. A word that is left out
(None) is decided by `settle`: the sampler's usual number of steps, its grid, the model's own variance. `auto` follows
what was measured (docs/choose-a-sampler.md).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfumato.diffusion import (
    GRIDS,
    SAMPLERS,
    VARIANCES,
    AutoGuided,
    Clipped,
    Denoiser,
    Guided,
    Noise,
    Sampler,
    Thresholded,
    Variance,
    fit_grid,
)
from sfumato.errors import UserError, nearest

if TYPE_CHECKING:
    from sfumato.weights import Model

__all__ = ["AUTO", "QUALITIES", "RANGES", "SAMPLER_NAMES", "Recipe", "takes"]

AUTO: dict[str, tuple[str, int, str]] = {"fast": ("dpmpp-2", 10, "logsnr"), "best": ("dpmpp-2", 20, "logsnr")}
"""What `auto` means: sampler, steps and grid for each quality; measured, see docs/choose-a-sampler.md."""

QUALITIES = tuple(AUTO)
SAMPLER_NAMES = ("auto", *SAMPLERS)
GRID_NAMES = (*GRIDS, "fitted")
RANGES = ("clip", "threshold", "free")
"""What is done with a predicted image on the way: clamped to [-1, 1], dynamically thresholded, or nothing."""

FITTED_ON, FITTED_SEED = 16, 0
"""Images, and their seed, that a fitted grid is measured on: the same for everybody, so that it is a function of the
model."""
EVALUATIONS = 20
"""Evaluations that a solver of higher order takes where no steps are given."""


@dataclass(frozen=True)
class Recipe:
    """How images are drawn. None leaves a choice to `settle`.

    Attributes:
        sampler: a name of `SAMPLERS`, or `auto`.
        quality: what `auto` aims at, `fast` or `best`.
        steps: of the sampler.
        grid: which times it visits, a name of `GRIDS`, or `fitted` to the model.
        eta: noise of ddim.
        variance: of the step of ddpm: small, large, learned, or analytic, which must be measured.
        range: `clip`, `threshold` or `free`.
        guidance: scale w of guidance; 1 is none.
        interval: (low, high) of t where guidance acts; None is everywhere.
        rescale: share of the contrast that guidance added that is taken back.

    Raises:
        UserError: a value that can't be.
    """

    sampler: str = "auto"
    quality: str = "best"
    steps: int | None = None
    grid: str | None = None
    eta: float | None = None
    variance: str | None = None
    range: str = "clip"
    guidance: float = 1.0
    interval: tuple[float, float] | None = None
    rescale: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in (
            ("sampler", SAMPLER_NAMES),
            ("quality", QUALITIES),
            ("grid", GRID_NAMES),
            ("variance", (*VARIANCES, "analytic")),
            ("range", RANGES),
        ):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(f"{name} can't be '{value}'{nearest(value, choices)}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps is {self.steps}: it must be at least 1")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta:g}: it must lie from 0 (deterministic) to 1 (ancestral)")
        if self.guidance < 0:
            raise UserError(f"guidance is {self.guidance:g}: give 0 or more; 1 is none")
        if not 0 <= self.rescale <= 1:
            raise UserError(f"rescale is {self.rescale:g}: it must lie from 0 to 1")
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise UserError("the interval of guidance is two times, low below high, from 0 (data) to 1 (noise)")
        self._check_options()

    def _check_options(self) -> None:
        """Refuse an option that the sampler would not use."""
        if self.eta is not None and not takes(self.sampler, "eta"):
            raise UserError(f"eta belongs to ddim: leave it out, or use the sampler ddim, not {self.sampler}")
        if self.variance is not None and not takes(self.sampler, "variance"):
            takers = ", ".join(name for name in SAMPLERS if takes(name, "variance"))
            raise UserError(f"variance belongs to {takers}: leave it out, or use one of them, not {self.sampler}")
        if self.guidance == 1 and (self.interval is not None or self.rescale):
            raise UserError("interval and rescale belong to guidance: give a guidance other than 1")

    def settle(self, model: Model) -> Recipe:
        """Return the recipe with every choice made for a model.

        Args:
            model: whose chain, variance and attributes decide.

        Raises:
            UserError: more steps than the chain has, or something that this model can't do.
        """
        chain, own = model.denoiser.schedule.num_steps, model.config.diffusion.variance
        sampler, steps, grid = self._decided(chain)
        if steps > chain:
            raise UserError(f"steps is {steps}, and the model's chain has {chain}: choose from 1 to {chain}")
        settled = replace(self, sampler=sampler, steps=steps, grid=grid)
        if takes(sampler, "eta"):
            settled = replace(settled, eta=self.eta or 0.0)
        if takes(sampler, "variance"):
            settled = replace(settled, variance=self.variance or own)
            if settled.variance == "learned" != own:
                raise UserError(f"this model has learnt no variance, it was trained with {own}: use small or large")
        return settled

    def _decided(self, chain: int) -> tuple[str, int, str]:
        """The sampler, its steps and its grid."""
        if self.sampler == "auto":
            sampler, steps, grid = AUTO[self.quality]
        else:
            sampler, steps, grid = self.sampler, _usual_steps(self.sampler, chain), "trailing"
        return sampler, self.steps or min(steps, chain), self.grid or grid

    def denoiser(self, plain: Denoiser, weak: Denoiser | None = None) -> Denoiser:
        """Return the denoiser that is drawn with: guided, and kept in range outside of the guidance.

        Args:
            plain: the model's own.
            weak: a worse model's, to be guided away from in place of the missing condition.

        Raises:
            UserError: the weak one has another schedule.
        """
        guided = plain
        if weak is not None:
            try:
                guided = AutoGuided(plain, weak, self.guidance, self.interval)
            except ValueError as error:
                raise UserError(str(error)) from None
        elif self.guidance != 1:
            guided = Guided(plain, self.guidance, self.interval, self.rescale)
        return guided if self.range == "free" else (Clipped if self.range == "clip" else Thresholded)(guided)

    def build(self, variance: Variance | None = None) -> Sampler:
        """Return the sampler of a settled recipe.

        Args:
            variance: the measured one, where the recipe says `analytic`.
        """
        assert self.sampler != "auto", "settle a recipe before it is used"
        options: dict[str, Any] = {}
        if takes(self.sampler, "eta"):
            options["eta"] = self.eta
        if takes(self.sampler, "variance"):
            assert self.variance is not None
            options["variance"] = variance if self.variance == "analytic" else VARIANCES[self.variance]
            assert options["variance"] is not None, "an analytic variance must be measured first"
        return SAMPLERS[self.sampler](**options)

    def times(
        self, denoiser: Denoiser, shape: tuple[int, ...], conditions: Tensor | None = None, device: Any = "cpu"
    ) -> Tensor:
        """Return the (steps + 1,) times of a settled recipe; a fitted grid is measured here, some 16 images' walk.

        Args:
            denoiser: that is drawn with.
            shape: (C, H, W) of an image.
            conditions: (N, A) as the images will be drawn with, for a fitted grid; None for none.
            device: where the denoiser works.
        """
        assert self.steps is not None, "settle a recipe before it is used"
        if self.grid != "fitted":
            return GRIDS[str(self.grid)](self.steps, denoiser.schedule)
        index = torch.arange(FITTED_ON, device=device)
        given = None if conditions is None else conditions[torch.arange(FITTED_ON) % len(conditions)].to(device)
        return fit_grid(denoiser, Noise(FITTED_SEED, index, shape), self.steps, given, SAMPLERS[self.sampler]())

    @property
    def evaluations(self) -> int:
        """Network evaluations of an image of a settled recipe, guidance counted, a short last step not."""
        assert self.steps is not None, "settle a recipe before it is used"
        twice = 2 if self.guidance not in (0, 1) and self.interval is None else 1
        return self.steps * self.build(VARIANCES["small"]).evaluations * twice

    def facts(self) -> dict[str, Any]:
        """Return what decides an image besides the model, its seed and its condition, without what has no effect."""
        known: dict[str, Any] = {"sampler": self.sampler, "steps": self.steps, "grid": self.grid}
        known |= {name: getattr(self, name) for name in ("eta", "variance") if getattr(self, name) is not None}
        known["range"] = self.range
        if self.guidance != 1:
            known["guidance"] = self.guidance
            known |= {"interval": list(self.interval)} if self.interval else {}
            known |= {"rescale": self.rescale} if self.rescale else {}
        return known


def takes(sampler: str, option: str) -> bool:
    """Whether a sampler has an option, such as `eta` or `variance`; `auto` decides for itself and has none."""
    return sampler != "auto" and option in {field.name for field in fields(SAMPLERS[sampler]())}  # type: ignore[arg-type]


def _usual_steps(sampler: str, chain: int) -> int:
    """The paper's whole chain for ddpm, 50 for ddim, and 20 evaluations for what has a higher order."""
    if sampler in ("ddpm", "ddim"):
        return chain if sampler == "ddpm" else 50
    return max(1, EVALUATIONS // SAMPLERS[sampler]().evaluations)
