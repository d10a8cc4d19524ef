"""Training on a GPU beside the peers' own loops as they document them: images per second of the same network.

    python benchmarks/gpu_peers.py                                    both peers, on random images in PNG files
    python benchmarks/gpu_peers.py --device cpu --tiny --steps 2      a trial without a card

Each peer trains as its documentation shows, from a folder of files: denoising-diffusion-pytorch's `Trainer` with its
README's settings (128x128, batches of 32 twice a step, `amp=True`), and the loop of diffusers' training tutorial
(128x128, batches of 16, fp16 by accelerate, a gradient norm of 1, with the loader of its data set). The network is then
read by `sfumato import`, and Sfumato trains it from the same folder, batch for batch, by its loop and by Adam, then
compiled. The order turns with every round; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import common
from sfumato.data import open_data
from sfumato.exchange.imports import read_model
from sfumato.train.metrics import Meter
from sfumato.train.trainer import Trainer

Steps = Callable[[int], int]
"""Takes so many steps and returns the images that they took."""


def folder_of(path: Path, side: int, count: int) -> Path:
    """Write smooth random images as PNG files."""
    path.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(path / f"{index:05}.png")
    return path


def lucid(folder: Path, side: int, tiny: bool, device: torch.device, work: Path) -> tuple[Steps, Path]:
    """denoising-diffusion-pytorch's own `Trainer`, and a file of its network."""
    import denoising_diffusion_pytorch.denoising_diffusion_pytorch as peer

    peer.tqdm = _quiet  # type: ignore[attr-defined]
    net = peer.Unet(
        dim=16 if tiny else 64, dim_mults=(1, 2) if tiny else (1, 2, 4, 8), flash_attn=device.type == "cuda"
    )
    diffusion = peer.GaussianDiffusion(net, image_size=side, timesteps=1000, sampling_timesteps=250)
    batch, twice = (8, 2) if tiny else (32, 2)
    trainer = peer.Trainer(
        diffusion,
        str(folder),
        train_batch_size=batch,
        train_lr=8e-5,
        train_num_steps=0,
        gradient_accumulate_every=twice,
        ema_decay=0.995,
        amp=device.type == "cuda",
        calculate_fid=False,
        results_folder=str(work / "lucid"),
        save_and_sample_every=10**9,
    )
    trainer.save(1)

    def steps(count: int) -> int:
        trainer.train_num_steps = trainer.step + count
        trainer.train()
        return count * batch * twice

    return steps, work / "lucid" / "model-1.pt"


class _quiet:
    """In place of tqdm."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> _quiet:
        return self

    def __exit__(self, *_: object) -> None: ...
    def set_description(self, *_: object) -> None: ...
    def update(self, *_: object) -> None: ...


def tutorial(folder: Path, side: int, tiny: bool, device: torch.device, work: Path) -> tuple[Steps, Path]:
    """The loop of diffusers' training tutorial, and a folder of its network."""
    from accelerate import Accelerator
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup

    widths = (16, 32) if tiny else (128, 128, 256, 256, 512, 512)
    attention = len(widths) - 2
    net = UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=widths,
        norm_num_groups=16 if tiny else 32,
        down_block_types=tuple("AttnDownBlock2D" if i == attention else "DownBlock2D" for i in range(len(widths))),
        up_block_types=tuple("AttnUpBlock2D" if i == 1 else "UpBlock2D" for i in range(len(widths))),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    saved = work / "diffusers"
    DDPMPipeline(net, scheduler).save_pretrained(saved)
    batch = 4 if tiny else 16
    accelerator = Accelerator(mixed_precision="fp16" if device.type == "cuda" else "no", cpu=device.type == "cpu")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(Files(folder), batch_size=batch, shuffle=True)  # the tutorial's: no workers
    rate = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=500, num_training_steps=10**5)
    net, optimizer, loader, rate = accelerator.prepare(net, optimizer, loader, rate)
    batches = _forever(loader)

    def steps(count: int) -> int:
        for _ in range(count):
            x = next(batches)
            noise = torch.randn(x.shape, device=x.device)
            t = torch.randint(0, 1000, (len(x),), device=x.device, dtype=torch.int64)
            noised = scheduler.add_noise(x, noise, t)
            with accelerator.accumulate(net):
                loss = F.mse_loss(net(noised, t, return_dict=False)[0], noise)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                rate.step()
                optimizer.zero_grad()
            loss.detach().item()  # the tutorial shows it at every step
        return count * batch

    return steps, saved


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """A folder's images, mirrored at random, in [-1, 1]; decoded each time, as the tutorial's transform does."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        x = torch.from_numpy(np.asarray(Image.open(self.files[index]).convert("RGB")).copy()).permute(2, 0, 1)
        x = x.float() / 127.5 - 1
        return x.flip(-1) if torch.rand(()) < 0.5 else x


def _forever(loader: Any) -> Any:
    while True:
        yield from loader


def ours(saved: Path, folder: Path, side: int, batch: int, device: torch.device, work: Path, compiled: bool) -> Steps:
    """Sfumato's loop on the network of a peer."""
    config = read_model(saved, options={"size": str(side)} if saved.is_file() else {}).config
    data = open_data(replace(config.data, source=str(folder), flip=True), work / "cache")
    optim = replace(config.optim, name="adamw", lr=1e-4, clip=1.0)
    train = replace(config.train, batch=batch, images=10**9, precision="auto", compile=compiled)
    trainer = Trainer(replace(config, data=data.config, optim=optim, train=train), data, device)
    meter = Meter(device)

    def steps(count: int) -> int:
        for step in range(count):
            meter.add(trainer.step(), step)
            if step % 16 == 15 or step == count - 1:
                meter.read()
        return count * batch

    return steps


