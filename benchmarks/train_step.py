"""A training step of the same U-Net in three libraries: forward, mean squared error, backward, AdamW.

Example: python benchmarks/train_step.py --rounds 9 --threads 1
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

import common
from common import Contestant


def step_of(team: Contestant, batch: int, size: int) -> Callable[[], None]:
    """Return one training step on fixed random images; the network learns from every call, as in earnest."""
    team.net.train()
    optimiser = torch.optim.AdamW(team.net.parameters(), lr=1e-4)
    x, target = torch.randn(2, batch, 1, size, size)
    t = torch.randint(1000, (batch,)).float()

    def step() -> None:
        optimiser.zero_grad()
        F.mse_loss(team.predict(x, t), target).backward()
        optimiser.step()

    return step


def main() -> None:
    options = common.parser("Time a training step against diffusers and denoising-diffusion-pytorch.").parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for size in options.sizes:
        teams = common.contestants(size)
        convolve, gflop = common.calibration(options.batch)
        runs = {team.name: step_of(team, options.batch, size) for team in teams}
        seconds = common.interleave({common.CALIBRATION: convolve, **runs}, options.rounds)
        title = (
            f"Training step, {options.batch} x 1x{size}x{size}, {options.threads} thread(s), {options.rounds} rounds"
        )
        table = common.rows(seconds, teams, options.batch, size, 3, gflop)
        common.show(title, table)
        results.append({"calibration_gflop_s": common.show_calibration(seconds, gflop), "rows": table})
    common.write_json(options.json, results)


if __name__ == "__main__":
    main()
