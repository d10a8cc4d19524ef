r"""The state of a training and one step: DDPM's Algorithm 1 with random keys.

Step k covers the positions n = k B .. (k + 1) B - 1 of the training stream. Everything random about position n is a
function of n: the image, whether it is mirrored (see `data`), and

    t    = timesteps.draw( uniform(seed, TRAIN_TIME, n), schedule )
    eps  = normal(seed, TRAIN_NOISE, n)
    which labels are dropped    from uniform(seed, LABEL_DROPOUT, n)
    how the image is altered    from uniform(seed, AUGMENT, n) and normal(seed, AUGMENT, n)

The initial weights and the dropout masks of step k come from torch's generator, seeded for that one purpose and
restored afterwards. So the whole state is the images seen, weights, average and moments, and resuming gives the same
bits.

Whether a step's loss and gradient are finite is decided on the device: the optimiser and the average multiply by a
number `applied`, 1 or 0. Python reads it only when a report is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sfumato.codec.protocol import Codec
from sfumato.config.config import Config, from_stored, to_dict
from sfumato.data import Dataset
from sfumato.data.augment import augment, draw
from sfumato.diffusion import Importance, NetworkDenoiser, Terms, training_loss
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.level import exact_device
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.objective import LossHistory, learns_from_pure_noise
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.generate.shared import stream
from sfumato.model import Model
from sfumato.nets import Network
from sfumato.nets.replay import Replayed, sent
from sfumato.ranks import World, together
from sfumato.train.ema import EMA
from sfumato.train.examples import Computed, Examples, Rates, conditions_of_grid
from sfumato.train.lineage import Taken, take_over
from sfumato.train.metrics import StepMetrics
from sfumato.train.optim import Optimizer, learning_rate
from sfumato.train.parallel import Shares, recompute, seeded, spread
from sfumato.train.powers import PowerAverages
from sfumato.train.precision import LossScale, resolve_precision, slow_here
from sfumato.train.shards import Shards, check_shards
from sfumato.train.state import matched, most_that_fit
from sfumato.train.validation import Best, HeldOutLosses, held_out_losses


class Trainer:
    """The state of a training and its one step.

    Args:
        config: what to train; its length must be planned (`config.train.images`).
        data: the images.
        device: where to train.
        world: the ranks that train together; on each of them a trainer is made.

    Attributes:
        net: the network.
        ema: the average of its weights.
        images: images seen; `step()` adds a batch.
        best: the lowest held-out loss so far.
        replayed: a step as one graph; None where steps are launched kernel by kernel.
    """

    def __init__(
        self, config: Config, data: Dataset, device: torch.device | str = "cpu", world: World = World()
    ) -> None:
        assert config.train.images is not None, "the length is planned before a trainer is made"
        self.config, self.data, self.device, self.world = config, data, torch.device(device), world
        self.shares = Shares(world, config.train.batch, config.train.micro)
        if config.train.shard:
            check_shards(config.train.batch, world, config.train.compile, config.optim.name)
        self.precision = resolve_precision(config.train.precision, self.device)
        with world.ordered("trainer", config=to_dict(config), fingerprint=data.fingerprint):
            world.assemble()
            self._build()

    def _build(self) -> None:
        """Build the network and everything that learns with it."""
        config, data = self.config, self.data
        assert config.train.images is not None
        self.planned, self.phase = config.train.images, 0  # the end, and the start that the rate is counted from
        self.codec: Codec = config.codec.build(data.format, data.shape)
        self.net = self._new_network().train()
        self.world.broadcast(self.net.parameters())
        shards = self.shards = Shards(self.net, self.world, config.train.shard)
        self.ema = EMA(self.net, shards)
        self.scale = LossScale(self.precision, self.device)
        recompute(self.net, config.train.recompute)
        self.parallel = self.net if shards.on else spread(self.net, self.world, self.device, config.train.compile)
        self.optimizer = Optimizer(config.optim, self.net, self.world, shards)
        self.powers = PowerAverages(self.net, shards=shards) if config.ema.snapshots else None
        self.objective = config.diffusion.build_objective(self.codec.decoder)
        self.schedule = config.diffusion.build_schedule()
        by_history = isinstance(config.diffusion.timesteps, Importance)
        self.history = LossHistory.empty(self.schedule.num_steps) if by_history else None
        self.best = self._best_at_step = Best()
        self.images = 0
        self._given: Mapping[str, Mapping[str, Tensor]] = {}
        if self.device.type != "cpu" and config.train.micro is None and not shards.on:
            self.fit_memory()
        self.replayed = self._replay()

    def _new_network(self) -> Network:
        """Return a network with initial weights, on the device."""
        config = self.config
        with seeded(config.train.seed, Purpose.INITIAL_WEIGHTS, 0, self.device):
            net = config.net.build(config.interface(self.codec.shape[0], self.data.vocabulary))
        # rows of a weight must be contiguous
        divided = config.train.shard and not self.world.alone
        layout = torch.contiguous_format if divided else torch.channels_last
        return net.to(device=self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def fit_memory(self) -> None:
        """Halve the images computed at once until the gradient of so many fits into the device's memory.

        Each rank chooses for itself; nothing else depends on it but the rounding of sums.
        """

        def gradient(images: int) -> None:
            positions, t = torch.arange(images), torch.full((images,), 0.5, dtype=torch.float64)
            try:
                with self._dropout(), self.shares.alone(self.parallel):
                    self._losses(self._examples(positions, t).to(self.device)).sum().backward()  # type: ignore[no-untyped-call]
            finally:
                for weight in self.net.parameters():
                    weight.grad = None

        self.shares.micro = most_that_fit(self.shares.micro, gradient, self.device)

    def begin_with(self, donor: Model) -> Taken:
        """Take over what fits of another model's weights, and return what did."""
        net = self.network("raw")
        taken = take_over(net, self.data.vocabulary, donor)
        self.load({**self.state(), "raw": net.state_dict(), "ema": net.state_dict()}, 0)
        return taken

    @together
    def adopt(self, table: Mapping[str, Any]) -> None:
        """Go on with another configuration (`config.may_change`), as JSON has it."""
        self.config = from_stored(table)
        self.optimizer.adopt(self.config.optim)
        self.objective = self.config.diffusion.build_objective(self.codec.decoder)
        self.replayed = self._replay()

    def denoiser(self, net: Callable[..., Tensor]) -> NetworkDenoiser:
        """Return a network as a denoiser."""
        return NetworkDenoiser(net, self.schedule, self.config.diffusion.build_parameterization())

    @together
    def network(self, kind: str = "ema") -> Network:
        """Return the network with the average (`ema`) or the trained weights (`raw`), whole: a copy, where it is
        divided over the ranks."""
        if not self.shards.on:
            return self.net if kind == "raw" or self.ema.net is None else self.ema.net
        net = self._new_network().eval()
        net.load_state_dict(self.shards.gathered(self._parts()[kind]))
        return net

    def model(self, kind: str = "ema") -> Model:
        """Return the average (`ema`) or the trained weights (`raw`) as a model to sample from."""
        net = self.network(kind)
        return Model(net, self.config, self.denoiser(net), self.codec, self.data.vocabulary, self.images, kind)

    def encode(self, values: Tensor) -> Tensor:
        """Return stored values as x_0, on the device, in the memory layout that convolutions prefer."""
        values = sent(values, self.device)
        return self.codec.encode(values).contiguous(memory_format=torch.channels_last)

    def step(self) -> StepMetrics:
        """Take one step: the positions after the images seen, one gradient, the optimiser, then the average."""
        with self.world.ordered("step_at", images=self.images, planned=self.planned, phase=self.phase):
            return self._step()

    def step_at(self, images: int, planned: int, phase: int) -> None:
        """Take the step that rank 0 takes, which may have another number of images planned by now."""
        assert images == self.images, "the ranks are at different steps"
        self.planned, self.phase = planned, phase
        self._step()

    def _step(self) -> StepMetrics:
        train, start = self.config.train, self.images
        positions = torch.arange(start, start + train.batch)
        t, weights = self._sample_timesteps(uniform(train.seed, Purpose.TRAIN_TIME, positions))
        lr = learning_rate(self.config.optim, start, train.batch, self.planned, self.phase)
        examples = self._examples(positions[self.shares.here], t[self.shares.here])
        rates = self._rates(lr, start)
        with self._dropout():
            if self.replayed is not None:
                done = self.replayed(examples, weights, rates)
            else:
                weights = None if weights is None else sent(weights, exact_device(self.device))
                rates = sent(rates, self.device) if isinstance(rates, Tensor) else rates
                done = self._compute(examples.to(self.device), weights, rates)
        if self.history is not None:
            self.history = self.history.update(Terms(done.losses, t))
        self.images += train.batch
        self._best_at_step = self.best
        terms = Terms(done.weighted, sent(t, exact_device(self.device)))
        return StepMetrics(terms, done.norm, done.applied, lr, done.norms, done.forgiven)

    def _rates(self, lr: float, start: int) -> Rates:
        """Return the numbers of the step after so many images; where graphs are, a tensor, whatever launches it."""
        average = 1 - self.config.ema.decay(start, self.config.train.batch, self.planned)
        powers = [] if self.powers is None else self.powers.rates(start // self.config.train.batch + 1)
        rates = [lr, average, *powers]
        return torch.tensor(rates) if self.device.type == "cuda" and not self.optimizer.counts else rates

    def _examples(self, positions: Tensor, t: Tensor) -> Examples:
        """Return the examples at some positions of the training stream, for their times."""
        seed, augmentation = self.config.train.seed, self.config.augment
        batch = self.data.batch(positions, seed)
        altered = draw(augmentation, seed, positions) if augmentation.on else None
        return Examples(batch.x, self.dropped(batch.condition, positions), positions, t, altered)

    def _compute(self, examples: Examples, weights: Tensor | None, rates: Rates) -> Computed:
        """Take the step of examples that are on the device, and read nothing back."""
        shares, losses = self.shares, list[Tensor]()
        for part in shares.parts():
            again = self._dropout() if losses else nullcontext()  # every part draws the masks of the whole batch
            with again, shares.computing(part, self.parallel):
                first = shares.here.start
                loss = self._losses(examples.rows(slice(part.start - first, part.stop - first)))
                weighted = loss if weights is None else loss * weights[part].to(loss)
                self.scale.scaled(weighted.sum() * shares.scale).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        loss = self.world.gather(torch.cat(losses), shares.here, self.config.train.batch)
        return self._apply(loss, loss if weights is None else loss * weights.to(loss), rates)

    def _losses(self, examples: Examples) -> Tensor:
        """Return the loss of each example."""
        x_0, net = self.encode(examples.x), self.precision.network(self.parallel, self.device)
        if examples.altered is not None:
            x_0, net = augment(x_0, examples.altered), partial(net, augment=examples.altered.to(self.device))
        eps = normal(self.config.train.seed, Purpose.TRAIN_NOISE, examples.positions, tuple(x_0.shape[1:]))
        denoiser = self.denoiser(net)
        return training_loss(self.objective, denoiser, x_0, examples.t, eps.to(self.device), examples.condition).loss

    def warnings(self) -> Iterator[str]:
        """Yield what a user should know about the objective and the device before training."""
        if slow := slow_here(self.precision, self.device):
            yield slow
        if self.shares.micro < self.shares.here.stop and self.config.train.micro is None:
            yield f"{self.shares.micro} images at once fit into memory: each step is computed in parts of so many"
        space = self.config.diffusion.build_parameterization()
        if not learns_from_pure_noise(self.objective, space, self.schedule):
            yield (
                "the loss has no gradient at t = 1: the chain ends in pure noise, where the error of eps is 0; leave "
                "out diffusion.weighting and diffusion.loss_space, or take a chain that does not end in pure noise"
            )

    def dropped(self, condition: Condition | None, positions: Tensor) -> Condition | None:
        """Return the conditions of positions with some left out."""
        if condition is None:
            return None
        u = uniform(self.config.train.seed, Purpose.LABEL_DROPOUT, positions, (condition.num_uniforms,))
        return condition.dropped(u, self.config.train.label_dropout)

    def _sample_timesteps(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn uniform numbers into times, with the weights that keep the loss unbiased where t is not uniform."""
        if self.history is not None:
            return self.history.draw(u)
        diffusion, num_steps = self.config.diffusion, self.schedule.num_steps
        t = diffusion.timesteps.draw(u, self.schedule)
        if diffusion.objective == "simple":  # the distribution of t is its weighting
            return t, None
        return t, 1 / (num_steps * diffusion.timesteps.probabilities(self.schedule)[(t * num_steps).round().long() - 1])

    def _dropout(self) -> AbstractContextManager[None]:
        """Seed torch's generator for a step's dropout masks, where there are any."""
        if not self._drops:
            return nullcontext()
        return seeded(self.config.train.seed, Purpose.DROPOUT, self.images // self.config.train.batch, self.device)

    @property
    def _drops(self) -> bool:
        return bool(getattr(self.config.net, "dropout", 1))

    def _replay(self) -> Replayed | None:
        """Return a step as one graph, where the device has graphs and everything of a step can be in one."""
        train, in_parts = self.config.train, len(list(self.shares.parts())) > 1
        not_recordable = train.recompute or self.config.augment.on or (in_parts and self._drops)
        not_recordable = not_recordable or self.optimizer.counts
        if self.device.type != "cuda" or not train.graph or not self.world.alone or not_recordable:
            return None
        return Replayed(self._compute, self.device)

    def _apply(self, losses: Tensor, weighted: Tensor, rates: Rates) -> Computed:
        """Update the weights by the gradient, then the averages by the weights."""
        lr, average, *powers = rates
        loss = weighted.mean()
        self.shards.collect()
        self.scale.unscale(weight.grad for weight in self.shards.weights.values())
        norm = self.optimizer.clip()
        applied = (loss.isfinite() & norm.isfinite()).float()
        forgiven = self.scale.update(norm.isfinite().float()) * loss.isfinite()
        self.optimizer.step(lr, applied)
        self.ema.update(average, applied)
        if self.powers is not None:
            self.powers.update(powers, applied)
        return Computed(losses, weighted, norm, applied, forgiven, self.optimizer.norms)

    @together
    def held_out(self) -> HeldOutLosses | None:
        """Return the losses of the average on the held-out set; None where no image is held out."""
        return held_out_losses(self.model(), self.data, self.world)

    @property
    def grid_steps(self) -> int:
        """Sampling steps of a grid: `train.grid_steps`, or else the default recipe's."""
        steps = Recipe(steps=self.config.train.grid_steps).resolve(self.model()).steps
        assert steps is not None
        return steps

    @together
    def sample_grid(self, num_steps: int | None = None, kind: str = "ema") -> Tensor:
        """Sample a grid of images by the default recipe, from the same seed every time.

        Args:
            num_steps: sampling steps; `grid_steps` by default.
            kind: weights: `ema` or `raw`.

        Returns:
            (N, C, H, W) uint8 on the CPU, to look at.
        """
        config, model = self.config.train, self.model(kind)
        condition, num = self.grid_condition(), config.grid_images
        model.net.eval()
        try:
            sampling = prepare(model, Recipe(steps=num_steps or config.grid_steps), condition)
            batch = min(num, max(64, config.batch))
            parts = stream(sampling, num, config.seed, world=self.world, condition=condition, batch=batch)
            return torch.cat([self.codec.shown(images) for _, images in parts])
        finally:
            model.net.train(model.net is self.net)

    def grid_condition(self) -> Condition | None:
        """Return the conditions of a grid's images."""
        return conditions_of_grid(self.data, self.config.train)

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    @together
    def share_state(self) -> None:
        """Give every rank the state of rank 0."""
        numbers = torch.tensor([self.images])
        self.world.broadcast([numbers])
        self.images = int(numbers)
        for kind, named in self._parts().items():
            for name, tensor in named.items():
                if not name.startswith("watch/"):
                    self.shards.receive(name, tensor, self._given.get(kind, {}).get(name))
        self._given = {}

    @together
    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state: `raw`, `ema` (state dicts) and `optim`, each by name."""
        return {kind: self.shards.gathered(named) for kind, named in self._parts().items()}

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        """The state; of what is divided over the ranks the rows here."""
        history = self.history
        losses = {} if history is None else {"history/losses": history.losses, "history/seen": history.seen}
        powers = {} if self.powers is None else self.powers.state()
        return {
            "raw": {**self.net.state_dict(), **self.shards.weights} if self.shards.on else self.net.state_dict(),
            "ema": self.ema.state(),
            # the best as of the last step: a held-out loss taken after it is taken again on resuming
            "optim": self.optimizer.state() | self.scale.state() | losses | powers | self._best_at_step.state(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, dict[str, Tensor]], images: int) -> None:
        """Copy a state, as `state()` returned it, in place, so that every tensor keeps its memory layout; raises
        `UserError` where the tensors are of another network."""
        self._given = matched(self._parts(), state, self.shards)
        if self.history is not None:
            self.history = LossHistory(state["optim"]["history/losses"], state["optim"]["history/seen"])
        self.scale.load(state["optim"])
        self.best = self._best_at_step = Best.from_state(state["optim"])
        self.images = images
        self.share_state()
