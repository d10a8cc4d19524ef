"""`sfumato edit colorize | upscale | deblur`: restore images from a degraded version."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from sfumato.cli.editing import Result, Several, join, numbered, unit
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.diffusion import LinearOperator
    from sfumato.edit import Options
    from sfumato.model import Model


MISFIT = 6.0
"""Grey levels by which results disagree with the given image, besides three times its noise, where it is not what the
operator makes: 0.4 to 1.5 are usual (docs/editing.md)."""


@dataclass(frozen=True, kw_only=True)
class _Restoring(Several):
    """Options of a verb that samples from p(image | measurement)."""

    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim", "eta": 1.0}

    method: Literal["pigdm", "moments", "dps"] = "pigdm"
    """pigdm is fast, moments takes three times as long and is less biased, dps needs many steps: docs/editing.md"""
    noise: Annotated[float, option("LEVELS")] = 0.0
    """noise of the given image, a standard deviation in grey levels of 0 to 255, besides its rounding"""

    def check(self) -> None:
        """Refuse noise out of its range."""
        super().check()
        if not 0 <= self.noise <= 255:
            raise UserError(f"--noise is {self.noise:g}: give a number of grey levels, from 0 to 255")

    misfit: ClassVar[str] = ""
    """What is said of a given image that the operator did not make; empty says nothing."""

    def operator(self, model: Model) -> LinearOperator:
        """Return the operator that degraded the images."""
        raise NotImplementedError

    def size(self, model: Model) -> tuple[int, int]:
        """Return the (H, W) of the given image."""
        return model.codec.image_shape[1:]

    @property
    def degrades(self) -> bool:
        """Whether the image is an original, of which the measurement is made first."""
        return bool(getattr(self, "degrade", True))

    def edit(self, model: Model, job: Path, options: Options) -> Result:
        """Restore one image."""
        from sfumato.edit import read_image, restore, rmse
        from sfumato.edit.restore import degraded, enlarged, rounding

        operator, noise = self.operator(model), 2 * self.noise / 255
        fitted = read_image(model, job, None if self.degrades else self.size(model))
        y = degraded(model, fitted.x, operator, noise, self.seed) if self.degrades else fitted.x
        std = hypot(noise, rounding(model.codec.format))
        done = restore(model, y, operator, self.num, std, self.method, **options)
        tiles = [("given", enlarged(model, y)), *numbered(done.images)]
        facts: dict[str, Any] = {"residual": done.residual.tolist()}
        text = [fitted.note, f"agrees with the given image within {done.residual.max():.1f} {unit(model)}"]
        if self._misfits(model, done.residual.max().item()):
            text.append(f"that is much: {self.misfit}, and --noise is its noise")
        if self.degrades and (self.verb != "colorize" or bool((fitted.x != fitted.x[:1]).any())):
            errors = facts["rmse"] = rmse(model, done.images, fitted.x[None]).tolist()
            tiles = [("original", fitted.x), *tiles]
            text.append(f"{min(errors):.1f} to {max(errors):.1f} from the original")
        return Result(job.name, tiles, join(*text), facts)

    def _misfits(self, model: Model, residual: float) -> bool:
        """Whether results disagree with the given image by more than the operator leaves where it made the image."""
        exact = model.codec.format.kind == "8" and self.method != "dps"  # dps disagrees by 7 to 11 levels in any case
        return bool(self.misfit) and exact and not self.degrades and residual > MISFIT + 3 * self.noise


@dataclass(frozen=True, kw_only=True)
class Colorize(_Restoring):
    """Colour a grey image in several ways; a colour image is reduced to its luma first."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit colorize runs/faces grey.png",
        "sfumato edit colorize runs/faces face.png --method moments --num 4",
    )

    def operator(self, model: Model) -> LinearOperator:
        """Return the luma."""
        from sfumato.edit.restore import luma

        return luma(model)


@dataclass(frozen=True, kw_only=True)
class Upscale(_Restoring):
    """Enlarge a small image to the model's size, in several ways.

    The image is cut and resized to the model's size divided by the factor, unless --degrade shrinks it.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit upscale runs/faces small.png --factor 2",
        "sfumato edit upscale runs/faces face.png --factor 4 --degrade",
    )

    factor: int = 2
    """the factor; it must divide the model's height and width"""
    degrade: Flag = False
    """the image is a full-size original: shrink it first, and compare with it"""

    def operator(self, model: Model) -> LinearOperator:
        """Return block means."""
        from sfumato.edit.restore import downscale

        return downscale(model, self.factor)

    def size(self, model: Model) -> tuple[int, int]:
        """Return the small image's size."""
        _, height, width = model.codec.image_shape
        return height // self.factor, width // self.factor


@dataclass(frozen=True, kw_only=True)
class Deblur(_Restoring):
    """Sharpen an image that a Gaussian has blurred, in several ways."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit deblur runs/faces blurred.png --sigma 1",
        "sfumato edit deblur runs/faces face.png --sigma 1.5 --noise 4 --degrade",
    )

    misfit = "the image is not blurred by this --sigma; --degrade is for a sharp original"

    sigma: float = 1.0
    """standard deviation of the Gaussian, in pixels of the model's images"""
    degrade: Flag = False
    """the image is a sharp original: blur it first, and compare with it"""

    def operator(self, model: Model) -> LinearOperator:
        """Return the blur."""
        from sfumato.edit.restore import blur

        return blur(model, self.sigma)
