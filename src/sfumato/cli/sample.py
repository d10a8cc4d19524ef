"""`sfumato sample`: draw images from a trained model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from sfumato.cli.console import duration, pick_device, print_json, progress
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.diffusion import Sampler
    from sfumato.weights import Model

__all__ = ["VERB", "Sample"]


@dataclass(frozen=True)
class Sample:
    """Draw images from a trained model: a grid, a folder of images, an array, or a film of the denoising.

    Image i of a seed is the same image whatever the batch and however many are drawn. Drawing into a folder goes on
    where it was interrupted.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato sample runs/faces",
        "sfumato sample runs/faces --sampler ddpm --steps 250 --seed 7 --out grid.png",
        "sfumato sample runs/fashion --label sneaker --num 36 --out sneakers.gif",
        "sfumato sample runs/faces --num 5000 --out faces/",
    )

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, or a weights file"""
    num: int = 64
    """how many images"""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddim needs few steps; ddpm is the ancestral sampler of the paper"""
    steps: Annotated[int | None, option("N")] = None
    """steps of the sampler, evenly spaced on the model's chain; 50 for ddim, the whole chain for ddpm by default"""
    eta: Annotated[float | None, option("X")] = None
    """noise of ddim: 0 (the default) is deterministic, 1 is ancestral"""
    variance: Literal["small", "large", "learned"] | None = None
    """of ddpm's step; the model's own by default"""
    seed: int = 0
    """which images; the same seed gives the same images"""
    batch: int = 64
    """images at a time; halved when the memory is too small"""
    label: Annotated[str | None, option("L")] = None
    """what to draw: a value (sneaker, 3), ATTRIBUTE=VALUE (glasses=dark,hair=long), or `all` for one after another"""
    raw: Flag = False
    """use the weights as trained rather than their average"""
    clip: bool = True
    """keep each predicted image within the range of images on the way"""
    out: Annotated[Path | None, option("FILE.png|DIR|FILE.npz|FILE.gif")] = None
    """a grid, a folder with one PNG an image, an array, or a film; MODEL-SAMPLER-SEED.png in this folder by default"""
    device: Annotated[str, option("auto|cpu|cuda")] = "auto"
    """where to compute; a GPU where there is one by default"""
    json: Flag = False
    """print one JSON object instead of text"""

    def perform(self) -> int:
        """Draw."""
        from sfumato.cli import labels, output
        from sfumato.diffusion import trailing
        from sfumato.generate import in_turn
        from sfumato.weights import load_weights

        self._check()
        model = load_weights(self._weights(), pick_device(self.device))
        chain = model.denoiser.schedule.num_steps
        steps = self.steps or (chain if self.sampler == "ddpm" else min(50, chain))
        if steps > chain:
            raise UserError(f"--steps is {steps}, and the model's chain has {chain}: choose from 1 to {chain}")
        rows = labels.asked(model, self.label)
        job = output.Job(
            model=model,
            num=self.num,
            seed=self.seed,
            sampler=self._sampler(model),
            times=trailing(steps, model.denoiser.schedule),
            batch=self.batch,
            conditions=None if rows is None else in_turn(rows, self.num),
            columns=len(rows) if rows is not None and 1 < len(rows) <= 32 else None,
            clip=self.clip,
            facts=self._facts(model, steps),
            report=progress("drawing"),
        )
        start = time.monotonic()
        drawn = output.write(job, self.out or self._default_out(model, steps))
        self._say(model, drawn, time.monotonic() - start, steps)
        return 0

    def _check(self) -> None:
        """Refuse values that can't be, before anything is loaded."""
        for name, value in (("num", self.num), ("batch", self.batch), ("steps", self.steps)):
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"--seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        if self.eta is not None and self.sampler == "ddpm":
            raise UserError(
                "--eta belongs to ddim: leave it out, or use --sampler ddim (where --eta 1 is ancestral too)"
            )
        if self.variance is not None and self.sampler == "ddim":
            raise UserError("--variance belongs to ddpm: leave it out, or use --sampler ddpm")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UserError(f"--eta is {self.eta:g}: it must lie from 0 (deterministic) to 1 (ancestral)")

    def _weights(self) -> Path:
        """The file or folder to load: with --raw the other file of a run."""
        if not self.raw:
            return self.source
        if not self.source.is_dir():
            raise UserError(
                "--raw chooses between the weights of a run: give the run folder, or the raw file without it"
            )
        return self.source / "weights" / "raw.safetensors"

    def _sampler(self, model: Model) -> Sampler:
        from sfumato.diffusion import DDIM, VARIANCES, Ancestral

        if self.sampler == "ddim":
            return DDIM(self.eta or 0.0)
        own = model.config.diffusion.variance
        if self.variance == "learned" != own:
            raise UserError(f"--variance learned: this model was trained with {own} variance; choose small or large")
        return Ancestral(VARIANCES[self.variance or own])

    def _facts(self, model: Model, steps: int) -> dict[str, Any]:
        """What is written into every file that is drawn: enough to draw it again."""
        import hashlib

        facts: dict[str, Any] = {"seed": self.seed, "sampler": self.sampler, "steps": steps, "clip": self.clip}
        if self.sampler == "ddim":
            facts["eta"] = self.eta or 0.0
        else:
            facts["variance"] = self.variance or model.config.diffusion.variance
        if self.label is not None:
            facts["label"] = self.label
        with model.path.open("rb") as file:
            facts["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        return facts

    def _default_out(self, model: Model, steps: int) -> Path:
        source = self.source.resolve()
        name = source.name if source.is_dir() else source.stem
        label = "" if self.label is None else f"-{self.label}".replace("/", "_")
        return Path(f"{name}-{self.sampler}{steps}{label}-seed{self.seed}.png")

    def _say(self, model: Model, drawn: Path, seconds: float, steps: int) -> None:
        if self.json:
            facts = self._facts(model, steps)
            print_json({"out": str(drawn), "num": self.num, "seconds": seconds, "file": str(model.path), **facts})
            return
        print(
            f"{self.num:,} images by {self.sampler} in {steps} steps, seed {self.seed}, "
            f"from weights of {model.images:,} images seen: {duration(seconds)}\n{drawn}"
        )


VERB = Sample
