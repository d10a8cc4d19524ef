"""`sfumato info`: describe a run or a weights file, or several in a table; draw the loss curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import print_json, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Force, Json, option
from sfumato.cli.output import check_file
from sfumato.errors import UserError
from sfumato.report.text import count, duration, facts, size

if TYPE_CHECKING:
    from sfumato.config.config import Config
    from sfumato.model import Model

_PLOT = "plot of losses"
NUM_VALUES = 12
"""The most values of an attribute that are shown."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Describe a run or a weights file: its network, images, noise schedule, training, and where its files are. Several
    are compared in one table, with the values of the configuration in which they differ.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato info runs/faces",
        "sfumato info runs/faces --weights best",
        "sfumato info runs/faces/weights/ema.safetensors",
        "sfumato info runs/a runs/b runs/c",
        "sfumato info runs/faces --plot loss.png",
    )

    sources: Annotated[tuple[Path, ...], Positional, option("RUN_OR_WEIGHTS")] = ()
    """a run folder, one of its checkpoints, a weights file, or a model that comes along: faces, fashion, emoji32;
    several are compared"""
    weights: Annotated[str | None, option("ema|raw|best|FILE")] = None
    """the weights of a run: ema (their average, the default), raw (as trained), best (lowest held-out loss), or a
    file"""
    plot: Annotated[Path | None, option("FILE.png")] = None
    """draw the training and held-out loss over the images seen, and the learning rate, of one run"""
    force: Force = False
    json: Json = False

    def perform(self) -> int:
        """Read and print."""
        from sfumato.cli.comparison import Described, compared

        if not self.sources:
            raise UserError(f"info needs a run or weights, for example: {self.EXAMPLES[0]}")
        if self.plot is not None:
            return self._draw(self.plot)
        if self.force:
            raise UserError("--force is for a file that is written: give --plot FILE.png too, or leave it out")
        described = [Described.read(ModelOptions(source=source, weights=self.weights)) for source in self.sources]
        if self.json:
            tables = [each.to_json() for each in described]
            print_json(tables[0] if len(tables) == 1 else tables)
        elif len(described) == 1:
            (one,) = described
            say(_text(one.name, one.config, one.model, one.figures))
        else:
            say(compared(described))
        return 0

    def _draw(self, out: Path) -> int:
        """Draw the loss curves of the one run."""
        if len(self.sources) > 1:
            raise UserError(f"--plot draws one run, and {len(self.sources)} are named: give one")
        (source,) = self.sources
        if self.weights is not None or self.json:
            raise UserError(f"--{'weights' if self.weights else 'json'} has no effect with --plot: leave it out")
        check_file(out, self.force, (".png",), "--plot", figure=_PLOT)
        from sfumato.generate.writers import save_png
        from sfumato.report.curves import loss_curves
        from sfumato.run.folder import Run
        from sfumato.run.summary import RunSummary

        if not Run(source).exists():
            raise UserError(f"{source} is not a run folder: the losses are in a run's event log")
        summary = RunSummary.read(Run(source))
        say(str(save_png(loss_curves(summary), out, {"figure": _PLOT})))
        if (last := summary.held_out) is not None:
            drawn = summary.training_loss(last.buckets)
            say(
                f"the last held-out loss is drawn as {drawn:.4f}, at the noise levels that training draws most, to be "
                f"beside the training loss; `info` and the log have {last.loss:.4f}, all noise levels evenly"
            )
        return 0


def _text(source: str, config: Config, model: Model | None, figures: dict[str, Any]) -> str:
    pairs = [("", source), ("images", f"{_images(config, model)}trained on {_source(config)}")]
    if model is None:
        pairs.append(("labels", "none" if config.data.labels == "none" else f"from {config.data.labels}"))
    else:
        cost = f"{figures['parameters']:,} parameters, {count(figures['flops'])}FLOP an image forward"
        pairs += [("labels", _labels(model, figures["attributes"])), ("network", f"{cost}\n{model.net.summary()}")]
    pairs += [("process", _process(config)), ("schedule", _table(config))]
    if model is not None and model.origin:
        pairs.append(("imported", model.origin))
    elif "run" in figures:
        pairs += _progress(figures)
    if model is not None:
        kind = {"ema": "average of the weights", "raw": "weights as trained"}[model.kind]
        what = f"{kind}, {model.images:,} images seen, {size(figures['weights_bytes'])}"
        pairs.append(("weights", f"{model.path}\n{what}"))
    else:
        pairs.append(("weights", _missing(Path(source))))
    return facts([pair for pair in pairs if pair[0]])


def _missing(source: Path) -> str:
    """What is said of the weights of a run that has no average."""
    from sfumato.run.folder import Run
    from sfumato.run.locate import remedy

    run = Run(source)
    instead = remedy(run, "ema")
    return f"{run.weights_file()} is missing: {instead}" if instead else "none yet: the run has saved no checkpoint"


