"""Several runs and weights files side by side: what `sfumato info` prints of more than one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sfumato.cli.model import ModelOptions
from sfumato.report.text import count, duration

if TYPE_CHECKING:
    from sfumato.config.config import Config
    from sfumato.model import Model

COLUMNS = ("data", "size", "recipe", "parameters", "images", "loss", "held-out", "time")
_SHORT = 40
"""The most characters of a value in the table of differences."""


@dataclass(frozen=True)
class Described:
    """A run or a weights file: its name, its configuration, the model where it has one, and figures by name."""

    name: str
    config: Config
    model: Model | None
    figures: dict[str, Any]

    @classmethod
    def read(cls, options: ModelOptions) -> Described:
        """Read what the options choose; raises `UserError` where there is no such run or weights."""
        from sfumato.model import load
        from sfumato.run.folder import Run
        from sfumato.run.locate import run_of
        from sfumato.run.summary import RunSummary

        source, place = options.source, options.place
        run = run_of(place / "ema.safetensors") or Run(place)  # that of a checkpoint, or a run itself
        summary = RunSummary.read(run) if place.is_dir() and run.exists() else None
        young = run.path == place and options.weights is None and summary is not None and "ema" not in summary.weights
        model = None if young else load(source, options.chosen)
        config = summary.run.config() if summary is not None else model.config  # type: ignore[union-attr]
        figures = (model.describe() if model is not None else {}) | (summary.describe() if summary is not None else {})
        return cls(str(source), config, model, figures)

    @property
    def lasting(self) -> Config:
        """The configuration, with the length to which the run was extended in place of the first one."""
        plan = self.figures.get("plan") or {}
        if not plan.get("asked"):
            return self.config
        return replace(self.config, train=replace(self.config.train, images=plan["images"]))

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON-able object."""
        from sfumato.config.config import to_dict

        schedule, table = self.config.diffusion.describe_schedule(), to_dict(self.config)
        return {"path": self.name, **self.figures, "schedule": schedule, "config": table}

    def row(self) -> tuple[str, ...]:
        """Return the cells of `COLUMNS`; "-" where a figure is not known."""
        from sfumato.config.config import to_dict

        figures, config = self.figures, self.config
        seen, planned = figures.get("images", figures.get("images_seen")), figures.get("planned_images")
        share = f" of {count(planned).replace(' ', '')}" if planned and seen is not None and seen < planned else ""
        images = "-" if seen is None else f"{seen:,}{share}"
        shape = "-" if self.model is None else "x".join(map(str, self.model.codec.image_shape))
        parameters = figures.get("parameters")
        diffusion, optim = config.diffusion, config.optim
        recipe = (
            f"{to_dict(config)['net']['kind']} {diffusion.parameterization}, {optim.name} {optim.lr:.3g}, {optim.decay}"
        )
        loss, held_out = (figures.get(name) for name in ("loss", "held_out_loss"))
        return (
            config.data.source,
            shape,
            recipe,
            "-" if parameters is None else count(parameters).replace(" ", ""),
            images,
            "-" if loss is None else f"{loss:.4f}",
            "-" if held_out is None else f"{held_out:.4f}",
            duration(figures["seconds"]) if figures.get("seconds") else "-",
        )


def compared(described: Sequence[Described]) -> str:
    """Return a table with a row for each, and the values of the configuration in which they differ."""
    rows = [("", *COLUMNS), *((each.name, *each.row()) for each in described)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if differing := differences([each.lasting for each in described]):
        lines += ["", "differing values of the configuration, in the same order:"]
        names = max(map(len, differing)) + 2
        values = {key: [_cut(value) for value in row] for key, row in differing.items()}
        columns = [max(len(row[n]) for row in values.values()) + 2 for n in range(len(described))]
        for key, row in values.items():
            cells = "".join(f"{value:{width}}" for value, width in zip(row, columns, strict=True))
            lines.append(f"  {key:{names}}{cells}".rstrip())
    else:
        lines += ["", "the configurations are equal"]
    return "\n".join(lines)


def differences(configs: Sequence[Config]) -> dict[str, list[str]]:
    """Return the dotted keys whose values differ, with the value of each configuration; "-" where it has none."""
    from sfumato.config.config import to_dict

    tables = [dict(_flat(to_dict(config))) for config in configs]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = {key: [_plain(table[key]) if key in table else "-" for table in tables] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _flat(table: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += _flat(value, f"{before}{key}.") if isinstance(value, dict) else [(before + key, value)]
    return pairs


def _plain(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_plain, value)) if isinstance(value, list | tuple) else f"{value}"


def _cut(value: str) -> str:
    return value if len(value) <= _SHORT else f"...{value[3 - _SHORT :]}"
