"""`sfumato sample`: draw images from a trained model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from sfumato.cli.console import duration, pick_device, print_json, progress
from sfumato.cli.drawing import Drawing
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from sfumato.diffusion import Denoiser, State, Variance
    from sfumato.generate.recipe import Recipe
    from sfumato.generate.writers import OnState
    from sfumato.model import Model

__all__ = ["VERB", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample(Drawing):
    """Draw images from a trained model: a grid, a folder of images, an array, or a film of the denoising.

    Image i of a seed is the same image whatever the batch and however many are drawn. Drawing into a folder goes on
    where it was interrupted.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato sample runs/faces",
        "sfumato sample runs/faces --sampler ddpm --steps 250 --seed 7 --out grid.png",
        "sfumato sample runs/fashion --label bag --guidance 2 --out bags.gif",
        "sfumato sample runs/faces --num 5000 --out faces/",
    )

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, or a weights file"""
    quality: Literal["fast", "best"] = "best"
    """what --sampler auto aims at"""
    num: int = 64
    """how many images"""
    seed: int = 0
    """which images; the same seed gives the same images"""
    batch: int = 64
    """images at a time; halved when the memory is too small"""
    label: Annotated[str | None, option("L")] = None
    """what to draw: a value (sneaker, 3), ATTRIBUTE=VALUE (glasses=dark,hair=long), or `all` for one after another"""
    raw: Flag = False
    """use the weights as trained rather than their average"""
    weak: Annotated[Path | None, option("RUN_OR_WEIGHTS")] = None
    """guide away from a worse model of the same kind, such as an earlier checkpoint, rather than towards the label"""
    compile: Flag = False
    """compile the network first: a minute or more, then each step is a little faster"""
    out: Annotated[Path | None, option("FILE.png|DIR|FILE.npz|FILE.gif|FILE.tif")] = None
    """a grid, a folder with one file an image, an array, a film, or pages; MODEL-SAMPLER-SEED.png here by default"""
    device: Annotated[str, option("auto|cpu|cuda")] = "auto"
    """where to compute; a GPU where there is one by default"""
    json: Flag = False
    """print one JSON object instead of text"""

    def perform(self) -> int:
        """Generate, write, and print what was done."""
        from sfumato.cli import labels
        from sfumato.generate.sample import generate, in_turn
        from sfumato.generate.writers import Samples, write
        from sfumato.model import load

        asked = self._check()
        device = pick_device(self.device)
        model = load(self._weights(), device)
        recipe = asked.settle(model)
        rows = labels.asked(model, self.label)
        if recipe.guidance != 1 and rows is None and self.weak is None:
            raise UserError("--guidance wants something to guide towards: give --label, or --weak with a worse model")
        conditions = None if rows is None else in_turn(rows, self.num)
        denoiser = self._denoiser(recipe, model, device)
        variance = self._measured(model, device) if recipe.variance == "analytic" else None
        facts = self._facts(model, recipe)
        sampler, times = recipe.build(variance), recipe.times(denoiser, model.shape, conditions, device)
        report = progress("drawing")

        def stream(first: int, on_state: OnState | None) -> Iterator[tuple[int, Tensor]]:
            num, walked = self.num - first, 0

            def step(index: int, state: State) -> None:
                nonlocal walked
                walked += len(state.x) if state.step else 0
                report(min(num, walked // (len(times) - 1)), num)
                if on_state is not None:
                    on_state(index, state)

            return generate(
                denoiser, model.shape, num, self.seed, sampler, times, self.batch,
                None if conditions is None else conditions[first:], first, step, device,
            )  # fmt: skip

        samples = Samples(
            model,
            self.num,
            len(times) - 1,
            stream,
            facts,
            [] if conditions is None else labels.in_words(model, conditions),
            {} if conditions is None else {"conditions": conditions.numpy()},
            len(rows) if rows is not None and 1 < len(rows) <= 32 else None,
        )
        start = time.monotonic()
        drawn = write(samples, self.out or self._default_out(recipe))
        self._say(model, recipe, facts, drawn, time.monotonic() - start)
        return 0

    def _check(self) -> Recipe:
        """Refuse values that can't be, before anything is loaded."""
        for name, value in (("num", self.num), ("batch", self.batch)):
            if value < 1:
                raise UserError(f"--{name} is {value}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"--seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        if self.weak is not None and self.guidance == 1:
            raise UserError("--weak guides with a scale: give --guidance too, such as --guidance 1.5")
        if self.weak is not None and self.rescale:
            raise UserError("--rescale belongs to guidance towards a label: leave it out, or leave --weak out")
        return self.recipe(self.quality)

    def _denoiser(self, recipe: Recipe, model: Model, device: torch.device) -> Denoiser:
        """The denoiser that is drawn with."""
        from sfumato.generate.compiled import compiled
        from sfumato.model import load

        plain = compiled(model, min(self.batch, self.num)).denoiser if self.compile else model.denoiser
        if self.weak is None:
            return recipe.denoiser(plain)
        weak = load(self.weak, device)
        if (weak.shape, weak.attributes) != (model.shape, model.attributes):
            raise UserError(f"{self.weak} draws other images or knows other labels than {self.source}: take one alike")
        return recipe.denoiser(plain, weak.denoiser)

    def _measured(self, model: Model, device: torch.device) -> Variance:
        """Measure the best variance on the model's own images, or read what `evaluate` measured before."""
        from sfumato.evaluate.settings import Settings
        from sfumato.evaluate.subject import open_subject, place
        from sfumato.evaluate.work import Work

        subject = open_subject(model.path, None, None, device, progress("reading images"))
        settings = Settings(sampler="ddpm", variance="analytic", range=self.range)
        return Work(subject, settings, place(model.path) / "parts", self.batch, progress).variance

    def _weights(self) -> Path:
        """The file or folder to load: with --raw the other file of a run."""
        if not self.raw:
            return self.source
        if not self.source.is_dir():
            raise UserError(
                "--raw chooses between the weights of a run: give the run folder, or the raw file without it"
            )
        return self.source / "weights" / "raw.safetensors"

    def _facts(self, model: Model, recipe: Recipe) -> dict[str, Any]:
        """What is written into every file that is drawn: enough to draw it again."""
        import hashlib

        facts: dict[str, Any] = {"seed": self.seed, **recipe.facts()}
        for name, given in (("label", self.label), ("weak", self.weak)):
            if given is not None:
                facts[name] = str(given)
        with model.path.open("rb") as file:
            facts["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        return facts

    def _default_out(self, recipe: Recipe) -> Path:
        source = self.source.resolve()
        name = source.name if source.is_dir() else source.stem
        label = "" if self.label is None else f"-{self.label}".replace("/", "_")
        guided = "" if recipe.guidance == 1 else f"-w{recipe.guidance:g}"
        return Path(f"{name}-{recipe.sampler}-{recipe.steps}{label}{guided}-seed{self.seed}.png")

    def _say(self, model: Model, recipe: Recipe, facts: dict[str, Any], drawn: Path, seconds: float) -> None:
        if self.json:
            known = {"out": str(drawn), "num": self.num, "seconds": seconds, "evaluations": recipe.evaluations}
            print_json({**known, "file": str(model.path), **facts})
            return
        print(
            f"{self.num:,} images by {recipe.sampler} in {recipe.steps} steps ({recipe.evaluations} evaluations of the "
            f"network), seed {self.seed}, from weights of {model.images:,} images seen: {duration(seconds)}\n{drawn}"
        )


VERB = Sample
