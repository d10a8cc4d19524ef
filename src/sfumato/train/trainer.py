r"""What is learnt and one step of learning it: DDPM's Algorithm 1, with addresses for its random numbers.

Step k covers the positions n = k B .. (k + 1) B - 1 of the training stream. Everything random about position n is a
function of n: which image and whether it is mirrored (the data's affair), and

    t    = sample_timesteps( uniform(seed, TRAIN_TIME, n), T )
    eps  = normal(seed, TRAIN_NOISE, n)
    labels left out by `Condition.dropped` and u = uniform(seed, LABEL_DROPOUT, n)
    how it is altered, and the network told so, follows from uniform(seed, AUGMENT, n) and normal(seed, AUGMENT, n)

The network's first weights and step k's dropout masks come from torch's own generator, seeded for that one purpose
from such an address and put back afterwards. So a learner's whole state is its clock, weights, average and moments:
nothing of a generator has to be saved, and resuming gives the same bits.

Whether a step's loss and gradient are finite is decided on the device, as a number `applied` that is 1 or 0; the
optimiser and the average multiply by it. Python learns of it when it asks, and on a GPU it asks seldom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sfumato.codec.protocol import Codec
from sfumato.conditions.protocol import cycled
from sfumato.config.config import Config
from sfumato.data import Dataset
from sfumato.data.augment import augment, draw
from sfumato.diffusion import (
    Bound,
    NetworkDenoiser,
    Noised,
    Terms,
    marginal,
    sample_timesteps,
    training_loss,
)
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.importance import LossHistory
from sfumato.diffusion.noise import Purpose, normal, uniform, words
from sfumato.errors import UserError
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.model import Model
from sfumato.nets import Network
from sfumato.train import optim
from sfumato.train.ema import EMA
from sfumato.train.watch import Watch

__all__ = ["Learner", "Outcome", "Scores", "seeded"]

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
        self.codec: Codec = config.codec.build(data.format, data.shape)
        with seeded(config.train.seed, Purpose.INITIAL_WEIGHTS, 0, self.device):
            net = config.net.build(config.interface(self.codec.shape[0], data.vocabulary))
        self.net: Network = net.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net.train()
        self.ema = EMA(self.net)
        self.optimizer = optim.build(config.optim, self.net)
        self.objective = config.diffusion.build_objective(self.codec.decoder)
        self.schedule = config.diffusion.build_schedule()
        self.history = LossHistory.empty(self.schedule.num_steps) if config.diffusion.importance else None
        self.watch = self._watch_before = Watch.new()
        self.images = 0

    def _denoiser(self, net: Callable[..., Tensor]) -> NetworkDenoiser:
        return NetworkDenoiser(net, self.schedule, self.config.diffusion.build_parameterization())

    def _model_input(self, x: Tensor) -> Tensor:
        """Values to the model's range, on the device, in the layout that convolutions like."""
        values = x.to(self.device, non_blocking=True)
        return self.codec.encode(values).contiguous(memory_format=torch.channels_last)

    def _dropped(self, condition: Condition | None, positions: Tensor) -> Condition | None:
        """Return what is known of images with some left out, on the device; None for a network without a vocabulary."""
        if condition is None:
            return None
        u = uniform(self.config.train.seed, Purpose.LABEL_DROPOUT, positions, (condition.num_uniforms,))
        return condition.dropped(u, self.config.train.label_dropout).to(self.device)

    def _altered(self, x_0: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return training images altered by their random numbers, and those numbers; None where nothing is altered.

        Dropping labels leaves them as they are, and held-out images are never altered.
        """
        if not self.config.augment.on:
            return x_0, None
        numbers = draw(self.config.augment, self.config.train.seed, positions)
        return augment(x_0, numbers), numbers.to(self.device)

    def _times(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn uniform numbers into times, with the weights that keep the loss unbiased where t is not uniform."""
        if self.history is None:
            return sample_timesteps(u, self.schedule.num_steps), None
        return self.history.draw(u)

    def _dropout(self, step: int) -> AbstractContextManager[None]:
        """Seed torch's generator for a step's dropout masks, where there are any."""
        if not getattr(self.config.net, "dropout", 1):
            return nullcontext()
        return seeded(self.config.train.seed, Purpose.DROPOUT, step, self.device)

    def step(self) -> Outcome:
        """Take one step: the positions that follow the clock, one gradient, the optimiser, then the average."""
        train, seed, start = self.config.train, self.config.train.seed, self.images
        positions = torch.arange(start, start + train.batch)
        batch = self.data.batch(positions, seed)
        condition = self._dropped(batch.condition, positions)
        x_0, altered = self._altered(self._model_input(batch.x), positions)
        net = self.net if altered is None else partial(self.net, augment=altered)
        t, weights = self._times(uniform(seed, Purpose.TRAIN_TIME, positions))
        eps = normal(seed, Purpose.TRAIN_NOISE, positions.to(self.device), tuple(x_0.shape[1:]))
        with self._dropout(start // train.batch):
            terms = training_loss(self.objective, self._denoiser(net), x_0, t.to(self.device), eps, condition)
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
        bound = Bound(self.config.diffusion.build_variance(), self.codec.decoder)
        for place in torch.split(torch.arange(num), self.config.train.batch):
            values, known = self.data.rows(index[place])
            x_0 = self._model_input(values)
            u = (place + uniform(HELD_OUT_SEED, Purpose.HELD_OUT_TIME, place)) / num
            t = sample_timesteps(u, self.schedule.num_steps).to(self.device)
            eps = normal(HELD_OUT_SEED, Purpose.HELD_OUT_NOISE, place.to(self.device), tuple(x_0.shape[1:]))
            condition = None if known is None else known.to(self.device)
            x_t = marginal(x_0, self.schedule(t)).sample(eps)
            prediction, noised = denoiser(x_t, t, condition), Noised(x_0, eps, x_t, t, self.schedule)
            bits = bound.losses(prediction, noised) / math.log(2)
            parts.append((self.objective.losses(prediction, noised), bits, t))
        losses, bounds, ts = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(bounds), torch.cat(ts)

    def model(self, kind: str = "ema") -> Model:
        """Return the average (`ema`) or the trained weights (`raw`) as a model to sample from."""
        net = self.ema.net if kind == "ema" else self.net
        return Model(net, self.config, self._denoiser(net), self.codec, self.data.vocabulary, self.images, kind)

    def draw(self, num_steps: int | None = None, kind: str = "ema") -> Tensor:
        """Sample a grid of images from fixed seeds by the default recipe, each thing that can be asked for in turn.

        Args:
            num_steps: sampling steps; `train.grid_steps` by default.
            kind: `ema` or `raw`.

        Returns:
            (N, C, H, W) uint8 on the CPU, to be looked at.
        """
        config, model = self.config.train, self.model(kind)
        steps = num_steps or config.grid_steps
        condition = self._asked(config.grid_images)
        model.net.eval()
        try:
            recipe = Recipe(steps=None if steps is None else min(steps, self.schedule.num_steps))
            batch = min(config.grid_images, max(64, config.batch))
            parts = prepare(model, recipe, condition).stream(
                config.grid_images, config.seed, condition=condition, batch=batch
            )
            return self.codec.shown(torch.cat([images for _, images in parts]))
        finally:
            model.net.train(model.net is self.net)

    def _asked(self, num: int) -> Condition | None:
        """Return what a grid's images are asked to be.

        A network that never saw an attribute left out can't be asked for one alone: it is shown training images' own.
        """
        if self.data.vocabulary is None:
            return None
        if len(self.data.attributes) != 1 and self.config.train.label_dropout == 0:
            return self.data.rows(torch.from_numpy(self.data.train[:num]))[1]
        return cycled(self.data.vocabulary.every(), num)

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
