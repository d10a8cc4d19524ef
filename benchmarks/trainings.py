"""The contestants of time_to_quality.py: each trains a step at a time, told how much of its time is spent, and samples.

Lengths of schedules follow the time: `progress`, the spent fraction of it, takes the place of (steps done / steps
planned) in every learning rate, so that nobody has to guess how many steps will fit.

Networks: Sfumato's follow from its presets. The peers get the networks of `common`, of about the size of Sfumato's
earlier ones (1.6M parameters, diffusers; 1.3M, denoising-diffusion-pytorch). The peers' images lie decoded in memory.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import common
from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.config.presets import PRESETS, recipe, resolve
from sfumato.data import Dataset, open_data
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare, wanted
from sfumato.train.choose import choose
from sfumato.train.trainer import Trainer

WARMUP = 0.05
"""Fraction of the time in which a peer's rate rises, where its documented 500 steps would take all of it."""


class Training(Protocol):
    """A contestant.

    Attributes:
        about: settings in one line.
        sampling: how it samples, in one line.
        parameters: of its network.
    """

    about: str
    sampling: str
    parameters: int

    def step(self, progress: float) -> int:
        """Take one step when the fraction `progress` of the time is spent; return the images that it took."""

    def sample(self, num: int, seed: int) -> Iterator[Tensor]:
        """Yield stored values, (b, C, H, W), `num` in all."""


class Sfumato:
    """The recipe that `sfumato train DATA` chooses for these images and this time, an earlier one, or EDM's loss and
    preconditioning (2206.00364) around the same network, by the optimiser named `edm`."""

    def __init__(self, source: str, seconds: float, seed: int, earlier: bool = False, edm: str = "") -> None:
        given = {"data.source": source, "train.budget": f"{seconds:g}", "train.seed": str(seed)}
        config, data, reason = choose(None, None, given, torch.device("cpu"))
        name, self.recipe = reason.partition(":")[0], Recipe()
        if earlier:
            config = resolve(name, overrides={**given, **_earlier(data.shape)})
            data = open_data(config.data)
            self.recipe = Recipe("dpmpp-2", steps=20, grid="logsnr")
        if edm:
            config = _edm(config, edm)
            self.recipe = Recipe("heun", steps=18, grid="karras", range="free")
        unknown = replace(config, train=replace(config.train, images=10**9, budget=None))
        self.trainer = Trainer(unknown, data)
        self.about = f"{name}, as it was" if earlier else f"{name} as EDM, {edm}" if edm else name
        self.parameters = sum(weight.numel() for weight in self.trainer.net.parameters())
        resolved = self.recipe.resolve(self.trainer.model())
        self.sampling = f"{resolved.sampler}, {resolved.steps} steps, grid {resolved.grid}"

    def step(self, progress: float) -> int:
        batch, seen = self.trainer.config.train.batch, self.trainer.images
        if seen:
            self.trainer.planned = max(seen + batch, round(seen / progress))
        self.trainer.step()
        return batch

    def sample(self, num: int, seed: int) -> Iterator[Tensor]:
        model = self.trainer.model()
        model.net.eval()
        usual = wanted(model, None)  # labels as the training images have them, or none
        for _, x in prepare(model, self.recipe, usual).stream(num, seed, condition=usual, batch=50):
            yield model.codec.decode(x)


def _earlier(shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the recipe before refined images and Muon, as overrides; its patches were those of today's sizes."""
    side = max(shape[1:])
    patch = recipe(next(s for s in (8, 16, 32, 64, 128, 256) if side <= s or s == 256), "small").net.patch
    return {
        "net.base": "32",
        "net.multipliers": "1,2,2",
        "net.attention": "2",
        "net.blocks": "1",
        "net.groups": "8",
        "net.patch": str(patch),
        "diffusion.schedule.kind": "cosine",
        "diffusion.parameterization": "v",
        "diffusion.timesteps.kind": "uniform",
        "optim.name": "adamw",
        "optim.lr": "3e-3",
        "optim.decay": "cosine",
        "ema.half_life": "0.02",
        "train.batch": "32",
    }


def _edm(config: Config, optimiser: str) -> Config:
    """Return a recipe with EDM's loss, levels and preconditioning; by Adam with EDM's rate, by Muon with its own."""
    published = PRESETS["cifar10-edm"].config
    net = replace(published.net, inner=config.net)  # type: ignore[type-var]
    adam = replace(published.optim, eps=1e-8, warmup=0.05, decay="late")
    optim = adam if optimiser == "adam" else config.optim
    return replace(config, net=net, diffusion=published.diffusion, optim=optim)


def _images(source: str) -> Dataset:
    """Open a set as Sfumato does; raise UserError for images that the peers can't take."""
    data = open_data(DataConfig(source))
    _, height, width = data.shape
    if height != width or height % 4 or data.format.levels != 256:
        raise UserError(f"the peers take square images of 8 bits whose side is a multiple of 4, not {width}x{height}")
    return data


class Batches:
    """Shuffled batches of the training images in [-1, 1], an epoch after the other; a short last one is left out."""

    def __init__(self, data: Dataset, seed: int) -> None:
        self.x = data.format.to_model(data.rows(torch.from_numpy(data.train))[0])
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.int64)

    def next(self, batch: int) -> Tensor:
        if len(self.order) < batch:
            self.order = torch.randperm(len(self.x), generator=self.generator)
        index, self.order = self.order[:batch], self.order[batch:]
        return self.x[index]


