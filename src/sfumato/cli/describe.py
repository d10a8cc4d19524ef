"""A configuration and a model in words: shared by `info` and `train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.cli.console import count

if TYPE_CHECKING:
    from sfumato.config.config import Config
    from sfumato.config.diffusion import DiffusionConfig
    from sfumato.nets.unet.unet import UNetConfig

__all__ = ["network", "padding", "process", "schedule_rows"]

MARKS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Times of the schedule's table."""


def padding(net: UNetConfig, shape: tuple[int, int, int]) -> str:
    """Say to which size images are extended inside the network; nothing where they fit."""
    _, height, width = shape
    inside = [-(-side // net.multiple) * net.multiple for side in (height, width)]
    if inside == [height, width]:
        return ""
    return f"{height}x{width} extended to {inside[0]}x{inside[1]} inside"


def network(net: UNetConfig, parameters: int, flops: int | None) -> str:
    """Say what the network is, in two lines; its cost is known once the size of its images is."""
    widths = ", ".join(str(net.base * m) for m in net.multipliers)
    attention = (
        f"attention at level {', '.join(map(str, net.attention))}" if net.attention else "attention in the middle"
    )
    fold = f", pixels folded {net.fold}x{net.fold} into channels" if net.fold > 1 else ""
    cost = "" if flops is None else f", {count(flops)}FLOP an image forward"
    return (
        f"U-Net of {parameters:,} parameters{cost}\n"
        f"levels of {widths} channels, {net.blocks} blocks each, {attention}, dropout {net.dropout:g}{fold}"
    )


def process(diffusion: DiffusionConfig) -> str:
    """Say which process is reversed and what the network predicts."""
    schedule = diffusion.schedule
    extras = ["zero terminal SNR"] if diffusion.zero_terminal_snr else []
    if diffusion.logsnr_shift:
        extras.append(f"logsnr shifted by {diffusion.logsnr_shift:g}")
    loss = diffusion.loss_space or diffusion.parameterization
    kind = type(schedule).__name__.lower()
    return (
        f"{', '.join([f'{kind} schedule of {schedule.num_steps:,} steps', *extras])}\n"
        f"the network predicts {diffusion.parameterization}; squared error of {loss}; {diffusion.variance} variance"
    )


def schedule_rows(config: Config) -> list[dict[str, float]]:
    """Return the schedule at some of its steps: t, logsnr, abar, alpha, sigma."""
    schedule = config.diffusion.build_schedule()
    total = schedule.num_steps
    rows = []
    for step in sorted({max(1, round(mark * total)) for mark in MARKS}):
        level = schedule(step / total)
        rows.append(
            {
                "t": step,
                "logsnr": float(level.logsnr),
                "abar": float(level.abar),
                "alpha": float(level.alpha),
                "sigma": float(level.sigma),
            }
        )
    return rows
