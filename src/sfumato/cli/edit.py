"""`sfumato edit`: the verbs that edit images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from sfumato.cli.edit_restore import Colorize, Deblur, Upscale
from sfumato.cli.editing import Editing, Result, Several, join, numbered, unit
from sfumato.cli.options import Family, option
from sfumato.errors import UserError, plural

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.edit import Options
    from sfumato.generate.recipe import Recipe
    from sfumato.model import Model

LABEL_STRENGTH = 0.7
"""The strength below which a variation keeps the shapes of its image, whatever the label."""


@dataclass(frozen=True, kw_only=True)
class Inpaint(Several):
    """Repaint a part of an image so that it fits the rest, which stays exactly as it is.

    What to paint: the white of --mask, the rectangle --box, or the image's own transparent pixels.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit inpaint runs/faces face.png --box 0,8,16,8",
        "sfumato edit inpaint runs/faces face.png --mask mask.png --num 4",
    )
    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim", "eta": 1.0}

    mask: Annotated[Path | None, option("FILE")] = None
    """an image, white where to paint; cropped and resized as the image is"""
    box: Annotated[str | None, option("X,Y,W,H")] = None
    """a rectangle to paint: left, top, width and height in pixels of the image's file"""
    method: Literal["guided", "repaint", "moments", "pigdm", "dps"] = "guided"
    """guided (by default), repaint, or a posterior method; see docs/editing.md"""
    repeats: Annotated[int | None, option("N")] = None
    """how often guided (3 by default) and repaint (10) make each step; 1 is fastest, more fits better"""

    def check(self) -> None:
        """Refuse both --mask and --box, a --box that is not a rectangle, and --repeats out of range."""
        super().check()
        if self.mask is not None and self.box is not None:
            raise UserError("--mask and --box both say what to paint: give one")
        self._rectangle()
        if self.repeats is not None and not 1 <= self.repeats <= 1024:
            raise UserError(f"--repeats is {self.repeats}: choose from 1 (plain replacement) to 1024")

    def facts(self) -> dict[str, Any]:
        """Return the mask or box, and the method."""
        from sfumato.edit.inpaint import REPEATS

        facts = super().facts() | {"mask": self.mask.name if self.mask else "transparency"}
        facts["repeats"] = self.repeats or REPEATS.get(self.method)
        unused = {"mask" if self.box else "box", *([] if self.method in REPEATS else ["repeats"])}
        return {name: value for name, value in facts.items() if name not in unused}

    def resolved(self, model: Model) -> Recipe:
        """Return the recipe for a model, with the steps of the method where none are given."""
        from sfumato.edit.inpaint import usual

        return usual(model, self.method, self.recipe()) if self.sampler == "auto" else super().resolved(model)

    def edit(self, model: Model, job: Path, options: Options) -> Result:
        """Paint one image."""
        import torch

        from sfumato.edit import inpaint, read_image

        fitted = read_image(model, job)
        hole = self._hole(job, model.codec.image_shape[1:])
        done = inpaint(model, fitted.x, hole, self.num, self.method, self.repeats, **options)
        given = [("original", fitted.x), ("to paint", torch.where(hole, 0.0, fitted.x))]
        ends = {0.0: "nothing to paint: the image itself", 1.0: "everything to paint: plain samples"}
        text = ends.get(done.painted, f"{done.painted:.0%} painted anew")
        return Result(job.name, given + numbered(done.images), join(fitted.note, text), {"painted": done.painted})

    def _hole(self, path: Path, size: tuple[int, int]) -> Tensor:
        """Return where to paint."""
        from sfumato.edit import read_box, read_mask, read_transparency

        if self.mask is not None:
            return read_mask(self.mask, size)
        box = self._rectangle()
        return read_transparency(path, size) if box is None else read_box(path, box, size)

    def _rectangle(self) -> tuple[int, int, int, int] | None:
        """Return the four numbers of --box."""
        if self.box is None:
            return None
        try:
            left, top, width, height = (int(part) for part in self.box.split(","))
        except ValueError:
            raise UserError(
                f"--box takes left,top,width,height in pixels, such as 0,8,16,8, not '{self.box}'"
            ) from None
        return left, top, width, height


