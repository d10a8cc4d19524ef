r"""The held-out loss, the best weights by it, and the detection of overfitting.

The held-out images get the same times and noise every time, so two results can be compared image by image. With
d_j = loss_j - loss_j(best),

    z = mean(d) / ( std(d) / sqrt(N) )

is far more sensitive than comparing two means by their standard errors. Overfitting is reported when z exceeds 3 while
the loss on as many training images has fallen: from then on the network learns those images only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.diffusion import Bound, Noised, Terms, marginal, sample_timesteps
from sfumato.diffusion.level import exact_device
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.model import Model
from sfumato.ranks import World

SEED = 0
"""The same in every run, so that held-out losses of runs with other seeds can be compared."""
Z_SCORE = 3.0
"""Standard errors by which the held-out loss must have risen."""


@dataclass(frozen=True)
class HeldOutLosses:
    """Losses of the averaged weights on images that they were not trained on.

    Attributes:
        held_out: the objective's loss of each held-out image and its t.
        bound: T times the term of the variational bound at that t, in bits a dimension of x_0.
        train: mean loss on as many training images, with the same times and noise.
    """

    held_out: Terms
    bound: Terms
    train: float


def held_out_losses(model: Model, data: Dataset, world: World = World()) -> HeldOutLosses | None:
    """Return a model's losses on the held-out set; None where no image is held out.

    The times are stratified, t of image j from the j-th of n equal parts, so a few images cover all noise levels.
    """
    index = torch.from_numpy(data.held_out[: model.config.train.held_out_images])
    if not len(index):
        return None
    held_out, bound = _losses(model, data, index, world)
    train, _ = _losses(model, data, torch.from_numpy(data.train[: len(index)]), world)
    return HeldOutLosses(held_out, bound, float(train.loss.cpu().double().mean()))


@torch.no_grad()
def _losses(model: Model, data: Dataset, index: Tensor, world: World) -> tuple[Terms, Terms]:
    """Return the objective's losses and the bound's terms of images, whose batches the ranks take in turn."""
    diffusion, device, schedule = model.config.diffusion, model.device, model.schedule
    objective = diffusion.build_objective(model.codec.decoder)
    bound = Bound(diffusion.build_variance(), model.codec.decoder)
    rows = torch.arange(len(index))
    u = (rows + uniform(SEED, Purpose.HELD_OUT_TIME, rows)) / len(index)
    t = sample_timesteps(u, schedule.num_steps).to(exact_device(device))
    results = torch.zeros(2, len(index), device=device)
    for number, part in enumerate(torch.split(rows, model.config.train.micro or model.config.train.batch)):
        if number % world.size != world.rank:
            continue
        values, condition = data.rows(index[part])
        x_0 = model.codec.encode(values.to(device)).contiguous(memory_format=torch.channels_last)
        eps = normal(SEED, Purpose.HELD_OUT_NOISE, part.to(device), tuple(x_0.shape[1:]))
        condition = None if condition is None else condition.to(device)
        times = t[part.to(t.device)]
        x_t = marginal(x_0, schedule(times)).sample(eps)
        prediction, noised = model.denoiser(x_t, times, condition), Noised(x_0, eps, x_t, times, schedule)
        for result, losses in zip(results, (objective, bound), strict=True):
            result[part.to(device)] = losses.losses(prediction, noised)
    losses, nats = world.sum(results)
    return Terms(losses, t), Terms(nats / math.log(2), t)


@dataclass(frozen=True, eq=False)
class Best:
    """The lowest held-out loss so far.

    Attributes:
        held_out: (N,) float64, the loss of each held-out image; empty before the first time.
        train: mean loss on training images.
        images: images seen.
        warned: whether overfitting was reported.
    """

    held_out: Tensor = torch.zeros(0, dtype=torch.float64)
    train: float = math.inf
    images: int = -1
    warned: bool = False

    def update(self, held_out: Tensor, train: float, images: int) -> tuple[Best, str | None]:
        """Compare with new losses, and return the best of both and a warning, or None.

        Args:
            held_out: (N,) the loss of each held-out image.
            train: mean loss on training images, with the same times and noise.
            images: images seen.
        """
        losses = held_out.detach().cpu().double()
        if not losses.mean().isfinite():
            return self, None
        if len(self.held_out) != len(losses) or float(losses.mean()) < float(self.held_out.mean()):
            return Best(losses, train, images, self.warned), None
        difference = losses - self.held_out
        error = float(difference.std()) / math.sqrt(len(losses)) if len(losses) > 1 else math.inf
        z = float(difference.mean()) / error if error > 0 else 0.0
        if self.warned or z < Z_SCORE or train >= self.train:
            return self, None
        warning = (
            f"overfitting: the held-out loss rose from {float(self.held_out.mean()):.4f} (at {self.images} images) "
            f"to {float(losses.mean()):.4f}, by {z:.0f} standard errors, while the loss on training images fell from "
            f"{self.train:.4f} to {train:.4f}; the best weights are kept as weights/best.safetensors; more images, "
            "flips (data.flip=true), dropout (net.dropout=0.1) or a smaller network would help"
        )
        return replace(self, warned=True), warning

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        facts = torch.tensor([self.train, float(self.images), float(self.warned)], dtype=torch.float64)
        return {"watch/held_out": self.held_out, "watch/facts": facts}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor]) -> Best:
        """Return the value in a checkpoint's tensors, or an empty one."""
        if "watch/facts" not in tensors:
            return cls()
        train, images, warned = tensors["watch/facts"].tolist()
        return cls(tensors["watch/held_out"].cpu(), train, int(images), bool(warned))
