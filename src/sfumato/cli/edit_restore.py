"""`sfumato edit colorize | upscale | deblur`: images that explain what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from sfumato.cli.editing import Row, Several, numbered
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.diffusion.inverse import LinearOperator
    from sfumato.edit import Walk
    from sfumato.model import Model

__all__ = ["Colorize", "Deblur", "Upscale"]


@dataclass(frozen=True, kw_only=True)
class _Restoring(Several):
    """Options of a verb that draws from p(image | measurement)."""

    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim", "eta": 1.0}

    method: Literal["pigdm", "moments", "dps"] = "pigdm"
    """pigdm is quick, moments takes three times as long and is less biased, dps wants many steps: docs/editing.md"""
    noise: Annotated[float, option("LEVELS")] = 0.0
    """noise of the given image, a standard deviation in grey levels of 0 to 255, besides its rounding"""

    def check(self) -> None:
        """Refuse noise that can't be."""
        super().check()
        if not 0 <= self.noise <= 255:
            raise UserError(f"--noise is {self.noise:g}: it is a number of grey levels, from 0 to 255")

    def facts(self) -> dict[str, Any]:
        """The method and the noise."""
        return super().facts() | {"method": self.method, "noise": self.noise}

    def operator(self, model: Model) -> LinearOperator:
        """Return what was done to the images."""
        raise NotImplementedError

    def given(self, model: Model, path: Path) -> tuple[Tensor, Tensor | None, str]:
        """Return the measurement (C', H', W'), the original where there is one, and what was done to the file."""
        raise NotImplementedError

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Restore each image."""
        from sfumato.edit import ROUNDING, restore, rmse

        operator = self.operator(model)
        std = hypot(2 * self.noise / 255, ROUNDING)
        for k, path in enumerate(self.images):
            y, original, note = self.given(model, path)
            done = restore(model, y, operator, std, self.num, self.seed, self.method, walk(k, len(self.images)))
            tiles = [("given", _shown(y, model.shape)), *numbered(done.images)]
            facts: dict[str, Any] = {"residual": done.residual.tolist()}
            said = [note, f"agrees with what was given within {done.residual.max():.1f} grey levels"]
            if original is not None:
                facts["rmse"] = rmse(done.images, original[None]).tolist()
                tiles = [("original", original), *tiles]
                said.append(f"{min(facts['rmse']):.1f} to {max(facts['rmse']):.1f} from the original")
            yield Row(path.name, tiles, "; ".join(part for part in said if part), facts)

    def degraded(self, model: Model, path: Path) -> tuple[Tensor, Tensor | None, str]:
        """Return what the operator and the noise make of an image, rounded to bytes, and the image."""
        import torch

        from sfumato.codec.pixels import to_bytes, to_model
        from sfumato.diffusion import Purpose
        from sfumato.diffusion.noise import normal

        fitted = self.read(model, path)
        y = self.operator(model).forward(fitted.x[None])
        z = normal(self.seed, Purpose.MEASUREMENT, torch.zeros(1, dtype=torch.int64), tuple(y.shape[1:]))
        return to_model(to_bytes(y + 2 * self.noise / 255 * z))[0], fitted.x, fitted.note


@dataclass(frozen=True, kw_only=True)
class Colorize(_Restoring):
    """Give a grey image colours, several ways; of a colour image the luma is taken."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit colorize runs/faces grey.png",
        "sfumato edit colorize runs/faces face.png --method moments --num 4",
    )

    def operator(self, model: Model) -> LinearOperator:
        """The luma.

        Raises:
            UserError: a model of grey images.
        """
        from sfumato.diffusion.inverse import Grayscale

        if model.shape[0] != 3:
            raise UserError(f"{self.source} draws grey images: colorize needs a model of colour images")
        return Grayscale()

    def given(self, model: Model, path: Path) -> tuple[Tensor, Tensor | None, str]:
        """The image's luma; where it had colours it is the original too."""
        y, original, note = self.degraded(model, path)
        assert original is not None
        coloured = bool((original != original[:1]).any())
        return y, original if coloured else None, note


@dataclass(frozen=True, kw_only=True)
class Upscale(_Restoring):
    """Enlarge a small image to the model's size, several ways.

    The image is cut and resized to the model's size divided by the factor, unless --degrade makes a small one of it.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit upscale runs/faces small.png --factor 2",
        "sfumato edit upscale runs/faces face.png --factor 4 --degrade",
    )

    factor: int = 2
    """how many times; it must divide the model's height and width"""
    degrade: Flag = False
    """the image is a large one: make it small first, and compare with it"""

    def operator(self, model: Model) -> LinearOperator:
        """Block means."""
        from sfumato.diffusion.inverse import Downscale
        from sfumato.edit import check_factor

        check_factor(model, self.factor)
        return Downscale(self.factor)

    def facts(self) -> dict[str, Any]:
        """The factor."""
        return super().facts() | {"factor": self.factor, "degrade": self.degrade}

    def given(self, model: Model, path: Path) -> tuple[Tensor, Tensor | None, str]:
        """The small image."""
        if self.degrade:
            return self.degraded(model, path)
        channels, height, width = model.shape
        fitted = self.read(model, path, (channels, height // self.factor, width // self.factor))
        return fitted.x, None, fitted.note


@dataclass(frozen=True, kw_only=True)
class Deblur(_Restoring):
    """Sharpen an image that a Gaussian has blurred, several ways."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit deblur runs/faces blurred.png --sigma 1",
        "sfumato edit deblur runs/faces face.png --sigma 1.5 --noise 4 --degrade",
    )

    sigma: float = 1.0
    """standard deviation of the Gaussian, in pixels of the model's images"""
    degrade: Flag = False
    """the image is a sharp one: blur it first, and compare with it"""

    def operator(self, model: Model) -> LinearOperator:
        """The blur."""
        from sfumato.edit import blur

        return blur(model, self.sigma)

    def facts(self) -> dict[str, Any]:
        """The blur's width."""
        return super().facts() | {"sigma": self.sigma, "degrade": self.degrade}

    def given(self, model: Model, path: Path) -> tuple[Tensor, Tensor | None, str]:
        """The blurred image."""
        if self.degrade:
            return self.degraded(model, path)
        fitted = self.read(model, path)
        return fitted.x, None, fitted.note


def _shown(y: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return a measurement in the model's shape, to be looked at: grey repeated, small pixels enlarged."""
    channels, height, width = shape
    y = y.expand(channels, *y.shape[1:])
    return y.repeat_interleave(height // y.shape[1], 1).repeat_interleave(width // y.shape[2], 2)