class Diffusers:
    """diffusers' example of unconditional training (examples/unconditional_image_generation/train_unconditional.py).

    AdamW 1e-4 (0.95, 0.999), weight decay 1e-6, batches of 16, 500 steps of warm-up, then a cosine; eps of 1,000 linear
    steps; gradient norm 1; its EMA with power 3/4 up to 0.9999. Sampled by its DDIMPipeline with the pipeline's usual
    50 steps: the example's own 1,000 steps of DDPM would take twenty times as long.
    """

    batch = 16

    def __init__(self, source: str, seconds: float, seed: int, lr: float = 1e-4, steps: int = 50) -> None:
        data = _images(source)
        team = common.build("diffusers", data.shape[1], data.shape[0], seed)
        self.schedulers = importlib.import_module("diffusers")
        self.net, self.parameters, self.batches = team.net, team.parameters, Batches(data, seed)
        self.format, self.steps, self.lr, self.count = data.format, steps, lr, 0
        self.short = lr != 1e-4
        self.warm_at = WARMUP if self.short else 0.0
        self.process = self.schedulers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr, betas=(0.95, 0.999), weight_decay=1e-6)
        self.ema = importlib.import_module("diffusers.training_utils").EMAModel(
            self.net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
        warmup = f"{WARMUP:.0%} of the time" if self.short else "500 steps"
        self.about = f"AdamW {lr:g}, batch 16, warm-up {warmup}, cosine, EMA"
        self.sampling = f"its DDIM, {steps} steps"
        self.net.train()

    def rate(self, progress: float) -> float:
        """Return the example's learning rate: up to `lr`, then half a cosine over the rest of the time."""
        if not self.short and self.count < 500:
            self.warm_at = progress
            return self.lr * self.count / 500
        if progress < self.warm_at:
            return self.lr * progress / self.warm_at
        along = (progress - self.warm_at) / max(1e-9, 1 - self.warm_at)
        return self.lr * (1 + math.cos(math.pi * min(1.0, along))) / 2

    def step(self, progress: float) -> int:
        self.optimiser.param_groups[0]["lr"] = self.rate(progress)
        x = self.batches.next(self.batch)
        eps, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        F.mse_loss(self.net(self.process.add_noise(x, eps, t), t).sample, eps).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.step(self.net.parameters())
        self.count += 1
        return len(x)

    def sample(self, num: int, seed: int) -> Iterator[Tensor]:
        self.ema.copy_to(self.net.parameters())
        self.net.eval()
        scheduler = self.schedulers.DDIMScheduler.from_config(self.process.config)
        pipeline = self.schedulers.DDIMPipeline(self.net, scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        for part in torch.arange(num).split(50):
            out = pipeline(
                batch_size=len(part), generator=generator, num_inference_steps=self.steps, output_type="np"
            ).images
            yield torch.from_numpy(out).mul(255).round().to(torch.uint8).permute(0, 3, 1, 2)


class Denoising:
    """denoising-diffusion-pytorch's GaussianDiffusion with its defaults, trained as its Trainer does.

    Documented (README): Adam 8e-5 (0.9, 0.99) without decay, batches of 32 twice a step, gradient norm 1, EMA 0.995
    every 10 steps; v of the sigmoid schedule; 250 DDIM steps. With another rate: batches of 16, one a step, the
    Trainer's own defaults, since they make four times as many steps.
    """

    def __init__(self, source: str, seconds: float, seed: int, lr: float = 8e-5, steps: int = 250) -> None:
        data = _images(source)
        team = common.build("denoising-diffusion-pytorch", data.shape[1], data.shape[0], seed)
        module = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")
        module.tqdm = lambda each, **_: each  # type: ignore[attr-defined]
        self.parameters, self.batches, self.format = team.parameters, Batches(data, seed), data.format
        self.diffusion = module.GaussianDiffusion(
            team.net, image_size=data.shape[1], timesteps=1000, sampling_timesteps=steps
        )
        self.batch, self.accumulate = (32, 2) if lr == 8e-5 else (16, 1)
        self.optimiser = torch.optim.Adam(self.diffusion.parameters(), lr, betas=(0.9, 0.99))
        self.ema = module.EMA(self.diffusion, beta=0.995, update_every=10)
        self.about = f"Adam {lr:g}, batch {self.batch} x {self.accumulate}, EMA 0.995"
        self.sampling = f"its DDIM, {steps} steps"
        self.diffusion.train()

    def step(self, progress: float) -> int:
        for _ in range(self.accumulate):
            x = self.batches.next(self.batch).add(1).div(2)
            (self.diffusion(x) / self.accumulate).backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update()
        return self.batch * self.accumulate

    def sample(self, num: int, seed: int) -> Iterator[Tensor]:
        torch.manual_seed(seed)
        self.ema.ema_model.eval()
        for part in torch.arange(num).split(50):
            with torch.inference_mode():
                out = self.ema.ema_model.sample(batch_size=len(part))
            yield out.clamp(0, 1).mul(255).round().to(torch.uint8)


CONTESTANTS: dict[str, Callable[..., Training]] = {
    "sfumato": Sfumato,
    "sfumato-earlier": lambda *given: Sfumato(*given, earlier=True),
    "sfumato-edm": lambda *given: Sfumato(*given, edm="adam"),
    "sfumato-edm-muon": lambda *given: Sfumato(*given, edm="muon"),
    "diffusers": Diffusers,
    "diffusers-1e-3": lambda *given, **options: Diffusers(*given, lr=1e-3, **options),
    "ddp": Denoising,
    "ddp-1e-3": lambda *given, **options: Denoising(*given, lr=1e-3, **options),
}
"""Each by name: called with (source, seconds, seed); the peers also with `steps`, of sampling."""
USUAL = [name for name in CONTESTANTS if not name.startswith("sfumato-edm")]
"""Those that run where none is named."""
