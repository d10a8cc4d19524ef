"""A recipe: sampler, steps, time grid, guidance and clipping, by name.

    Recipe(sampler="unipc", steps=20, guidance=2.0).resolve(model)      every default filled in
        .denoiser(model.denoiser, model.codec)                           guided, then clipped
        .build(variance)                                                 the sampler
        .times(denoiser, shape)                                          the grid
        .describe()                                                      the facts stored with every image

`Recipe()` is the default of the command line, `sfumato.sample`, the grids in training, editing, evaluation and
diagnosis. `resolve` fills in a field that is None: the sampler's usual number of steps, its grid, the model's own
variance. `auto` follows measurements (docs/choose-a-sampler.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sfumato.codec.protocol import Codec
from sfumato.conditions.protocol import cycled
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
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Counted
from sfumato.diffusion.fit import fitting_evaluations
from sfumato.diffusion.grid import grid_for
from sfumato.errors import UserError, nearest
from sfumato.model import Model

AUTO = "dpmpp-2"
"""The sampler that `auto` means, as measured in docs/choose-a-sampler.md."""
AUTO_STEPS = {"fast": 10, "best": 20}
"""Its steps for each quality."""
VISIBLE_STEPS = {"fast": 6, "best": 10}
"""The same on the grid `visible`, which is shorter: more steps change nothing that 1,000 samples show."""
_OWN_GRIDS = {"refined": "visible"}
"""The grid by what the network predicts, for every sampler but ddpm; logsnr or trailing where it predicts another."""

QUALITIES = tuple(AUTO_STEPS)


def _thresholded(denoiser: Denoiser, codec: Codec) -> Denoiser:
    if codec.range != (-1.0, 1.0):
        raise UserError("range threshold needs images in a fixed range, and this model has none: use clip or free")
    return Thresholded(denoiser)


RANGES: dict[str, Callable[[Denoiser, Codec], Denoiser]] = {
    "clip": lambda denoiser, codec: Clipped(denoiser, codec.clip),
    "threshold": _thresholded,
    "free": lambda denoiser, codec: denoiser,
}
"""The treatment of each predicted image, as what is made of a denoiser: clipped to the range of images, dynamically
thresholded, or unchanged."""

FITTED_ON, FITTED_SEED = 16, 0
"""The number of images for a fitted grid, and their seed: always the same, so that the grid depends only on the
model."""
EVALUATIONS = 20
"""Network evaluations of a higher-order solver where no steps are given."""


@dataclass(frozen=True)
class Recipe:
    """A sampling configuration. `resolve` replaces None by a default.

    Attributes:
        sampler: a name of `SAMPLERS`, or `auto`.
        quality: of `auto`: `fast` or `best`.
        steps: of the sampler.
        grid: its times: a name of `GRIDS`, or `fitted` to the model.
        eta: noise of ddim.
        variance: of a step of ddpm: small, large, learned, or analytic (measured, see `generate.variance`).
        range: a name of `RANGES`: `clip`, `threshold` or `free`.
        guidance: scale w of guidance; 1 is none.
        interval: (low, high) of t where guidance acts; None is everywhere.
        rescale: fraction of the contrast added by guidance that is removed.

    Raises:
        UserError: a value out of its range, or an option that the sampler does not have.
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
            ("sampler", ("auto", *SAMPLERS)),
            ("quality", QUALITIES),
            ("grid", (*GRIDS, "fitted")),
            ("variance", (*VARIANCES, "analytic")),
            ("range", RANGES),
        ):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(f"{name}: '{value}' is unknown{nearest(value, choices)}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps is {self.steps}: it must be at least 1")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta:g}: it must lie from 0 (deterministic) to 1 (ancestral)")
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"guidance is {self.guidance:g}: give a number of 0 or more; 1 is no guidance")
        if not 0 <= self.rescale <= 1:
            raise UserError(f"rescale is {self.rescale:g}: it must lie from 0 to 1")
        if self.interval is not None and not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise UserError("interval: give two times, the lower first, from 0 (data) to 1 (noise)")
        if self.eta is not None and not takes(self.sampler, "eta"):
            raise UserError(f"eta belongs to ddim: leave it out, or use the sampler ddim, not {self.sampler}")
        if self.variance is not None and not takes(self.sampler, "variance"):
            takers = ", ".join(name for name in SAMPLERS if takes(name, "variance"))
            raise UserError(f"variance belongs to {takers}: leave it out, or use one of them, not {self.sampler}")
        if self.guidance == 1 and (self.interval is not None or self.rescale):
            raise UserError("interval and rescale belong to guidance: give a guidance other than 1")

    def resolve(self, model: Model) -> Recipe:
        """Return the recipe with every default filled in for a model; raises `UserError` for more steps than its chain
        has, or a variance that it has not learned."""
        chain, own = model.schedule.num_steps, model.config.diffusion.variance
        if self.sampler == "auto":
            sampler, steps, grid = AUTO, AUTO_STEPS[self.quality], "logsnr"
        else:
            sampler, steps, grid = _usual(self.sampler, chain)
        if sampler != "ddpm":
            grid = _OWN_GRIDS.get(model.config.diffusion.parameterization, grid)
        grid = self.grid or grid
        if self.sampler == "auto" and grid == "visible":
            steps = VISIBLE_STEPS[self.quality]
        steps = self.steps or min(steps, chain)
        if steps > chain:
            raise UserError(f"steps is {steps}, and the model's chain has {chain}: choose from 1 to {chain}")
        resolved = replace(self, sampler=sampler, steps=steps, grid=grid)
        if takes(sampler, "eta"):
            resolved = replace(resolved, eta=self.eta or 0.0)
        if takes(sampler, "variance"):
            resolved = replace(resolved, variance=self.variance or own)
            if resolved.variance == "learned" != own:
                raise UserError(f"this model has learned no variance (it was trained with {own}): use small or large")
        return resolved

    def denoiser(self, plain: Denoiser, codec: Codec, weak: Denoiser | None = None) -> Denoiser:
        """Return the denoiser to sample with: the model's own, guided, and clipped outside of the guidance.

        Guidance is away from the unconditional prediction, or from that of `weak`, a worse model's denoiser. Raises
        `UserError` where that has another schedule, or for thresholding where x_0 has no range.
        """
        guided = plain
        if weak is not None:
            try:
                guided = AutoGuided(plain, weak, self.guidance, self.interval)
            except ValueError as error:
                raise UserError(str(error)) from None
        elif self.guidance != 1:
            guided = Guided(plain, self.guidance, self.interval, self.rescale)
        return RANGES[self.range](guided, codec)

    def build(self, variance: Variance | None = None) -> Sampler:
        """Return the sampler of a resolved recipe; `variance` is the measured one, where the recipe says `analytic`."""
        assert self.sampler != "auto", "resolve a recipe before it is used"
        options: dict[str, Any] = {}
        if takes(self.sampler, "eta"):
            options["eta"] = self.eta
        if takes(self.sampler, "variance"):
            assert self.variance is not None
            options["variance"] = variance if self.variance == "analytic" else VARIANCES[self.variance]
            assert options["variance"] is not None, "an analytic variance must be measured first"
        return SAMPLERS[self.sampler](**options)

    def times(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        condition: Condition | None = None,
        device: Any = "cpu",
        report: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Return the (steps + 1,) times of a resolved recipe.

        A grid fitted to the denoiser is measured here on 16 trajectories of x_0 (C, H, W), which cycle through the
        condition; `report` is then called with (evaluations done, about how many in all).
        """
        assert self.steps is not None, "resolve a recipe before it is used"
        if self.grid != "fitted":
            return grid_for(SAMPLERS[self.sampler](), str(self.grid), self.steps, denoiser.schedule)
        index = torch.arange(FITTED_ON, device=device)
        rows = None if condition is None else cycled(condition, FITTED_ON).to(device)
        sampler, done = SAMPLERS[self.sampler](), 0
        total = fitting_evaluations(self.steps, sampler)

        def tick(_: int) -> None:
            nonlocal done
            done += 1
            if report is not None:
                report(min(done, total), total)

        fitted = fit_grid(Counted(denoiser, tick), Noise(FITTED_SEED, index, shape), self.steps, rows, sampler)
        if report is not None:
            report(total, total)
        return fitted

    def describe(self) -> dict[str, Any]:
        """Return everything that determines an image besides the model, its seed and its condition, without options
        that have no effect."""
        options: dict[str, Any] = {"sampler": self.sampler, "steps": self.steps, "grid": self.grid}
        options |= {name: getattr(self, name) for name in ("eta", "variance") if getattr(self, name) is not None}
        options["range"] = self.range
        if self.guidance != 1:
            options["guidance"] = self.guidance
            options |= {"interval": list(self.interval)} if self.interval else {}
            options |= {"rescale": self.rescale} if self.rescale else {}
        return options


def takes(sampler: str, option: str) -> bool:
    """Whether a sampler has an option, such as `eta` or `variance`; `auto` has none."""
    if sampler == "auto":
        return False
    kind = SAMPLERS[sampler]
    fixed = kind.keywords if isinstance(kind, partial) else {}  # `euler` is ddim with its eta fixed
    return option in {field.name for field in fields(kind())} - set(fixed)  # type: ignore[arg-type]


def _usual(sampler: str, chain: int) -> tuple[str, int, str]:
    """The whole chain for ddpm as published, 50 steps for ddim, and 20 evaluations for solvers of higher order."""
    if sampler in ("ddpm", "ddim"):
        return sampler, chain if sampler == "ddpm" else 50, "trailing"
    return sampler, max(1, EVALUATIONS // SAMPLERS[sampler]().evaluations), "trailing"
