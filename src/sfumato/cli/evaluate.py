"""`sfumato evaluate`: measure how good a model is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from sfumato.cli import signals
from sfumato.cli.console import pick_device, print_json, progress, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Device, Flag, Json, option
from sfumato.cli.recipe import RecipeOptions
from sfumato.report.text import duration

if TYPE_CHECKING:
    import torch

    from sfumato.evaluate.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate(ModelOptions, RecipeOptions):
    """Measure a model: bits per dimension of held-out images, quality of generated ones, and whether it repeats its
    training images.

    Without one of these options all three are measured. Results are kept in RUN/evaluation with their settings: the
    same command reads them again, and continues after an interruption. Several processes with the same command, or
    started by torchrun, divide the work.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato evaluate runs/faces",
        "sfumato evaluate runs/faces --bits --method vlb --variance analytic --num 1000",
        "sfumato evaluate runs/photos --quality --num 10000 --extractor dinov2:FILE",
    )

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
    """features: pixels, classifier, inception:PATH or dinov2:PATH; the best that needs no file by default"""
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
    json: Json = False

    def perform(self) -> int:
        """Measure."""
        self.check_source()
        first = os.environ.get("RANK", "0") == "0"
        every = ("bits", "quality", "memorisation")
        kinds = [kind for kind in every if getattr(self, kind)] or every
        evaluation = self._evaluation(first)
        calls, seconds = evaluation.forecast(kinds)
        if calls and first:
            say(
                f"evaluating {self.source} on {evaluation.target.model.device}: {calls:,} evaluations of the network, "
                f"about {duration(seconds)}",
                error=True,
            )
        try:
            reports = evaluation.perform(kinds)
        except signals.Stop as stop:
            raise signals.Stop(stop.code - 128, "stopped; the same command continues") from None
        if first and self.json:
            print_json(reports)
        elif first:
            from sfumato.evaluate.text import words

            say("\n\n".join(f"{kind}\n{words(report)}\n- {report['file']}" for kind, report in reports.items()))
        return 0

    def _evaluation(self, first: bool) -> Evaluation:
        """Load the target."""
        from sfumato.evaluate.evaluation import Evaluation
        from sfumato.evaluate.jobs import silent
        from sfumato.evaluate.settings import Settings
        from sfumato.evaluate.target import open_target, results_folder

        options = ("num", "seed", "variance", "method", "repeats", "extractor", "real")
        recipe = self.recipe(variance=None)  # scoring has a variance for any sampler
        settings = Settings(recipe=recipe, **{name: getattr(self, name) for name in options})
        device = _local(pick_device(self.device))
        target = open_target(self.source, self.chosen, self.data, device, progress("reading images"))
        folder = self.out or results_folder(self.source)
        return Evaluation(target, settings, folder, self.batch, first, progress if first else silent)


def _local(device: torch.device) -> torch.device:
    """Give each process of a launcher a GPU of its own."""
    import torch

    rank = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not rank.isdecimal():
        return device
    return torch.device("cuda", int(rank) % torch.cuda.device_count())


VERB = Evaluate