@dataclass(frozen=True, kw_only=True)
class Vary(Several):
    """Make variations of an image: noise it part of the way and denoise it again (SDEdit)."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit vary runs/faces face.png --strength 0.5",
        "sfumato edit vary runs/faces face.png --strength 0.2,0.5,0.8 --num 6 --seed 3",
    )

    strength: Annotated[str, option("S")] = "0.5"
    """how much to change, from 0 (the image itself) to 1 (nothing of it is left); several, separated by commas, make a
    row each; 0.5 by default"""

    def check(self) -> None:
        """Refuse strengths out of their range."""
        super().check()
        for strength in self._strengths():
            if not 0 <= strength <= 1:
                raise UserError(
                    f"--strength is {strength:g}: it must lie from 0 (the image itself) to 1 (nothing of it is left)"
                )

    def jobs(self) -> Sequence[tuple[Path, float]]:
        """Return each image with each strength."""
        return list(product(self.images, self._strengths()))

    def edit(self, model: Model, job: tuple[Path, float], options: Options) -> Result:
        """Vary one image at one strength."""
        from sfumato.edit import read_image, vary

        path, strength = job
        fitted = read_image(model, path)
        done = vary(model, fitted.x, strength, self.num, **options)
        name = f"{path.name}\nt = {strength:g}" if "," in self.strength else path.name
        text = join(fitted.note, f"strength {strength:g}, {plural(done.steps, 'step')} from t = {done.t:g}")
        tiles = [("original", fitted.x), *numbered(done.images)]
        return Result(name, tiles, text, {"t": done.t, "steps": done.steps})

    @property
    def hint(self) -> str:
        """That a label changes little at a low strength."""
        low = self.label is not None and max(self._strengths()) < LABEL_STRENGTH
        return (
            "the image's shapes stay at this strength: raise --strength (0.8) for the label to change them"
            if low
            else ""
        )

    def _strengths(self) -> list[float]:
        """Return the numbers of --strength."""
        try:
            return [float(part) for part in self.strength.split(",")]
        except ValueError:
            raise UserError(
                f"--strength takes numbers from 0 to 1, such as 0.5 or 0.2,0.8, not '{self.strength}'"
            ) from None


@dataclass(frozen=True, kw_only=True)
class _Deterministic(Editing):
    """Options of a verb that goes from images to noise and back."""

    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim"}

    def recipe(self, **changes: Any) -> Recipe:
        """Return the recipe; raises `UserError` where it is not DDIM without noise."""
        from sfumato.edit.invert import deterministic

        return deterministic(super().recipe(**changes))


@dataclass(frozen=True, kw_only=True)
class Interpolate(_Deterministic):
    """Interpolate between two images, or between two samples.

    The images are made from points on the arc between the noises of the two ends.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit interpolate runs/faces one.png other.png",
        "sfumato edit interpolate runs/faces --seed 3 --to 8 --num 10",
    )

    images: Annotated[tuple[Path, ...], Positional, option("IMAGE IMAGE")] = ()
    """two image files; none for two samples"""
    num: int = 8
    """how many images, the two ends included"""
    seed: int = 0
    """without images: the seed whose first sample is the first end"""
    to: Annotated[int | None, option("SEED")] = None
    """without images: the seed whose first sample is the other end; the next one by default"""

    def check(self) -> None:
        """Refuse one image or three, and seeds out of their range."""
        if len(self.images) not in (0, 2):
            raise UserError(f"edit interpolate takes two images or none, not {len(self.images)}")
        if self.num < 2:
            raise UserError(f"--num is {self.num}: give at least 2, the two ends")
        if self.images and (self.seed or self.to is not None):
            raise UserError("--seed and --to are for samples: leave them out, or leave the images out")
        if not all(0 <= seed < 2**64 for seed in self._seeds()):
            raise UserError("--seed and --to must be whole numbers from 0 to 2^64 - 1")

    def recipe(self, **changes: Any) -> Recipe:
        """Return the recipe; between samples nothing is inverted, and the grid is that of sampling."""
        recipe = super().recipe(**changes)
        return recipe if self.images else replace(recipe, grid=self.grid)

    def _seeds(self) -> tuple[int, int]:
        return self.seed, self.seed + 1 if self.to is None else self.to

    def facts(self) -> dict[str, Any]:
        """Return the number, and the seeds."""
        return {"num": self.num} | ({} if self.images else {"seeds": self._seeds()})

    def jobs(self) -> Sequence[tuple[Path, ...]]:
        """Return the two images, or none, as one job."""
        return [self.images]

    def edit(self, model: Model, job: tuple[Path, ...], options: Options) -> Result:
        """Make one row."""
        from sfumato.edit import interpolate, read_image

        fitted = [read_image(model, path) for path in job]
        ends: list[Tensor | int] = [image.x for image in fitted] if fitted else list(self._seeds())
        done = interpolate(model, ends[0], ends[1], self.num, **options)
        text, facts = f"{done.angle:.1f} degrees apart in noise", {"angle": done.angle, "rmse": done.rmse}
        tiles = [(f"image {n + 1}", image.x) for n, image in enumerate(fitted)]
        tiles += [(f"{n / (self.num - 1):.2f}", image) for n, image in enumerate(done.images)]
        if not fitted:
            return Result("seed {} to seed {}".format(*self._seeds()), tiles, text, facts)
        error = max(error for error in done.rmse if error is not None)
        text = join(*(image.note for image in fitted), text, f"ends met within {error:.2f} {unit(model)}")
        return Result(f"{job[0].name} to {job[1].name}", tiles, text, facts)


