r"""What is learnt and one step of learning it: DDPM's Algorithm 1, with addresses for its random numbers.

Step k covers the positions n = k B .. (k + 1) B - 1 of the training stream. Everything random about position n is a
function of n: which image and whether it is mirrored (the data's affair), and

    t    = times( uniform(seed, TRAIN_TIME, n), T )
    eps  = normal(seed, TRAIN_NOISE, n)
    show of its labels what `kept` says of u = uniform(seed, LABEL_DROPOUT, n)
    how it is altered, and the network told so, follows from uniform(seed, AUGMENT, n) and normal(seed, AUGMENT, n)

The network's first weights and step k's dropout masks come from torch's own generator, seeded for that one purpose
from such an address and put back afterwards. So a learner's whole state is its clock, weights, average and moments:
nothing of a generator has to be saved, and resuming gives the same bits.

Whether a step's loss and gradient are finite is decided on the device, as a number `applied` that is 1 or 0; the
optimiser and the average multiply by it. Python learns of it when it asks, and on a GPU it asks seldom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.conditions.attributes import survey
from sfumato.config.config import Config
from sfumato.data import Dataset, to_bytes
from sfumato.data.augment import augment, beside, draw
from sfumato.diffusion import (
    DDIM,
    Bound,
    Clipped,
    NetworkDenoiser,
    Noised,
    Terms,
    marginal,
    score,
    times,
    trailing,
)
from sfumato.diffusion.decoder import decoder_for
from sfumato.diffusion.importance import LossHistory
from sfumato.diffusion.noise import Purpose, normal, uniform, words
from sfumato.errors import UserError
from sfumato.generate.sample import generate, in_turn
from sfumato.nets import UNet
from sfumato.train import optim
from sfumato.train.ema import EMA
from sfumato.train.watch import Watch

__all__ = ["Learner", "Outcome", "Scores", "kept", "seeded"]

HELD_OUT_SEED = 0  # the same in every run, so that held-out losses of runs with other seeds can be compared


@dataclass(frozen=True)
class Outcome:
    """What a step gave, still on the device.

    Attributes:
        terms: the loss of each example and its t; weighted where t is not uniform, so that the mean is unbiased.
        grad_norm: () norm of the whole gradient, before clipping.
        applied: () 1, or 0 where loss or gradient was not finite and nothing changed.
        lr: the rate.
    """

    terms: Terms
    grad_norm: Tensor
    applied: Tensor
    lr: float


@dataclass(frozen=True)
class Scores:
    """What the average loses on images that it was not trained on.

    Attributes:
        held_out: the objective's loss of each held-out image and its t.
        bound: T times the term of the variational bound at that t, in bits a dimension; of floats, which have a density
            only, in the model's units.
        train: mean loss of as many training images, with the same times and noise.
    """

    held_out: Terms
    bound: Terms
    train: float


@contextmanager
def seeded(seed: int, purpose: Purpose, index: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators from an address, and put them back as they were.

    Args:
        seed, purpose, index: the address.
        device: whose generator is meant, besides the CPU's.
    """
    high, low = words(seed, purpose, torch.tensor([index]), 2)[0].tolist()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(high << 32 | low)
        yield


def kept(u: Tensor, dropout: float) -> Tensor:
    """Decide which attributes of examples the network is shown.

    With probability `dropout` none, which is what guidance subtracts (Ho, Salimans 2022). Of the other examples half
    show all, and half show each attribute with a chance r that is itself uniform in [0, 1]. A model of many attributes
    is asked for one or two of them later, and with r fixed at 1/2 it would hardly ever have met so few: with r uniform,
    each number of attributes shown, 0 to A, is equally likely. A single attribute has no half way: it is left out with
    probability `dropout`. With `dropout` 0 everything is always shown.

    Args:
        u: (B, 2 + A) uniform numbers of the examples.
        dropout: probability that nothing is shown.

    Returns:
        (B, A) bool.
    """
    some = u[:, :1] >= dropout
    if u.shape[1] == 3 or dropout == 0:
        return some.expand(-1, u.shape[1] - 2)
    return some & (u[:, 2:] < 2 * u[:, 1:2])


