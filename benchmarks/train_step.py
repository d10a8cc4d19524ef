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
    arguments = common.parser("Time a training step against diffusers and denoising-diffusion-pytorch.").parse_args()
    common.set_up(arguments)
    results = []
    for size in arguments.sizes:
        teams = common.contestants(size)
        runs = {team.name: step_of(team, arguments.batch, size) for team in teams}
        title = f"Training step, {arguments.batch} x 1x{size}x{size}"
        results.append(common.measure(title, runs, teams, arguments, size, passes=3))
    common.write_json(arguments.json, results)


if __name__ == "__main__":
    main()