@dataclass(frozen=True, kw_only=True)
class Invert(_Deterministic):
    """Find the noise that an image is made from, and the error of its reconstruction.

    The picture shows the image, its noise (a third of it, so that it can be seen), the reconstruction, and four times
    the difference.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit invert runs/faces face.png",
        "sfumato edit invert runs/faces face.png --steps 20 --corrections 10 --json",
    )

    corrections: int = 4
    """evaluations that correct each step; 0 is plain DDIM inversion"""

    def check(self) -> None:
        """Refuse a number of corrections out of its range."""
        super().check()
        if not 0 <= self.corrections <= 1000:
            raise UserError(f"--corrections is {self.corrections}: choose from 0 (plain DDIM inversion) to 1000")

    def edit(self, model: Model, job: Path, options: Options) -> Result:
        """Invert one image."""
        from sfumato.edit import invert, read_image

        fitted = read_image(model, job)
        done = invert(model, fitted.x, self.corrections, **options)
        tiles = [
            ("original", fitted.x),
            ("noise", model.codec.to_pixels(done.noise[None])[0] / 3),
            ("comes back", done.reconstruction),
            ("difference", 4 * (done.reconstruction - fitted.x)),
        ]
        error = f"comes back within {done.rmse:.2f} {unit(model)} ({done.psnr:.1f} dB); noise of std {done.std:.3f}"
        facts = {"rmse": done.rmse, "psnr": done.psnr, "spread": done.std}
        return Result(job.name, tiles, join(fitted.note, error), facts)


VERB = Family(
    "Edit images with a trained model; nothing is trained, and any model works.",
    {
        "inpaint": Inpaint,
        "vary": Vary,
        "interpolate": Interpolate,
        "invert": Invert,
        "colorize": Colorize,
        "upscale": Upscale,
        "deblur": Deblur,
    },
)
