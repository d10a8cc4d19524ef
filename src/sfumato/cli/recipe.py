"""The options of a `Recipe`, the same for every verb that samples."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from sfumato.cli.options import option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.generate.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Options of a verb that samples; they have the names of `Recipe`'s fields."""

    sampler: Annotated[str, option("NAME")] = "auto"
    """auto (by default), ddpm (the paper's ancestral one), ddim, euler, heun, edm, dpmpp-1, dpmpp-2, dpmpp-3,
    dpmpp-sde, unipc or pndm; see docs/choose-a-sampler.md"""
    steps: Annotated[int | None, option("N")] = None
    """steps of the sampler; by default that of auto, 50 for ddim, the whole chain for ddpm, 20 evaluations for
    others"""
    grid: Annotated[str | None, option("NAME")] = None
    """times of the steps: trailing, leading, uniform, quadratic, logsnr, karras, visible, or fitted to the model"""
    eta: Annotated[float | None, option("X")] = None
    """noise of ddim: 0 (the default) is deterministic, 1 is ancestral"""
    variance: Annotated[Literal["small", "large", "learned", "analytic"] | None, option("NAME")] = None
    """variance of a step of ddpm: small, large, learned, or analytic (measured); the model's own by default"""
    range: Annotated[str, option("clip|threshold|free")] = "clip"
    """treatment of each predicted image: clip it (by default), threshold it dynamically, or leave it free"""
    guidance: float = 1.0
    """scale of classifier-free guidance towards the label; 1 is no guidance"""
    interval: Annotated[str | None, option("LOW,HIGH")] = None
    """where guidance acts, in times from 0 (data) to 1 (noise), such as 0.2,0.8; everywhere by default"""
    rescale: float = 0.0
    """fraction of the contrast added by guidance that is removed, from 0 to 1"""

    def recipe(self, **changes: Any) -> Recipe:
        """Return the options as a recipe, before any model is loaded.

        Args:
            changes: values that replace or add to the options.

        Raises:
            UserError: a value out of its range.
        """
        from sfumato.generate.recipe import Recipe

        names = [field.name for field in fields(RecipeOptions)]
        options = {name: getattr(self, name) for name in names}
        try:
            return Recipe(**{**options, "interval": _interval(self.interval), **changes})
        except UserError as error:  # the library names the field; here it is an option
            first = str(error).partition(" ")[0].rstrip(":")
            raise UserError(f"--{error}" if first in names else str(error)) from None


def _interval(text: str | None) -> tuple[float, float] | None:
    """Return two times, such as 0.2,0.8."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--interval takes two times, such as 0.2,0.8, not '{text}'") from None
    return low, high
