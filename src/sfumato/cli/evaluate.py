"""`sfumato evaluate`: measure how good a model is, or how far images are from others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional

from sfumato.cli import signals
from sfumato.cli.console import pick_device, print_json, progress, say
from sfumato.cli.launch import launch, pick_processes
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Device, Flag, Json, Processes, option
from sfumato.cli.recipe import RecipeOptions
from sfumato.errors import UserError
from sfumato.report.text import duration

if TYPE_CHECKING:
    import torch

    from sfumato.evaluate.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(RecipeOptions):
    """Measure a model: bits per dimension of held-out images, quality of generated ones, and whether it repeats its
    training images. Or measure the quality of images against others: of a folder, an archive, an array, a built-in set.

    Without one of these options all three are measured. Results are kept in RUN/evaluation with their settings: the
    same command reads them again, and continues after an interruption. Several processes (--processes, torchrun, or
    the same command in several shells) divide the work. Several models become one table, by default of their quality.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato evaluate runs/faces",
        "sfumato evaluate runs/faces --bits --method vlb --variance analytic --num 1000",
        "sfumato evaluate runs/photos --quality --num 10000 --extractor dinov2:FILE",
        "sfumato evaluate runs/a runs/b --quality --bits --data ~/photos",
        "sfumato evaluate ~/generated --data ~/photos",
    )

    sources: Annotated[tuple[Path, ...], Positional, option("SOURCE")] = ()
    """a run folder, one of its checkpoints, a weights file, a model that comes along (faces, fashion, emoji32), or
    images; several are compared in one table"""
    weights: Annotated[str | None, option("ema|raw|best|FILE")] = None
    """the weights of a run: ema (their average, the default), raw (as trained), best (lowest held-out loss), or a
    file"""
    bits: Flag = False
    """bits per dimension of held-out images"""
    quality: Flag = False
    """distances between generated and real images"""
    memorisation: Flag = False
    """generated images that are too close to training images"""
    num: Annotated[int | None, option("N")] = None
    """how many images to generate, and to score; 1000 and 256 by default, or as many as are held out"""
    data: Annotated[str | None, option("NAME|PATH")] = None
    """images to compare with; the model's training data by default"""
    extractor: Annotated[str | None, option("NAME[:PATH]")] = None
    """features: wavelets, pixels, classifier, inception:PATH or dinov2:PATH; the best that needs no file by
    default"""
    real: Literal["train", "held_out"] = "train"
    """the real images that generated ones are compared with"""
    method: Literal["sampled", "vlb", "flow"] = "sampled"
    """method for the bits: some terms of the bound for each image, all of them, or the probability flow"""
    repeats: Annotated[int | None, option("N")] = None
    """draws of noise for each scored image; 2 for sampled, else 1 by default"""
    seed: int = 0
    """seed of everything random"""
    batch: int = 64
    """images at a time; give fewer if memory is short"""
    out: Annotated[Path | None, option("DIR")] = None
    """where results are kept; the folder `evaluation` of the run, or beside the weights file, by default"""
    device: Device = "auto"
    processes: Processes = None
    json: Json = False

    def perform(self) -> int:
        """Measure, in as many processes as were asked for or have been started."""
        from sfumato.run.locate import means_model

        if not self.sources:
            raise UserError(f"evaluate needs a run, weights or images, for example: {self.EXAMPLES[0]}")
        models = [means_model(source) for source in self.sources]
        for source, model in zip(self.sources, models, strict=True):
            self._check(source, model)
        if self.extractor is not None:
            from sfumato.evaluate.features import check_extractor

            check_extractor(self.extractor)
        device = pick_device(self.device)
        place, number = pick_processes(self.processes, device)
        if number > 1:
            return launch(number, all_needed=False)
        rank = os.environ.get("RANK", "0") if place is None else str(place.rank)
        local = os.environ.get("LOCAL_RANK", "") if place is None else str(place.local)
        device = _local(device, local)
        if rank == "0":
            return self._perform(models, device)
        try:
            return self._perform(models, device, first=False)
        except (UserError, OSError) as error:  # the others do its jobs, or find the same
            say(f"sfumato: process {rank} takes no part any more: {error}", error=True)
            return 0
        except signals.Stop as stop:
            return stop.code  # the first says so

    def _perform(self, models: Sequence[bool], device: torch.device, first: bool = True) -> int:
        """Measure the sources, of which some are models; the first process prints the results."""
        every = ("bits", "quality", "memorisation")
        asked = [kind for kind in every if getattr(self, kind)]
        kinds = asked or (every if len(models) == 1 else ("quality",))
        rows = [
            (str(source), self._measure(source, kinds, device, first) if model else self._images(source, device))
            for source, model in zip(self.sources, models, strict=True)
            if first or model
        ]
        if first and self.json:
            print_json(rows[0][1] if len(rows) == 1 else [{"source": name, **reports} for name, reports in rows])
        elif first:
            from sfumato.evaluate.text import table, words

            said = [f"{kind}\n{words(report)}{_file(report)}" for kind, report in rows[0][1].items()]
            say("\n\n".join(said) if len(rows) == 1 else table(rows))
        return 0

    def _check(self, source: Path, model: bool) -> None:
        """Refuse what can't be measured, and options without effect, before torch is imported."""
        if self.out is not None and self.out.is_file():
            raise UserError(f"--out {self.out} is a file: give a folder")
        if model:
            ModelOptions(source=source, weights=self.weights).check_source()
            return
        if self.data is None:
            raise UserError(
                f"{source} is not a run or weights: to measure it as images, name those to compare with, --data IMAGES"
            )
        taken = {"sources", "data", "quality", "extractor", "num", "seed", "device", "json"}
        given = [f.name for f in fields(self) if f.name not in taken and getattr(self, f.name) != f.default]
        if given:
            raise UserError(f"--{given[0]} needs a model, and {source} is images: leave it out")

    def _measure(self, source: Path, kinds: Sequence[str], device: torch.device, first: bool) -> dict[str, Any]:
        """Measure a model; {} where this process is not the first."""
        try:
            evaluation = self._evaluation(source, device, first)
            calls, seconds = evaluation.forecast(kinds)
        except UserError as error:  # the library names its argument
            raise UserError(f"--{error}" if str(error).startswith("num is") else str(error)) from None
        if calls and first:
            say(
                f"evaluating {source} on {evaluation.target.model.device}: {calls:,} evaluations of the network, "
                f"about {duration(seconds)}",
                error=True,
            )
        try:
            reports = evaluation.perform(kinds)
        except signals.Stop as stop:
            raise signals.Stop(stop.code - 128, "stopped; the same command continues") from None
        from sfumato.evaluate.ending import advice

        if "quality" in reports and (text := advice(evaluation.target, reports["quality"])):
            reports["quality"]["advice"] = text
        return reports

    def _images(self, source: Path, device: torch.device) -> dict[str, Any]:
        """Measure images."""
        from sfumato.evaluate.images import measure_images

        assert self.data is not None
        report = measure_images(str(source), self.data, self.extractor, self.num, self.seed, str(device), progress)
        return {"quality": report}

    def _evaluation(self, source: Path, device: torch.device, first: bool) -> Evaluation:
        """Load the target."""
        from sfumato.evaluate.evaluation import Evaluation
        from sfumato.evaluate.jobs import silent
        from sfumato.evaluate.results import results_folder
        from sfumato.evaluate.settings import Settings
        from sfumato.evaluate.target import open_target

        reading = progress if first else silent
        options = ("num", "seed", "variance", "method", "repeats", "extractor", "real")
        recipe = self.recipe(variance=None)  # scoring has a variance for any sampler
        settings = Settings(recipe=recipe, **{name: getattr(self, name) for name in options})
        options_of = ModelOptions(source=source, weights=self.weights)
        target = open_target(source, options_of.chosen, self.data, device, reading("reading images"))
        folder = self.out or results_folder(options_of.place)
        return Evaluation(target, settings, folder, self.batch, first, reading)


def _file(report: dict[str, Any]) -> str:
    return f"\n- {report['file']}" if "file" in report else ""


def _local(device: torch.device, local: str) -> torch.device:
    """Give each process of a job a GPU of its own, as far as there are enough; `local` is its number here."""
    import torch

    if device.type != "cuda" or device.index is not None or not local.isdecimal():
        return device
    own = torch.device("cuda", int(local) % torch.cuda.device_count())
    torch.cuda.set_device(own)  # else pinned memory takes some of the first one's
    return own


VERB = Evaluate