class Learner:
    """The state of a training, its one step, and the two ways to look at it.

    Args:
        config: what to train; its length must be planned (`config.train.images`).
        data: the images.
        device: where to.

    Attributes:
        net: the network.
        ema: the average of its weights, a network too.
        images: the clock; `step()` moves it by a batch.
    """

    def __init__(self, config: Config, data: Dataset, device: torch.device | str = "cpu") -> None:
        self.config, self.data, self.device = config, data, torch.device(device)
        with seeded(config.train.seed, Purpose.INITIAL_WEIGHTS, 0, self.device):
            net = UNet(config.net)
        self.net = net.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.train()
        self.ema = EMA(self.net)
        self.optimizer = optim.build(config.optim, self.net)
        self.objective = config.diffusion.build_objective(decoder_for(data.depth.levels))
        self.schedule = config.diffusion.build_schedule()
        self.history = LossHistory.empty(self.schedule.num_steps) if config.diffusion.importance else None
        self.watch = self._watch_before = Watch.new()
        self.images = 0

    def _denoiser(self, net: torch.nn.Module) -> NetworkDenoiser:
        return NetworkDenoiser(net, self.schedule, self.config.diffusion.build_parameterization())

    def _model_input(self, x: Tensor) -> Tensor:
        """Values to the model's range, on the device, in the layout that convolutions like."""
        values = x.to(self.device, non_blocking=True)
        return self.data.depth.to_model(values).contiguous(memory_format=torch.channels_last)

    def _condition(self, conditions: Tensor, positions: Tensor) -> Tensor | None:
        """Return conditions (B, A) with some left out (NaN), or None for a network without attributes."""
        if not self.config.net.conditions:
            return None
        u = uniform(self.config.train.seed, Purpose.LABEL_DROPOUT, positions, (2 + conditions.shape[1],))
        return conditions.where(kept(u, self.config.train.label_dropout), math.nan).to(self.device)

    def _altered(self, x_0: Tensor, condition: Tensor | None, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return training images altered by address, and the condition that also says how; both as they are at p = 0.

        What is left out of the labels is not left out of this, and held-out images are never altered.
        """
        if not self.config.augment.on:
            return x_0, condition
        numbers = draw(self.config.augment, self.config.train.seed, positions)
        return augment(x_0, numbers), beside(condition, numbers.to(self.device))

    def _times(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn uniform numbers into times, with the weights that keep the loss unbiased where t is not uniform."""
        if self.history is None:
            return times(u, self.schedule.num_steps), None
        return self.history.draw(u)

    def _dropout(self, step: int) -> AbstractContextManager[None]:
        """Seed torch's generator for a step's dropout masks, where there are any."""
        if not self.config.net.dropout:
            return nullcontext()
        return seeded(self.config.train.seed, Purpose.DROPOUT, step, self.device)

    def step(self) -> Outcome:
        """Take one step: the positions that follow the clock, one gradient, the optimiser, then the average."""
        train, seed, start = self.config.train, self.config.train.seed, self.images
        positions = torch.arange(start, start + train.batch)
        batch = self.data.batch(positions, seed)
        x_0, condition = self._altered(
            self._model_input(batch.x), self._condition(batch.conditions, positions), positions
        )
        t, weights = self._times(uniform(seed, Purpose.TRAIN_TIME, positions))
        eps = normal(seed, Purpose.TRAIN_NOISE, positions.to(self.device), tuple(x_0.shape[1:]))
        with self._dropout(start // train.batch):
            terms = score(self.objective, self._denoiser(self.net), x_0, t.to(self.device), eps, condition)
            weighted = Terms(terms.loss * weights.to(terms.loss), terms.t) if weights is not None else terms
            loss = weighted.loss.mean()
            loss.backward()  # type: ignore[no-untyped-call]
        if self.history is not None:
            self.history = self.history.update(terms)
        outcome = self._apply(Terms(weighted.loss.detach(), terms.t), loss.detach())
        self.images += train.batch
        self._watch_before = self.watch
        return outcome

    def _apply(self, terms: Terms, loss: Tensor) -> Outcome:
        """Let the gradient change the weights, and the weights the average."""
        config, start, batch, planned = self.config, self.images, self.config.train.batch, self._planned
        norm = optim.clip(self.net, config.optim.clip)
        applied = (loss.isfinite() & norm.isfinite()).float()
        lr = optim.learning_rate(config.optim, start, batch, planned)
        optim.apply(self.optimizer, lr, applied)
        self.ema.update(config.ema.decay(start, batch, planned), applied)
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(terms, norm, applied, lr)

    @property
    def _planned(self) -> int:
        assert self.config.train.images is not None, "the length is planned before a learner is made"
        return self.config.train.images

    def held_out(self) -> Scores | None:
        """Score the average on held-out and on as many training images, with the same times and noise every time.

        The times are stratified, t of example j from the j-th of n equal parts, so that few images do for all levels.

        Returns:
            What each example lost; None where no image is held out.
        """
        index = torch.from_numpy(self.data.held_out[: self.config.train.held_out_images])
        if not len(index):
            return None
        seen = torch.from_numpy(self.data.train[: len(index)])
        losses, bounds, t = self._scores(index)
        return Scores(Terms(losses, t), Terms(bounds, t), float(self._scores(seen)[0].double().mean()))

    @torch.no_grad()
    def _scores(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (loss, bound's term in bits a dimension times T, t) of images, each (n,)."""
        num, denoiser, parts = len(index), self._denoiser(self.ema.net), []
        bound = Bound(self.config.diffusion.build_variance(), decoder_for(self.data.depth.levels))
        for place in torch.split(torch.arange(num), self.config.train.batch):
            pixels, conditions = self.data.gather(index[place])
            x_0 = self._model_input(pixels)
            u = (place + uniform(HELD_OUT_SEED, Purpose.HELD_OUT_TIME, place)) / num
            t = times(u, self.schedule.num_steps).to(self.device)
            eps = normal(HELD_OUT_SEED, Purpose.HELD_OUT_NOISE, place.to(self.device), tuple(x_0.shape[1:]))
            condition = conditions.to(self.device) if self.config.net.conditions else None
            x_t = marginal(x_0, self.schedule(t)).sample(eps)
            prediction, noised = denoiser(x_t, t, condition), Noised(x_0, eps, x_t, t, self.schedule)
            bits = bound.losses(prediction, noised) / math.log(2)
            parts.append((self.objective.losses(prediction, noised), bits, t))
        losses, bounds, ts = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(bounds), torch.cat(ts)

    def draw(self, num_steps: int | None = None, kind: str = "ema") -> Tensor:
        """Draw the grid of pictures: DDIM from fixed seeds, every value of every attribute in turn, alone.

        A network that never saw an attribute left out can't be asked for one alone: it is shown training images' own.

        Args:
            num_steps: sampling steps; `train.grid_steps` by default.
            kind: `ema` or `raw`.

        Returns:
            (N, C, H, W) uint8 on the CPU, whatever the depth: it is to be looked at.
        """
        config, net = self.config, self.ema.net if kind == "ema" else self.net
        num = config.train.grid_images
        grid = trailing(num_steps or config.train.grid_steps, self.schedule)
        conditions = self._asked(num) if config.net.conditions else None
        net.eval()
        try:
            parts = generate(
                Clipped(self._denoiser(net)),
                self.data.shape,
                num,
                config.train.seed,
                DDIM(),
                grid,
                batch=min(num, max(64, config.train.batch)),
                conditions=conditions,
                device=self.device,
            )
            return to_bytes(torch.cat([images for _, images in parts]))
        finally:
            net.train(net is self.net)

    def _asked(self, num: int) -> Tensor:
        """Return what the grid's pictures are asked to be, (num, A)."""
        if len(self.data.attributes) > 1 and self.config.train.label_dropout == 0:
            return in_turn(self.data.gather(torch.from_numpy(self.data.train[:num]))[1], num)
        return in_turn(survey(self.data.attributes), num)

    def wait(self) -> None:
        """Return when the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _memory(self) -> dict[str, Tensor]:
        """What is remembered besides weights and moments: the best pass, and losses by t where t follows them."""
        history = self.history
        kept = {} if history is None else {"history/losses": history.losses, "history/seen": history.seen}
        # without what was looked at since the last step: on resuming that is looked at again
        return kept | self._watch_before.state()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state: `raw`, `ema` (state dicts) and `optim`, each by name."""
        return {
            "raw": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "optim": optim.moments(self.optimizer, self.net) | self._memory(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, dict[str, Tensor]], images: int) -> None:
        """Take over a state, copied in place, so that every tensor keeps its memory layout.

        Args:
            state: as `state()` returned it.
            images: the clock.

        Raises:
            UserError: the tensors are not those of this network.
        """
        try:
            for name, net in (("raw", self.net), ("ema", self.ema.net)):
                net.load_state_dict(state[name])
            optim.load_moments(self.optimizer, self.net, state["optim"])
            self.watch = self._watch_before = Watch.from_state(state["optim"])
            if self.history is not None:
                self.history = LossHistory(state["optim"]["history/losses"], state["optim"]["history/seen"])
        except (KeyError, RuntimeError) as error:
            raise UserError(f"the checkpoint is of another network: {' '.join(str(error).split())[:160]}") from None
        self.images = images
