"""`sfumato info`: what a run or a weights file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import duration, facts, print_json, size
from sfumato.cli.options import Flag, option
from sfumato.conditions.attributes import plain
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.config.config import Config
    from sfumato.model import Model
    from sfumato.run.folder import Run

__all__ = ["VERB", "Info"]


@dataclass(frozen=True)
class Info:
    """Say what a run or a weights file is: its network, images, noise schedule, training, and where its files are."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ("sfumato info runs/faces", "sfumato info runs/faces/weights/ema.safetensors")

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, or a weights file"""
    json: Flag = False
    """print one JSON object instead of text"""

    def perform(self) -> int:
        """Look and tell."""
        from sfumato.config.config import to_dict
        from sfumato.model import load
        from sfumato.run.folder import Run

        run = Run(self.source) if self.source.is_dir() else None
        if run is not None and not run.exists():
            raise UserError(f"{self.source} is not a run folder: it has no config.toml")
        model = None if run is not None and not _has_weights(run) else load(self.source)
        config = model.config if model is not None else _config(run)
        known = _model_facts(config, model) | (_run_facts(run, config) if run is not None else {})
        if self.json:
            from sfumato.cli.describe import schedule_rows

            print_json(
                {"path": str(self.source), **known, "schedule": schedule_rows(config), "config": to_dict(config)}
            )
        else:
            print(_text(self.source, config, known))
        return 0


def _has_weights(run: Run) -> bool:
    return (run.weights / "ema.safetensors").exists()


def _config(run: Run | None) -> Config:
    assert run is not None
    return run.config()


def _model_facts(config: Config, model: Model | None) -> dict[str, Any]:
    """What a configuration says of its model, and a weights file of itself."""
    import torch

    from sfumato.codec import format as depth
    from sfumato.nets import UNet, cost

    with torch.device("meta"):
        parameters = cost.parameters(UNet(config.net))
    found: dict[str, Any] = {"parameters": parameters, "channels": config.net.channels}
    if model is None:
        return found
    return found | {
        "shape": model.shape,
        "depth": depth.plain(model.depth),
        "flops": cost.flops(config.net, *model.shape[1:]),
        "attributes": [plain(attribute) for attribute in model.attributes],
        "images_seen": model.images,
        "weights": str(model.path),
        "weights_kind": model.kind,
        "weights_bytes": model.path.stat().st_size,
    }


def _run_facts(run: Run, config: Config) -> dict[str, Any]:
    """What a run folder says of its training."""
    from sfumato.run.log import read_events

    events = list(read_events(run.events_path)) if run.events_path.exists() else []
    last = {str(event.get("event")): event for event in events}
    stepped, held_out = last.get("stepped", {}), last.get("heldout", {})
    images, seconds = stepped.get("images", 0), stepped.get("seconds", 0.0)
    warned = [event for event in events if event.get("event") in ("warned", "skipped")]
    environment = run.read(run.environment_path) or {}
    return {
        "run": str(run.path),
        "finished": run.finished_path.exists(),
        "images": images,
        "planned_images": config.train.images,
        "plan": run.read(run.plan_path),
        "seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
        "loss": stepped.get("loss"),
        "held_out_loss": held_out.get("loss"),
        "held_out_at": held_out.get("images"),
        "warnings": len(warned),
        "checkpoints": sorted(str(p) for p in run.checkpoints.glob("[0-9]*")),
        "grids": sorted(str(p) for p in run.samples.glob("*.png")),
        "device": environment.get("device"),
        "torch": (environment.get("packages") or {}).get("torch"),
    }


def _text(source: Path, config: Config, known: dict[str, Any]) -> str:
    """All of it, for people."""
    from sfumato.cli.describe import network, padding, process
    from sfumato.codec import format as depth

    data = config.data
    shape = known.get("shape")
    size_ = (
        f"{shape[0]}x{shape[1]}x{shape[2]} (channels x height x width)" if shape else f"{known['channels']} channels"
    )
    inside = padding(config.net, shape) if shape else ""
    deep = depth.from_plain(known.get("depth"))
    size_ += "" if deep == depth.EIGHT else f", {deep.words}"
    pairs = [
        ("", str(source)),
        ("images", f"{size_}{inside and ', ' + inside}; trained on {data.source}"),
        ("labels", _labels(known["attributes"]) if "attributes" in known else _asked(config)),
        ("network", network(config.net, known["parameters"], known.get("flops"))),
        ("process", process(config.diffusion)),
        ("schedule", _table(config)),
    ]
    if "run" in known:
        pairs += _progress(known)
    if "weights" in known:
        kind = {"ema": "average of the weights", "raw": "weights as trained"}[known["weights_kind"]]
        what = f"{kind}, {known['images_seen']:,} images seen, {size(known['weights_bytes'])}"
        pairs.append(("weights", f"{known['weights']}\n{what}"))
    return facts([pair for pair in pairs if pair[0]])


def _labels(attributes: list[dict[str, Any]]) -> str:
    """What can be asked for, a line an attribute."""
    lines = []
    for table in attributes:
        values = table.get("values")
        more = ", ..." if values and len(values) > 12 else ""
        what = ", ".join(values[:12]) + more if values else f"a number, {table['mean']:.4g} +- {table['std']:.4g}"
        lines.append(f"{table['name']}: {what}")
    return "\n".join(lines) or "none: the model was trained without any"


def _asked(config: Config) -> str:
    """What a run without weights yet will know."""
    return f"{len(config.net.conditions)} attributes, from {config.data.labels}" if config.net.conditions else "none"


def _progress(known: dict[str, Any]) -> list[tuple[str, str]]:
    """How far a run has come, and where its files are."""
    planned, images = known["planned_images"] or 0, known["images"]
    share = f" ({100 * images / planned:.0f} %{', finished' if known['finished'] else ''})" if planned else ""
    plan = known["plan"] or {}
    kept = f", in {plan['steps']:,} steps of {plan['batch']}" if plan.get("steps") else ""
    made = f"; planned from {plan['images_per_second']:,.0f} images/s" if plan.get("images_per_second") else ""
    loss = f"{known['loss']:.4f}" if known["loss"] is not None else "none yet"
    if known["held_out_loss"] is not None:
        loss += f"; held-out {known['held_out_loss']:.4f} at {known['held_out_at']:,} images"
    rate = f", {known['images_per_second']:,.0f} images/s with everything" if known["images_per_second"] else ""
    grids, checkpoints = known["grids"], known["checkpoints"]
    return [
        ("trained", f"{images:,} of {planned:,} images{share}{kept}{made}"),
        ("loss", loss),
        ("time", f"{duration(known['seconds'])} on {known['device']}{rate}, torch {known['torch']}"),
        ("warnings", str(known["warnings"]) if known["warnings"] else ""),
        ("grids", f"{len(grids)}, the last {grids[-1]}" if grids else "none yet"),
        ("checkpoints", f"{len(checkpoints)}, the last {checkpoints[-1]}" if checkpoints else "none yet"),
    ]


def _table(config: Config) -> str:
    """The schedule's table, aligned."""
    from sfumato.cli.describe import schedule_rows

    lines = [f"{'t':>6}{'logsnr':>10}{'abar':>10}{'alpha':>10}{'sigma':>10}"]
    for row in schedule_rows(config):
        lines.append(
            f"{row['t']:>6}{row['logsnr']:>10.3f}{row['abar']:>10.3g}{row['alpha']:>10.4f}{row['sigma']:>10.4f}"
        )
    return "\n".join(lines)


VERB = Info