def _source(config: Config) -> str:
    """The data, told apart from a model of the same name."""
    from sfumato.data.sources.builtin import BUILTIN

    source = config.data.source
    return f"the built-in data set {source}" if source in BUILTIN else source


def _images(config: Config, model: Model | None) -> str:
    """Size and format of the images, from the weights."""
    if model is None:
        return ""
    form, inside = model.codec.format, padding(config, model.shape)
    parts = [f"{'x'.join(map(str, model.codec.image_shape))} (channels x height x width)"]
    return ", ".join(parts + ([form.words] if form.kind != "8" else []) + ([inside] if inside else [])) + "; "


def padding(config: Config, shape: tuple[int, int, int]) -> str:
    """Describe the size to which the network extends x_0 (C, H, W); empty where it fits."""
    _, height, width = shape
    inside = config.net.inside(height, width)
    return "" if inside == (height, width) else f"{height}x{width} extended to {inside[0]}x{inside[1]} inside"


def _labels(model: Model, attributes: list[dict[str, Any]]) -> str:
    """The attributes, one a line, or what else can be asked for."""
    if model.vocabulary is not None and not attributes:
        words = model.vocabulary.describe(model.vocabulary.every())
        return ", ".join(words[:NUM_VALUES]) + (", ..." if len(words) > NUM_VALUES else "")
    lines = []
    for table in attributes:
        values = table.get("values")
        if values:
            more = ", ..." if len(values) > NUM_VALUES else ""
            lines.append(f"{table['name']}: {', '.join(values[:NUM_VALUES])}{more}")
        else:
            lines.append(f"{table['name']}: a number, {table['mean']:.4g} +- {table['std']:.4g}")
    return "\n".join(lines) or "none: the model was trained without labels"


def _process(config: Config) -> str:
    """The diffusion process, and what the network predicts."""
    diffusion, schedule = config.diffusion, config.diffusion.schedule
    parts = [f"{type(schedule).__name__.lower()} schedule of {schedule.num_steps:,} steps"]
    parts += ["zero terminal SNR"] if diffusion.zero_terminal_snr else []
    parts += [f"logsnr shifted by {diffusion.logsnr_shift:g}"] if diffusion.logsnr_shift else []
    learns = (
        f"the network predicts {diffusion.parameterization}; squared error of {diffusion.space}; "
        f"{diffusion.variance} variance"
    )
    return f"{', '.join(parts)}\n{learns}"


def _progress(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """The progress of a run, and its files."""
    planned, images, plan = figures["planned_images"] or 0, figures["images"], figures["plan"] or {}
    finished = ", finished" if figures["finished"] else ""
    trained = f"{images:,} of {planned:,} images" + (f" ({100 * images / planned:.0f} %{finished})" if planned else "")
    if plan:
        taken, steps = images // plan["batch"], plan["steps"]
        trained += f", in {taken:,}{f' of {steps:,}' if taken < steps else ''} steps of {plan['batch']}"
    if plan.get("images_per_second"):
        trained += f"; planned from {plan['images_per_second']:,.0f} images/s"
    loss = f"{figures['loss']:.4f} in training (mean of about the last 50 steps)" if figures["loss"] else "none yet"
    if figures["held_out_loss"] is not None:
        loss += (
            f"\n{figures['held_out_loss']:.4f} held out, {figures['held_out_train']:.4f} on as many training images: "
            f"averaged weights at {figures['held_out_at']:,} images, all noise levels evenly"
        )
    rate = f", {figures['images_per_second']:,.0f} images/s in steps" if figures["images_per_second"] else ""
    grids, checkpoints = figures["grids"], figures["checkpoints"]
    return [
        ("trained", trained),
        ("lineage", figures["lineage"]),
        ("loss", loss),
        ("time", f"{duration(figures['seconds'])} on {figures['device']}{rate}, torch {figures['torch']}"),
        ("warnings", str(figures["warnings"]) if figures["warnings"] else ""),
        ("grids", f"{len(grids)}, the last {grids[-1]}" if grids else "none yet"),
        ("checkpoints", f"{len(checkpoints)}, the last {checkpoints[-1]}" if checkpoints else "none yet"),
    ]


def _table(config: Config) -> str:
    """The schedule's table, aligned."""
    lines = [f"{'t':>6}{'beta':>10}{'logsnr':>10}{'abar':>10}{'alpha':>10}{'sigma':>10}"]
    for row in config.diffusion.describe_schedule():
        abar = f"{row['abar']:.5f}" if row["abar"] > 0.99 else f"{row['abar']:.3g}"
        values = f"{row['beta']:>10.3g}{row['logsnr']:>10.3f}{abar:>10}{row['alpha']:>10.4f}{row['sigma']:>10.4f}"
        lines.append(f"{row['t']:>6}{values}")
    return "\n".join(lines)


VERB = Info