PEERS: dict[str, tuple[Callable[..., tuple[Steps, Path]], int]] = {
    "denoising-diffusion-pytorch": (lucid, 64),
    "diffusers": (tutorial, 16),
}
"""Each with the images of a step of its documented settings."""


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    options = argparse.ArgumentParser(description="Train beside the peers' own loops on a GPU.")
    options.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    options.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options.add_argument("--side", type=int, default=128)
    options.add_argument("--images", type=int, default=1000, help="files in the folder")
    options.add_argument("--steps", type=int, default=30, help="of each contestant and round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--compile", action="store_true", help="ours compiled too")
    options.add_argument("--tiny", action="store_true", help="small networks and images, for a trial")
    options.add_argument("--json", type=Path)
    arguments = options.parse_args(words)
    device, side = arguments.device, 16 if arguments.tiny else arguments.side
    if device.type == "cuda" and not torch.cuda.is_available():
        print("this machine has no GPU that torch can use: all figures of this benchmark are missing")
        return []
    if common.broken_torchvision():
        common.stand_in_for_torchvision()
    rows = []
    for name in arguments.peers:
        build, batch = PEERS[name]
        with tempfile.TemporaryDirectory() as text:
            work = Path(text)
            folder = folder_of(work / "images", side, 120 if arguments.tiny else arguments.images)
            theirs, saved = build(folder, side, arguments.tiny, device, work)
            batch = theirs(1)
            runs = {name: theirs, "sfumato": ours(saved, folder, side, batch, device, work, False)}
            if arguments.compile:
                runs["sfumato, compiled"] = ours(saved, folder, side, batch, device, work, True)
            rates: dict[str, list[float]] = {each: [] for each in runs}
            for turn in range(-1, arguments.rounds):
                names = list(runs)
                for each in names[turn % len(names) :] + names[: turn % len(names)]:
                    wait(device)
                    start = time.perf_counter()
                    images = runs[each](arguments.steps if turn >= 0 else 5)
                    wait(device)
                    if turn >= 0:
                        rates[each].append(images / (time.perf_counter() - start))
            for each, found in rates.items():
                ratio = statistics.median(a / b for a, b in zip(found, rates[name], strict=True))
                rows.append(
                    {
                        "peer": name,
                        "contestant": each,
                        "batch": batch,
                        "side": side,
                        "images_s": statistics.median(found),
                        "ratio": ratio,
                    }
                )
                print(f"{name}: {each:28} {statistics.median(found):8.1f} images/s, {ratio:.2f} times", flush=True)
            runs.clear()
            gc.collect()
    if arguments.json:
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        arguments.json.write_text(json.dumps({"device": card, "torch": torch.__version__, "rows": rows}, indent=1))
    return rows


if __name__ == "__main__":
    main()
