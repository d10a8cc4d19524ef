"""`sfumato sample`: sample images from a trained model."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from sfumato.cli import signals
from sfumato.cli.console import check_device, pick_device, print_json, progress, say
from sfumato.cli.launch import in_processes
from sfumato.cli.model import ModelOptions, condition_of, measured
from sfumato.cli.options import Device, Flag, Force, Json, Processes, check, option
from sfumato.cli.output import check_file, free, is_ours
from sfumato.cli.recipe import RecipeOptions
from sfumato.errors import UserError, plural
from sfumato.ranks import World, find_place
from sfumato.report.text import duration

if TYPE_CHECKING:
    import torch

    from sfumato.conditions.protocol import Vocabulary
    from sfumato.generate.recipe import Recipe
    from sfumato.generate.sample import Sampling
    from sfumato.generate.writers import Samples
    from sfumato.model import Model


SUFFIXES = (".png", ".gif", ".npz", ".tif", ".tiff")
"""Of files that hold samples; a name without a suffix is a folder's."""
KINDS = ".png (grid), .gif (film), .npz (array), .tif (pages), or be a folder's"


@dataclass(frozen=True, kw_only=True)
class Sample(ModelOptions, RecipeOptions):
    """Sample images from a trained model: a grid, a folder of images, an array, or a film of the denoising.

    Image i of a seed is the same image for any batch size and number of images. Sampling into a folder continues after
    an interruption.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato sample runs/faces",
        "sfumato sample runs/faces --sampler ddpm --steps 250 --seed 7 --out grid.png",
        "sfumato sample runs/fashion --label bag --guidance 2 --out bags.gif",
        "sfumato sample runs/faces --num 5000 --out faces/",
    )

    quality: Literal["fast", "best"] = "best"
    """the aim of --sampler auto"""
    num: int = 64
    """how many images"""
    seed: int = 0
    """which images; the same seed gives the same images"""
    batch: int = 64
    """images at a time; halved if they do not fit into memory"""
    label: Annotated[str | None, option("L")] = None
    """what to sample: a value (sneaker, 3), ATTRIBUTE=VALUE (glasses=dark,hair=long), `all` to cycle through all
    values, or `unconditional`; by default labels as the training images have them"""
    weak: Annotated[Path | None, option("RUN_OR_WEIGHTS")] = None
    """guide away from a worse model of the same kind, such as an earlier checkpoint, instead of towards the label"""
    compile: Flag = False
    """compile the network first: half a minute or more. On a CPU a step was then at most 4 % faster, for `fashion`
    not at all"""
    out: Annotated[Path | None, option("FILE.png|DIR|FILE.npz|FILE.gif|FILE.tif")] = None
    """a grid, a folder with one file an image, an array, a film, or pages; MODEL-SAMPLER-SEED.png here by default"""
    force: Force = False
    device: Device = "auto"
    processes: Processes = None
    json: Json = False

    def perform(self) -> int:
        """Sample in as many processes as were asked for or have been started."""
        place = find_place()
        first = place is None or place.rank == 0
        if first:
            self._check()
        device = pick_device(self.device)
        if first:
            self.recipe(quality=self.quality)

        def follow(device: torch.device, world: World) -> int:
            return self._samples(self.load(device), world).follow()

        return in_processes(self.processes, device, self._perform, follow)

    def _samples(self, model: Model, world: World) -> Samples:
        """Return the images, ready to be sampled."""
        from sfumato.generate.compiled import compiled
        from sfumato.generate.sample import prepare
        from sfumato.generate.writers import Samples

        recipe = self.recipe(quality=self.quality).resolve(model)
        guided = recipe.guidance != 1 and self.weak is None
        condition = condition_of(model, self.label, guided, usual=True)
        weak = None if self.weak is None else self._weak(self.weak, model)
        fast = compiled(model, min(self.batch, self.num)) if self.compile else model
        silent = not world.main
        variance = measured(model, recipe, self.batch, silent)
        if recipe.grid == "fitted" and not silent:
            say("fitting a grid of times to the model", error=True)
        fitting = None if silent else progress("fitting the grid")
        sampling = prepare(fast, recipe, condition, weak=weak, variance=variance, fitting=fitting)
        facts = self._facts(model, recipe)
        return Samples(model, sampling, self.num, self.seed, condition, self.batch, facts, world=world)

    def _perform(self, device: torch.device, world: World) -> int:
        """Sample, write, and print a summary, on rank 0 or in one process alone."""
        model, start = self.load(device), time.monotonic()
        from sfumato.generate.writers import write

        samples = self._samples(model, world)
        recipe, facts = samples.sampling.recipe, dict(samples.facts)
        report, steps = progress("sampling"), len(samples.sampling.times) - 1
        made = 0

        def reported(done: int, total: int) -> None:
            nonlocal made
            made = done
            report(done // steps, total // steps)

        samples = replace(samples, report=reported)
        with signals.saying(self._stopped(recipe)):
            written = write(samples, self._out(recipe))
        if made or self.json:
            self._say(model, samples.sampling, facts, written, time.monotonic() - start)
        else:
            say(f"{plural(self.num, 'image')}: all there already\n{written}")
        if samples.broken:
            raise UserError(
                f"{written}: {plural(len(samples.broken), 'image', 'are')} black for lack of finite numbers, the first "
                f"is image {samples.broken[0]}: take --weights best, a lower --guidance, or another sampler"
            )
        return 0

    def _check(self) -> None:
        """Refuse values out of their range before anything is loaded."""
        check(self.num, self.batch, self.seed, self.steps)
        check_device(self.device)
        if self.out is not None and not self.out.is_dir() and self.out.suffix:
            check_file(self.out, self.force, SUFFIXES, kinds=KINDS)
        if self.quality != "best" and self.sampler != "auto":
            raise UserError(f"--quality belongs to --sampler auto: leave it out, or --sampler {self.sampler}")
        if self.weak is not None and self.guidance == 1:
            raise UserError("--weak guides with a scale: give --guidance too, such as --guidance 1.5")
        if self.weak is not None and self.rescale:
            raise UserError("--rescale belongs to guidance towards a label: leave it out, or leave --weak out")
        self.check_source()

    def _weak(self, path: Path, model: Model) -> Model:
        """Load the worse model."""
        from sfumato.model import load

        weak = load(path, device=model.device)
        if (weak.codec, weak.vocabulary) != (model.codec, model.vocabulary):
            raise UserError(
                f"{path} has another image shape or other labels than {self.source}: give a weaker model of the same "
                "data"
            )
        return weak

    def _facts(self, model: Model, recipe: Recipe) -> dict[str, Any]:
        """Return the facts stored in every file, which are enough to reproduce it."""
        given = {"label": self.label, "weak": None if self.weak is None else str(self.weak)}
        asked = {name: value for name, value in given.items() if value is not None}
        return {"seed": self.seed, **recipe.describe(), **asked, "weights": model.sha256}

    def _out(self, recipe: Recipe) -> Path:
        """Return where to write; a default name that somebody else's file has gets a number."""
        out = self.out or self._default_out(recipe)
        return free(out) if self.out is None and out.exists() and not is_ours(out) else out

    def _stopped(self, recipe: Recipe) -> str:
        """What is left when sampling is stopped."""
        out = self._out(recipe)
        folder = out.is_dir() or not out.suffix
        return f"stopped; {out} keeps what was sampled, and the same command continues" if folder else "stopped"

    def _default_out(self, recipe: Recipe) -> Path:
        label = "" if self.label is None else f"-{self.label}".replace("/", "_")
        guided = "" if recipe.guidance == 1 else f"-w{recipe.guidance:g}"
        return Path(f"{self.name}-{recipe.sampler}-{recipe.steps}{label}{guided}-seed{self.seed}.png")

    def _say(self, model: Model, sampling: Sampling, facts: dict[str, Any], written: Path, seconds: float) -> None:
        recipe, evaluations = sampling.recipe, sampling.evaluations
        if self.json:
            result = {"out": str(written), "num": self.num, "seconds": seconds, "evaluations": evaluations}
            print_json({**result, "file": str(model.path), **facts})
            return
        from sfumato.conditions.protocol import common

        usual = self.label is None and common(model.vocabulary) is not None
        labels = ", with labels as the training images have them (--label chooses)" if usual else ""
        say(
            f"{plural(self.num, 'image')} by {recipe.sampler} in {plural(recipe.steps or 0, 'step')} "
            f"({plural(evaluations, 'evaluation')} of the network), seed {self.seed}, from weights of "
            f"{plural(model.images, 'image')} seen{labels}: {duration(seconds)}\n{written}"
        )
        if self.label is None and model.vocabulary is not None and sys.stdout.isatty():
            say(_asking(model.vocabulary, usual))


def _asking(vocabulary: Vocabulary, usual: bool) -> str:
    """Return a hint that names labels to ask for.

    Args:
        vocabulary: of the model.
        usual: whether the images were sampled with labels as training images have them; else without any.
    """
    labels = [f"--label {shlex.quote(text)}" for text in vocabulary.describe(vocabulary.every())]
    return " or ".join(labels[:2]) + (" chooses what to sample" if usual else " makes clearer images than no label")


VERB = Sample
