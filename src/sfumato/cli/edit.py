"""`sfumato edit`: a family of verbs that edit images with one's own model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from sfumato.cli.edit_restore import Colorize, Deblur, Upscale
from sfumato.cli.editing import Editing, Row, Several, numbered
from sfumato.cli.options import Family, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.edit import Walk
    from sfumato.generate.recipe import Recipe
    from sfumato.model import Model

__all__ = ["VERB", "Inpaint", "Interpolate", "Invert", "Vary"]


@dataclass(frozen=True, kw_only=True)
class Inpaint(Several):
    """Paint a part of an image anew so that it fits the rest, which stays exactly as it is.

    What to paint: the white of --mask, the rectangle --box, or the image's own transparent pixels.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit inpaint runs/faces face.png --box 0,8,16,8",
        "sfumato edit inpaint runs/faces face.png --mask mask.png --num 4",
    )
    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim", "eta": 1.0}

    mask: Annotated[Path | None, option("FILE")] = None
    """an image, white where to paint; of another size it is fitted as the image is"""
    box: Annotated[str | None, option("X,Y,W,H")] = None
    """a rectangle to paint: left, top, width and height in pixels of the image's file"""
    method: Literal["repaint", "moments", "pigdm", "dps"] = "repaint"
    """repaint, or a posterior method; see docs/editing.md"""
    repeats: int = 10
    """how often repaint makes each step; 1 is quickest, more fits better"""

    def check(self) -> None:
        """Refuse two ways of saying what to paint, and what is no rectangle."""
        super().check()
        if self.mask is not None and self.box is not None:
            raise UserError("--mask and --box both say what to paint: give one")
        self._rectangle()

    def facts(self) -> dict[str, Any]:
        """What was painted, and how."""
        how = {"repeats": self.repeats} if self.method == "repaint" else {}
        where = {"box": self.box} if self.box else {"mask": self.mask.name if self.mask else "transparency"}
        return super().facts() | {"method": self.method, **how, **where}

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Paint each image."""
        import torch

        from sfumato.edit import inpaint

        for k, path in enumerate(self.images):
            fitted = self.read(model, path)
            hole = self._hole(path, model.shape[1:])
            done = inpaint(
                model, fitted.x, hole, self.num, self.seed, self.method, self.repeats, walk(k, len(self.images))
            )
            given = [("original", fitted.x), ("to paint", torch.where(hole, 0.0, fitted.x))]
            ends = {0.0: "nothing to paint, so the image itself", 1.0: "everything to paint, so plain samples"}
            said = ends.get(done.painted, f"{done.painted:.0%} painted anew")
            yield Row(path.name, given + numbered(done.images), _join(fitted.note, said), {"painted": done.painted})

    def _hole(self, path: Path, size: tuple[int, int]) -> Tensor:
        """Where to paint."""
        from sfumato.edit import read_box, read_mask, read_transparency

        if self.mask is not None:
            return read_mask(self.mask, size)
        box = self._rectangle()
        return read_transparency(path, size) if box is None else read_box(path, box, size)

    def _rectangle(self) -> tuple[int, int, int, int] | None:
        """The four numbers of --box."""
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
    """Draw variations of an image: noise it part of the way and denoise it again (SDEdit)."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit vary runs/faces face.png --strength 0.5",
        "sfumato edit vary runs/faces face.png --strength 0.2,0.5,0.8 --num 6 --seed 3",
    )

    strength: Annotated[str, option("S")] = "0.5"
    """how far, from 0 (the image itself) to 1 (nothing of it); several with commas between are a row each; by default
    0.5"""

    def check(self) -> None:
        """Refuse strengths that can't be."""
        super().check()
        self._strengths()

    def facts(self) -> dict[str, Any]:
        """The strengths."""
        return super().facts() | {"strength": self.strength}

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Vary each image, a row a strength."""
        from sfumato.edit import vary

        strengths = self._strengths()
        for k, (path, strength) in enumerate((path, strength) for path in self.images for strength in strengths):
            fitted = self.read(model, path)
            done = vary(model, fitted.x, strength, self.num, self.seed, walk(k, len(self.images) * len(strengths)))
            name = path.name if len(strengths) == 1 else f"{path.name}\nt = {strength:g}"
            said = _join(fitted.note, f"noised to t = {done.t:g}, {done.steps} steps back")
            yield Row(name, [("original", fitted.x), *numbered(done.images)], said, {"t": done.t, "steps": done.steps})

    def _strengths(self) -> list[float]:
        """The numbers of --strength."""
        try:
            strengths = [float(part) for part in self.strength.split(",")]
        except ValueError:
            raise UserError(
                f"--strength takes numbers from 0 to 1, such as 0.5 or 0.2,0.8, not '{self.strength}'"
            ) from None
        for strength in strengths:
            if not 0 <= strength <= 1:
                raise UserError(
                    f"--strength is {strength:g}: it must lie from 0 (the image itself) to 1 (nothing of it)"
                )
        return strengths


@dataclass(frozen=True, kw_only=True)
class _Deterministic(Editing):
    """Options of a verb that goes between images and noise, which DDIM with eta = 0 alone does both ways."""

    USUAL: ClassVar[dict[str, Any]] = {"sampler": "ddim"}

    def recipe(self, quality: str = "best") -> Recipe:
        """Return the recipe, DDIM's.

        Raises:
            UserError: another sampler, or noise.
        """
        if self.sampler not in ("auto", "ddim") or self.eta:
            raise UserError(f"edit {self.verb} goes both ways by ddim without noise: leave --sampler and --eta out")
        return super().recipe(quality)


@dataclass(frozen=True, kw_only=True)
class Interpolate(_Deterministic):
    """Draw the way between two images, or between two samples.

    The noises that they are drawn from are joined by an arc, and every point of it is made an image.
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
    """without images: the seed whose first sample is where to begin"""
    to: Annotated[int | None, option("SEED")] = None
    """without images: the seed whose first sample is where to end; the next one by default"""

    def check(self) -> None:
        """Refuse one image or three, and ends that can't be."""
        if len(self.images) not in (0, 2):
            raise UserError(f"edit interpolate goes between two images, not {len(self.images)}: give two, or none")
        if self.num < 2:
            raise UserError(f"--num is {self.num}: the two ends alone are 2")
        if self.images and (self.seed or self.to is not None):
            raise UserError("--seed and --to are for samples: leave them out, or leave the images out")
        if not all(0 <= seed < 2**64 for seed in self._seeds()):
            raise UserError("--seed and --to must be whole numbers from 0 to 2^64 - 1")

    def _seeds(self) -> tuple[int, int]:
        return self.seed, self.seed + 1 if self.to is None else self.to

    def facts(self) -> dict[str, Any]:
        """The number, and the seeds."""
        return {"num": self.num} | ({} if self.images else {"seeds": self._seeds()})

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Draw one row."""
        from sfumato.edit import interpolate

        fitted = [self.read(model, path) for path in self.images]
        ends: list[Tensor | int] = [image.x for image in fitted] if fitted else list(self._seeds())
        done = interpolate(model, ends[0], ends[1], self.num, walk(0, 1))
        said, facts = f"{done.angle:.1f} degrees apart in noise", {"angle": done.angle, "rmse": done.rmse}
        given = [(f"image {n + 1}", image.x) for n, image in enumerate(fitted)]
        captions = [f"{n / (self.num - 1):.2f}" for n in range(self.num)]
        if fitted:
            name = f"{self.images[0].name} to {self.images[1].name}"
            said = _join(
                *(image.note for image in fitted),
                said,
                f"ends met within {max(map(_number, done.rmse)):.2f} grey levels",
            )
        else:
            name = "seed {} to seed {}".format(*self._seeds())
        yield Row(name, given + list(zip(captions, done.images, strict=True)), said, facts)


@dataclass(frozen=True, kw_only=True)
class Invert(_Deterministic):
    """Find the noise that an image is drawn from, and say how well it comes back.

    The picture shows the image, its noise (a third of it, so that it can be seen), what comes back, and four times the
    difference.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato edit invert runs/faces face.png",
        "sfumato edit invert runs/faces face.png --steps 20 --corrections 10 --json",
    )

    corrections: int = 4
    """evaluations that correct each step; 0 is plain DDIM inversion"""

    def check(self) -> None:
        """Refuse fewer corrections than none."""
        super().check()
        if not 0 <= self.corrections <= 1000:
            raise UserError(f"--corrections is {self.corrections}: choose from 0 (plain DDIM inversion) to 1000")

    def facts(self) -> dict[str, Any]:
        """The corrections."""
        return {"corrections": self.corrections}

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Invert each image."""
        from sfumato.edit import invert

        for k, path in enumerate(self.images):
            fitted = self.read(model, path)
            done = invert(model, fitted.x, walk(k, len(self.images)), self.corrections)
            tiles = [
                ("original", fitted.x),
                ("noise", done.noise / 3),
                ("comes back", done.reconstruction),
                ("difference", 4 * (done.reconstruction - fitted.x)),
            ]
            said = f"comes back within {done.rmse:.2f} grey levels ({done.psnr:.1f} dB); noise of std {done.spread:.3f}"
            facts = {"rmse": done.rmse, "psnr": done.psnr, "spread": done.spread}
            yield Row(path.name, tiles, _join(fitted.note, said), facts)


def _join(*parts: str) -> str:
    """Join what there is to say."""
    return "; ".join(part for part in parts if part)


def _number(value: float | None) -> float:
    """A number that is there."""
    assert value is not None
    return value


VERB = Family(
    "Edit images with a trained model; nothing is trained, and any model will do.",
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
