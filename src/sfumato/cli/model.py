"""The options that choose a model, the same for every verb that loads one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from sfumato.cli.console import waiting
from sfumato.cli.options import option
from sfumato.errors import UserError, nearest, similar
from sfumato.run.folder import WEIGHTS

if TYPE_CHECKING:
    import torch

    from sfumato.diffusion import Variance
    from sfumato.diffusion.condition import Condition
    from sfumato.generate.recipe import Recipe
    from sfumato.model import Model


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of a verb that loads a model."""

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, RUN@200k (its checkpoint of so many images), RUN@best, a weights file, or a model that comes along:
    faces, fashion, emoji32"""
    weights: Annotated[str | None, option("ema|raw|best|FILE")] = None
    """the weights of a run: ema (their average, the default), raw (as trained), best (lowest held-out loss), or a
    file"""

    @property
    def place(self) -> Path:
        """The path of the source: a checkpoint's folder for RUN@200k; raises `UserError` where there is none."""
        from sfumato.run.locate import at

        return at(self.source)[0]

    @property
    def chosen(self) -> str:
        """Which weights: `ema`, `raw`, `best`, or a file; raises `UserError` for another choice, or one for a file that
        is not a run."""
        from sfumato.run.locate import at

        place, asked = at(self.source)
        if asked is not None and self.weights not in (None, asked):
            raise UserError(f"{self.source} and --weights {self.weights} both choose weights: give one")
        choice = asked or self.weights or "ema"
        if self.weights and not place.is_dir():
            raise UserError(
                f"--weights {choice} chooses between the weights of a run folder, and this is a file: leave --weights "
                "out"
            )
        if choice not in WEIGHTS and not Path(choice).is_file():
            hint = nearest(choice, WEIGHTS) if choice.isalpha() else similar(choice, Path.is_file)
            raise UserError(f"--weights can't be '{choice}': choose {', '.join(WEIGHTS)}, or give a weights file{hint}")
        return choice

    def check_source(self) -> None:
        """Refuse a path where no weights are, before torch is imported."""
        from sfumato.run.locate import locate

        locate(self.source, self.chosen)

    @property
    def name(self) -> str:
        """The run's or the file's name, for files that are written."""
        from sfumato.run.locate import run_of

        source = self.place.resolve()
        if source.is_dir() and (run := run_of(source / "ema.safetensors")) is not None:
            return f"{run.path.name}-{int(source.name)}" if source.name.isdecimal() else run.path.name
        return source.name if source.is_dir() else source.stem

    def load(self, device: torch.device) -> Model:
        """Load the model."""
        with waiting(f"loading {self.source}"):
            from sfumato.model import load

            return load(self.source, self.chosen, device)


def condition_of(model: Model, label: str | None, guided: bool, usual: bool = False) -> Condition | None:
    """Return the condition that --label means for a model; without one None, or where `usual` that of the training
    images. Raises `UserError` for a label that the model does not have, or guidance without a condition."""
    from sfumato.generate.sample import asked, wanted

    condition = (wanted if usual else asked)(model, label)
    if guided and condition is None and model.vocabulary is None:
        raise UserError(
            "--guidance needs a model that was trained with labels, and this one was trained without: train another "
            "with --labels source, or leave --guidance out"
        )
    if guided and condition is None:
        raise UserError("--guidance needs a condition to guide towards: give --label, or --weak (sample only)")
    return condition


def measured(model: Model, recipe: Recipe, batch: int, silent: bool = False) -> Variance | None:
    """Return the measured variance where a recipe needs it, from the results of `evaluate` where possible, with its
    progress on the terminal unless `silent`."""
    if recipe.variance != "analytic":
        return None
    from sfumato.cli import console
    from sfumato.evaluate import jobs
    from sfumato.evaluate.results import results_folder
    from sfumato.evaluate.settings import Settings
    from sfumato.evaluate.stages import Stages
    from sfumato.evaluate.target import open_target
    from sfumato.generate.recipe import Recipe

    progress = jobs.silent if silent else console.progress
    target = open_target(model.path, device=model.device, on_progress=progress("reading images"))
    settings = Settings(recipe=Recipe("ddpm", variance="analytic", range=recipe.range))
    return Stages(target, settings, results_folder(model.path) / "parts", batch, progress).variance
