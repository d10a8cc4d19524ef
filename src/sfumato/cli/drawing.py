"""The options that say how images are drawn: the same for every verb that draws, made a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from sfumato.cli.options import option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.generate.recipe import Recipe

__all__ = ["DRAWN_BY", "Drawing", "interval"]

SamplerName = Literal[
    "auto", "ddpm", "ddim", "euler", "heun", "edm", "dpmpp-1", "dpmpp-2", "dpmpp-3", "dpmpp-sde", "unipc", "pndm"
]
GridName = Literal["trailing", "leading", "uniform", "quadratic", "logsnr", "karras", "fitted"]


DRAWN_BY = ("sampler", "steps", "grid", "eta", "range", "guidance", "rescale")
"""The options that are a recipe's as they are."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Options of a verb that draws."""

    sampler: Annotated[SamplerName, option("NAME")] = "auto"
    """auto (by default), ddpm (the paper's ancestral one), ddim, euler, heun, edm, dpmpp-1, dpmpp-2, dpmpp-3,
    dpmpp-sde, unipc or pndm; see docs/choose-a-sampler.md"""
    steps: Annotated[int | None, option("N")] = None
    """steps of the sampler; what auto says, 50 for ddim, the whole chain for ddpm, 20 evaluations for others"""
    grid: Annotated[GridName | None, option("NAME")] = None
    """times it visits: trailing, leading, uniform, quadratic, logsnr, karras, or fitted to the model"""
    eta: Annotated[float | None, option("X")] = None
    """noise of ddim: 0 (the default) is deterministic, 1 is ancestral"""
    variance: Annotated[Literal["small", "large", "learned", "analytic"] | None, option("NAME")] = None
    """of a step of ddpm: small, large, learned, or analytic (measured); the model's own by default"""
    range: Literal["clip", "threshold", "free"] = "clip"
    """keep each predicted image in range on the way: clip it, threshold it dynamically, or leave it"""
    guidance: float = 1.0
    """scale of classifier-free guidance towards the label; 1 is none"""
    interval: Annotated[str | None, option("LOW,HIGH")] = None
    """where guidance acts, in times from 0 (data) to 1 (noise), such as 0.2,0.8; everywhere by default"""
    rescale: float = 0.0
    """share of the contrast that guidance adds that is taken back, from 0 to 1"""

    def recipe(self, quality: str = "best") -> Recipe:
        """Return the options as a recipe, before any model is loaded.

        Args:
            quality: what auto aims at, `fast` or `best`.

        Raises:
            UserError: a value that can't be.
        """
        from sfumato.generate.recipe import Recipe

        known = {name: getattr(self, name) for name in DRAWN_BY}
        return Recipe(**known, quality=quality, variance=self.variance, interval=interval(self.interval))


def interval(text: str | None) -> tuple[float, float] | None:
    """Read two times, such as 0.2,0.8.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--interval takes two times, such as 0.2,0.8, not '{text}'") from None
    return low, high
