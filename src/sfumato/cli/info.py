"""`sfumato info`: what a run or a weights file is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sfumato.cli.console import count, duration, facts, print_json, size
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Flag

if TYPE_CHECKING:
    from sfumato.config.config import Config
    from sfumato.model import Model
    from sfumato.run.summary import RunSummary

__all__ = ["VERB", "Info"]

MARKS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Times of the schedule's table."""
NUM_VALUES = 12
"""So many values of an attribute are shown."""


@dataclass(frozen=True, kw_only=True)
class Info(ModelOptions):
    """Describe a run or a weights file: its network, images, noise schedule, training, and where its files are."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato info runs/faces",
        "sfumato info runs/faces --weights best",
        "sfumato info runs/faces/weights/ema.safetensors",
    )

    json: Flag = False
    """print one JSON object instead of text"""

    def perform(self) -> int:
        """Read and print."""
        from sfumato.config.config import to_dict
        from sfumato.model import load
        from sfumato.run.folder import Run
        from sfumato.run.summary import RunSummary

        summary = RunSummary.read(Run(self.source)) if self.source.is_dir() else None
        young = summary is not None and self.weights is None and "ema" not in summary.weights
        model = None if young else load(self.source, self.chosen)
        config = summary.run.config() if summary is not None else model.config  # type: ignore[union-attr]
        known = (_of_model(model) if model is not None else {}) | (_of_run(summary) if summary is not None else {})
        if self.json:
            schedule, table = schedule_rows(config), to_dict(config)
            print_json({"path": str(self.source), **known, "schedule": schedule, "config": table})
        else:
            print(_text(str(self.source), config, model, known))
        return 0


def _of_model(model: Model) -> dict[str, Any]:
    """What a weights file says of its model."""
    from sfumato.codec.format import plain
    from sfumato.conditions import attributes

    _, height, width = model.shape
    cost = model.net.cost(height, width)
    return {
        "parameters": cost.parameters,
        "flops": cost.flops,
        "shape": model.codec.image_shape,
        "channels": model.codec.image_shape[0],
        "depth": plain(model.codec.format),
        "attributes": [attributes.plain(attribute) for attribute in model.attributes],
        "vocabulary": None if model.vocabulary is None else model.vocabulary.plain(),
        "images_seen": model.images,
        "weights": str(model.path),
        "weights_kind": model.kind,
        "weights_bytes": model.path.stat().st_size,
    }


def _of_run(run: RunSummary) -> dict[str, Any]:
    """What a run folder says of its training."""
    from sfumato.run.events import Skipped, Stepped

    stepped, held_out = run.of(Stepped), run.held_out
    return {
        "run": str(run.run.path),
        "finished": run.finished,
        "images": run.images,
        "planned_images": run.planned,
        "plan": None if run.plan is None else vars(run.plan),
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "loss": stepped[-1].loss if stepped else None,
        "held_out_loss": None if held_out is None else held_out.loss,
        "held_out_at": None if held_out is None else held_out.images,
        "warnings": len(run.warnings) + len(run.of(Skipped)),
        "checkpoints": [str(path) for path in run.checkpoints],
        "grids": [str(path) for path in run.grids],
        "device": run.environment.get("device"),
        "torch": (run.environment.get("packages") or {}).get("torch"),
    }


def schedule_rows(config: Config) -> list[dict[str, float]]:
    """Return the schedule at some of its steps: t, logsnr, abar, alpha, sigma."""
    schedule = config.diffusion.build_schedule()
    steps = sorted({max(1, round(mark * schedule.num_steps)) for mark in MARKS})
    levels = [(step, schedule(step / schedule.num_steps)) for step in steps]
    names = ("logsnr", "abar", "alpha", "sigma")
    return [{"t": step} | {name: float(getattr(level, name)) for name in names} for step, level in levels]


def _text(source: str, config: Config, model: Model | None, known: dict[str, Any]) -> str:
    pairs = [("", source), ("images", f"{_images(config, model)}trained on {config.data.source}")]
    if model is None:
        pairs.append(("labels", "none" if config.data.labels == "none" else f"from {config.data.labels}"))
    else:
        cost = f"{known['parameters']:,} parameters, {count(known['flops'])}FLOP an image forward"
        pairs += [("labels", _labels(known["attributes"])), ("network", f"{cost}\n{model.net.summary()}")]
    pairs += [("process", _process(config)), ("schedule", _table(config))]
    if "run" in known:
        pairs += _progress(known)
    if model is not None:
        kind = {"ema": "average of the weights", "raw": "weights as trained"}[model.kind]
        what = f"{kind}, {model.images:,} images seen, {size(known['weights_bytes'])}"
        pairs.append(("weights", f"{model.path}\n{what}"))
    return facts([pair for pair in pairs if pair[0]])


def _images(config: Config, model: Model | None) -> str:
    """Size and values of the images, which the weights know."""
    if model is None:
        return ""
    form, inside = model.codec.format, padding(config, model.shape)
    parts = [f"{'x'.join(map(str, model.codec.image_shape))} (channels x height x width)"]
    return ", ".join(parts + ([form.words] if form.kind != "8" else []) + ([inside] if inside else [])) + "; "


def padding(config: Config, shape: tuple[int, int, int]) -> str:
    """Say to which size x_0 (C, H, W) is extended inside the network; nothing where it fits."""
    _, height, width = shape
    inside = config.net.inside(height, width)
    return "" if inside == (height, width) else f"{height}x{width} extended to {inside[0]}x{inside[1]} inside"


def _labels(attributes: list[dict[str, Any]]) -> str:
    """What can be asked for, a line an attribute."""
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
    """Which process is reversed, and what the network predicts."""
    diffusion, schedule = config.diffusion, config.diffusion.schedule
    parts = [f"{type(schedule).__name__.lower()} schedule of {schedule.num_steps:,} steps"]
    parts += ["zero terminal SNR"] if diffusion.zero_terminal_snr else []
    parts += [f"logsnr shifted by {diffusion.logsnr_shift:g}"] if diffusion.logsnr_shift else []
    loss = diffusion.loss_space or diffusion.parameterization
    learns = (
        f"the network predicts {diffusion.parameterization}; squared error of {loss}; {diffusion.variance} variance"
    )
    return f"{', '.join(parts)}\n{learns}"


def _progress(known: dict[str, Any]) -> list[tuple[str, str]]:
    """How far a run has come, and where its files are."""
    planned, images, plan = known["planned_images"] or 0, known["images"], known["plan"] or {}
    finished = ", finished" if known["finished"] else ""
    trained = f"{images:,} of {planned:,} images" + (f" ({100 * images / planned:.0f} %{finished})" if planned else "")
    trained += f", in {plan['steps']:,} steps of {plan['batch']}" if plan else ""
    if plan.get("images_per_second"):
        trained += f"; planned from {plan['images_per_second']:,.0f} images/s"
    loss = f"{known['loss']:.4f}" if known["loss"] is not None else "none yet"
    if known["held_out_loss"] is not None:
        loss += f"; held-out {known['held_out_loss']:.4f} at {known['held_out_at']:,} images"
    rate = f", {known['images_per_second']:,.0f} images/s in all" if known["images_per_second"] else ""
    grids, checkpoints = known["grids"], known["checkpoints"]
    return [
        ("trained", trained),
        ("loss", loss),
        ("time", f"{duration(known['seconds'])} on {known['device']}{rate}, torch {known['torch']}"),
        ("warnings", str(known["warnings"]) if known["warnings"] else ""),
        ("grids", f"{len(grids)}, the last {grids[-1]}" if grids else "none yet"),
        ("checkpoints", f"{len(checkpoints)}, the last {checkpoints[-1]}" if checkpoints else "none yet"),
    ]


def _table(config: Config) -> str:
    """The schedule's table, aligned."""
    lines = [f"{'t':>6}{'logsnr':>10}{'abar':>10}{'alpha':>10}{'sigma':>10}"]
    for row in schedule_rows(config):
        values = f"{row['logsnr']:>10.3f}{row['abar']:>10.3g}{row['alpha']:>10.4f}{row['sigma']:>10.4f}"
        lines.append(f"{row['t']:>6}{values}")
    return "\n".join(lines)


VERB = Info
