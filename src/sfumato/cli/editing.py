"""The common parts of the verbs of `sfumato edit`: options and output.

A verb turns each image into a `Result`: a row of the picture that is written, or, where `--out` names a folder, a few
files in it, and what is printed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import check_device, pick_device, print_json, progress, say
from sfumato.cli.model import ModelOptions, condition_of, measured
from sfumato.cli.options import Device, Force, Json, check, option
from sfumato.cli.output import check_file, free
from sfumato.cli.recipe import RecipeOptions
from sfumato.errors import UserError, plural, similar
from sfumato.report.text import duration

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.edit import Options
    from sfumato.generate.recipe import Recipe
    from sfumato.model import Model


@dataclass(frozen=True)
class Result:
    """The result for one image.

    Attributes:
        name: of the row.
        tiles: (caption, pixels (C, H, W)), all of one shape.
        text: printed.
        facts: the same as values by name.
    """

    name: str
    tiles: list[tuple[str, Tensor]]
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Editing(ModelOptions, RecipeOptions):
    """Options of every verb of `sfumato edit`."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    USUAL: ClassVar[dict[str, Any]] = {}
    """The options of `--sampler auto`, where it is not the usual recipe."""

    images: Annotated[tuple[Path, ...], Positional, option("IMAGE...")]
    """image files; each is cropped and resized to the model's size as training images are, and gets its own row"""
    batch: int = 64
    """images at a time; halved if they do not fit into memory"""
    label: Annotated[str | None, option("L")] = None
    """the labels of the results: a value (sneaker, 3), or ATTRIBUTE=VALUE (glasses=dark,hair=long)"""
    out: Annotated[Path | None, option("FILE.png|DIR")] = None
    """a picture with a row for each image, or a folder of single images; MODEL-VERB-IMAGE.png here by default"""
    force: Force = False
    device: Device = "auto"
    json: Json = False

    @property
    def verb(self) -> str:
        """The verb's name."""
        return type(self).__name__.lower()

    def check(self) -> None:
        """Refuse values out of their range before anything is loaded."""
        if not self.images:
            raise UserError(f"edit {self.verb} needs IMAGE, for example: {self.EXAMPLES[0]}")
        check(batch=self.batch)

    def jobs(self) -> Sequence[Any]:
        """Return the arguments of the calls of `edit`, in order."""
        return self.images

    def edit(self, model: Model, job: Any, options: Options) -> Result:
        """Make one row."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return the verb's own options, for the files that are written."""
        shared = {option.name for option in fields(Editing)}
        return {option.name: getattr(self, option.name) for option in fields(self) if option.name not in shared}

    @property
    def hint(self) -> str:
        """What to change for what was probably wanted, in one line; empty where nothing is known."""
        return ""

    def recipe(self, **changes: Any) -> Recipe:
        """Return the options as a recipe; `auto` is the verb's default."""
        usual = self.USUAL if self.sampler == "auto" else {}
        left = {name: value for name, value in usual.items() if getattr(self, name) in (None, "auto")}
        return super().recipe(**left, **changes)

    def resolved(self, model: Model) -> Recipe:
        """Return the recipe for a model."""
        from sfumato.edit.sampling import resolved

        return resolved(self.recipe(), model)

    def perform(self) -> int:
        """Edit, write, print a summary."""
        self.check()
        self.check_source()
        for path in self.images:
            if not path.exists():
                raise UserError(f"{path} does not exist: give an image file{similar(path, Path.is_file)}")
        out = self.out or free(self._default_out())
        _check_out(out, self.force)
        check_device(self.device)
        from sfumato.generate.writers import check_writable

        device, _ = pick_device(self.device), self.recipe()  # which refuses what no model can do
        if out.suffix:
            check_writable(out)
        model = self.load(device)
        recipe = self.resolved(model)
        start = time.monotonic()
        results = self._results(model, recipe)
        facts = {"edit": self.verb, "images": [path.name for path in self.images], **self.facts(), **recipe.describe()}
        facts |= {} if self.label is None else {"label": self.label}
        facts["weights"] = model.sha256
        _write(results, out, facts)
        self._say(results, out, facts, time.monotonic() - start)
        return 0

    def _results(self, model: Model, recipe: Recipe) -> list[Result]:
        """Make every row, reporting progress over all of them."""
        condition = condition_of(model, self.label, guided=recipe.guidance != 1)
        jobs, report, variance = self.jobs(), progress("editing"), measured(model, recipe, self.batch)

        def options(k: int) -> Options:
            return {
                "recipe": recipe,
                "condition": condition,
                "variance": variance,
                "seed": getattr(self, "seed", 0),
                "batch": self.batch,
                "report": lambda done, total: report(k * total + done, len(jobs) * total),
            }

        return [self.edit(model, job, options(k)) for k, job in enumerate(jobs)]

    def _default_out(self) -> Path:
        return Path("-".join([self.name, self.verb, *(path.stem for path in self.images[:1])]) + ".png")

    def _say(self, results: Sequence[Result], out: Path, facts: dict[str, Any], seconds: float) -> None:
        if self.json:
            rows = [{"name": result.name, **result.facts} for result in results]
            print_json({"out": str(out), "seconds": seconds, "rows": rows, **facts})
            return
        for result in results:
            say(f"{result.name}: {result.text}".replace("\n", ", "))
        if self.hint:
            say(self.hint)
        method = f"{facts['method']}, " if "method" in facts else ""
        eta = f" with eta {facts['eta']:g}" if facts.get("eta") else ""
        repeats = f", each step {facts['repeats']} times" if "repeats" in facts else ""
        own = any("steps" in result.facts for result in results)  # each row has said how many it took
        steps = "" if own else f" in {plural(facts['steps'], 'step')}"
        say(f"{method}{facts['sampler']}{eta}{steps}{repeats}: {duration(seconds)}\n{out}")


@dataclass(frozen=True, kw_only=True)
class Several(Editing):
    """Options of a verb that makes several results of each image."""

    num: int = 8
    """how many results"""
    seed: int = 0
    """which results; the same seed gives the same images"""

    def check(self) -> None:
        """Refuse a number or a seed out of its range."""
        super().check()
        check(self.num, seed=self.seed)


def numbered(images: Tensor) -> list[tuple[str, Tensor]]:
    """Return results with captions 1, 2, 3, ..."""
    return [(str(n + 1), image) for n, image in enumerate(images)]


def join(*parts: str) -> str:
    """Join the parts that are not empty."""
    return "; ".join(part for part in parts if part)


def unit(model: Model) -> str:
    """Return the unit of differences between images."""
    return "grey levels" if model.codec.format.kind == "8" else "units of the data"


def _check_out(out: Path, force: bool) -> None:
    """Raise `UserError` where the results can't be written, before anything is computed."""
    if out.is_dir() or not out.suffix:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not an empty folder: give --out a new one")
    elif out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the name must end in .png, or be a folder's")
    check_file(out, force)


def _write(results: Sequence[Result], out: Path, facts: dict[str, Any]) -> None:
    """Write one picture, or a folder of single images."""
    from sfumato.codec.pixels import to_bytes
    from sfumato.generate.writers import write_rows

    rows = [(result.name, [(caption, to_bytes(image)) for caption, image in result.tiles]) for result in results]
    write_rows(rows, out, facts)
