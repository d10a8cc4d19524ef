"""Sampling with the same U-Net in three libraries: one denoising step, DDIM through the library's own sampler, and what
such a loop takes beside its network.

Example: python benchmarks/sampling.py --rounds 9 --threads 1 --steps 10
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import common
from common import OURS, Contestant, processor_time
from sfumato.nets.derived import fixed

COMPILED = "sfumato, compiled"


def running(team: Contestant, fast: Callable[..., Tensor]) -> Contestant:
    """Return a contestant that runs another form of its network; operations are counted in its own, on meta."""
    return replace(team, call=lambda own, x, t: (own if x.device.type == "meta" else fast)(x, t))


def compiled_contestant(size: int, batch: int) -> Contestant:
    """Return our network compiled as `sfumato sample --compile` does, and print the seconds that it takes."""
    from sfumato.generate.compiled import compiled_network

    net = common.build(OURS, size).net.eval()
    team = running(Contestant(COMPILED, net, lambda net, x, t: net(x, t)), compiled_network(net, batch))
    start = processor_time()
    step_of(team, batch, size)()
    print(f"{COMPILED}: {processor_time() - start:.1f} s to compile for {batch} images")
    return team


def step_of(team: Contestant, batch: int, size: int) -> Callable[[], Tensor]:
    """Return one evaluation of the network on a batch."""
    team.net.eval()
    guard = torch.no_grad if team.name == COMPILED else torch.inference_mode
    x, t = torch.randn(batch, 1, size, size), torch.full((batch,), 500.0)

    def step() -> Tensor:
        with guard():
            return team.predict(x, t)

    return step


def loop_of(team: Contestant, batch: int, size: int, steps: int) -> Callable[[], Any]:
    """Return a DDIM loop (eta = 0, predicted images clipped, linear schedule of 1,000 steps) from noise to a batch."""
    builders = {OURS: _ours, COMPILED: _ours, "diffusers": _diffusers, "denoising-diffusion-pytorch": _denoising}
    loop = builders[team.name](team, batch, size, steps)

    def run() -> Any:
        with torch.no_grad() if team.name == COMPILED else torch.inference_mode():
            return loop()

    return run


def _ours(team: Contestant, batch: int, size: int, steps: int) -> Callable[[], Any]:
    from sfumato.diffusion import DDIM, Clipped, Eps, Linear, NetworkDenoiser, Noise, sample, trailing

    denoiser = Clipped(NetworkDenoiser(lambda x, t, _: team.predict(x, t), Linear(), Eps()))
    noise = Noise(0, torch.arange(batch), (1, size, size))
    return lambda: sample(denoiser, DDIM(), trailing(steps, denoiser.schedule), noise)


def _diffusers(team: Contestant, batch: int, size: int, steps: int) -> Callable[[], Any]:
    from diffusers import DDIMPipeline, DDIMScheduler

    pipeline = DDIMPipeline(team.net, DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing"))
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(batch_size=batch, num_inference_steps=steps, output_type="np")


def _denoising(team: Contestant, batch: int, size: int, steps: int) -> Callable[[], Any]:
    module = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
    module.tqdm = lambda each, **_: each  # type: ignore[attr-defined]
    diffusion = module.GaussianDiffusion(
        team.net, image_size=size, objective="pred_noise", beta_schedule="linear", sampling_timesteps=steps
    )
    return lambda: diffusion.sample(batch_size=batch)


def beside(net: nn.Module, run: Callable[[], Any], rounds: int) -> float:
    """Return what a run takes beside its network, as a fraction of the network's processor time: the median."""
    inside = [0.0]
    before = net.register_forward_pre_hook(lambda *_: inside.append(-processor_time()))
    after = net.register_forward_hook(lambda *_: inside.append(inside.pop() + processor_time()))
    fractions = []
    for _ in range(rounds + 1):
        inside[:] = []
        start = processor_time()
        run()
        fractions.append((processor_time() - start) / sum(inside) - 1)
    before.remove()
    after.remove()
    return statistics.median(fractions[1:])


def default_loops(sizes: tuple[int, ...]) -> dict[str, tuple[nn.Module, Callable[[], Any]]]:
    """Return the default recipe with the network of `small32`, in batches of some sizes, by a name."""
    from sfumato.config.presets import resolve
    from sfumato.data import open_data
    from sfumato.generate.recipe import Recipe
    from sfumato.generate.sample import prepare, steady
    from sfumato.train.trainer import Trainer

    config = resolve("small32", overrides={"data.source": "fashion", "train.images": "1000000"})
    model = steady(Trainer(config, open_data(config.data)).model())
    sampling = prepare(model, Recipe())

    def run(batch: int) -> None:
        for _ in sampling.stream(batch, batch=batch):
            pass

    return {f"small32 by default, batch {size}": (model.denoiser.net, lambda size=size: run(size)) for size in sizes}


def main() -> None:
    options = common.parser("Time sampling against diffusers and denoising-diffusion-pytorch.")
    options.add_argument("--steps", type=int, default=10, help="steps of the DDIM loop (10)")
    options.add_argument("--compiled", action="store_true", help="also our network as sample --compile runs it")
    arguments = options.parse_args()
    common.set_up(arguments)
    batch, results = arguments.batch, []
    for size in arguments.sizes:
        plain = common.contestants(size)
        teams = [running(team, fixed(team.net.eval())) if team.name == OURS else team for team in plain]
        if arguments.compiled:
            teams.append(compiled_contestant(size, batch))
        work = {
            f"Denoising step, {batch} x 1x{size}x{size}": (
                {team.name: step_of(team, batch, size) for team in teams},
                1,
            ),
            f"DDIM, {arguments.steps} steps, {batch} x 1x{size}x{size}": (
                {team.name: loop_of(team, batch, size, arguments.steps) for team in teams},
                arguments.steps,
            ),
        }
        for title, (runs, passes) in work.items():
            results.append(common.measure(title, runs, teams, arguments, size, passes))
        loops = {f"{team.name}, DDIM": (team.net, loop_of(team, batch, size, arguments.steps)) for team in plain}
        rounds = max(1, arguments.rounds // 2)
        shares = {name: beside(*loop, rounds) for name, loop in (loops | default_loops((1, 16, 64))).items()}
        print("\nbeside the network:", ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items()))
        results.append({"title": "beside the network", "rows": shares})
    common.write_json(arguments.json, results)


if __name__ == "__main__":
    main()
