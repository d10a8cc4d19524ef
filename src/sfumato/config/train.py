"""How a network is trained: length and batches, the optimiser, the average of the weights.

Training is measured in images seen. A length below 1 is a fraction of the planned length, so one configuration fits two
minutes and a week. An unknown name or a value out of its range raises ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.config.units import parse_milestones
from sfumato.errors import UserError, nearest

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
STOPS = ("planned", "overfit")
OPTIMIZERS = ("adam", "adamw", "adamw8bit", "muon")
DECAYS = ("constant", "cosine", "linear", "late")
_LEAST = {
    1: ("batch", "micro", "images", "grid_images", "grid_steps"),
    0: ("seed", "least_images", "grids", "held_outs", "held_out_images", "save_every"),
}


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, in what batches, and how often to sample, validate and save.

    Attributes:
        batch: images a step.
        micro: images computed at once on each device, less memory for the same result up to rounding: a step's gradient
            is the sum over its parts. None takes as many as fit.
        precision: `fp32`, `tf32`, `bf16`, `fp16`; `auto` takes what the device has (`train.precision`).
        recompute: compute the activations of the network's blocks again for the gradient in place of keeping them
            (gradient checkpointing): a third more time, and several times less memory.
        compile: compile the network by torch.compile: the first steps take minutes, the others less time.
        graph: launch all of a step's work on an NVIDIA GPU at once, as a CUDA graph (`nets.replay`): much faster for
            small networks, with the same bits.
        shard: divide weights, gradients, moments and average over the processes, for networks that fill a device
            (`train.shards`); the result is the same up to rounding.
        images: planned length in images; None lets `budget` decide.
        stop: `planned` ends at the planned length; `overfit` also where the held-out loss has turned (`Best.update`).
        budget: seconds that the whole run may take; the length is planned from the measured speed, and corrected
            while the learning rate does not depend on it yet (`train.budget`).
        least_images: a budget in which fewer images would be seen is stretched to see them, to at most three times.
        seed: of everything random: weights, order, flips, times, noise, dropout, sample grids.
        label_dropout: probability that an example's condition is left out (`Condition.dropped`).
        grids: number of sample grids during training, at geometrically spaced steps, the last at the end.
        grid_images: images in a grid.
        grid_steps: sampling steps of a grid; None takes the default recipe's.
        raw_grids: sample a grid from the raw weights too, not only from the average.
        held_outs: how often the validation loss is computed, evenly spaced, and once more before the first step.
        held_out_images: at most this many held-out images are used for it.
        save_every: seconds between checkpoints; saving never takes more than a twentieth of the time. 0 saves after
            every step.
        log: other tools that get the events too (`run.sinks`): tensorboard, wandb, mlflow, trackio.
        keep: checkpoints that are kept besides the newest two, by the images seen: `every 100k`, or `50k,200k,1M`.
    """

    batch: int = 64
    micro: int | None = None
    precision: str = "auto"
    recompute: bool = False
    compile: bool = False
    graph: bool = True
    shard: bool = False
    images: int | None = None
    stop: str = "planned"
    budget: float | None = None
    least_images: int = 0
    seed: int = 0
    label_dropout: float = 0.1
    grids: int = 6
    grid_images: int = 64
    grid_steps: int | None = None
    raw_grids: bool = False
    held_outs: int = 10
    held_out_images: int = 256
    save_every: float = 30.0
    keep: str = ""
    log: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for least, name in ((least, name) for least, names in _LEAST.items() for name in names):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} = {value}: must be at least {least}")
        if self.budget is not None and self.budget <= 0:
            raise ValueError(f"budget = {self.budget}: must be above 0 seconds")
        for name, register in (("precision", PRECISIONS), ("stop", STOPS)):
            value = getattr(self, name)
            if value not in register:
                raise ValueError(f'{name} = "{value}" is unknown{nearest(value, register)}')
        if self.seed >= 2**64:
            raise ValueError(f"seed = {self.seed}: must be below 2^64")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout = {self.label_dropout}: must lie in [0, 1]")
        try:
            parse_milestones(self.keep)
        except UserError:
            raise ValueError(f'keep = "{self.keep}": write every 100k, or 50k,200k,1M') from None

    def is_kept(self, images: int) -> bool:
        """Whether the step that ends at so many images reaches a number of images whose checkpoint is kept."""
        interval, numbers = parse_milestones(self.keep)
        before = images - self.batch
        if interval is not None:
            return images // interval > before // interval
        return any(before < number <= images for number in numbers)

    def num_kept(self, images: int) -> int:
        """Return how many checkpoints a training of so many images keeps besides the newest two."""
        interval, numbers = parse_milestones(self.keep)
        return images // interval if interval is not None else sum(number <= images for number in numbers)

    @property
    def steps(self) -> int:
        """Steps of the planned length, the last batch full: ceil(images / batch)."""
        assert self.images is not None, "the length is planned before training starts"
        return -(-self.images // self.batch)


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser.

    Attributes:
        name: `adamw` (decoupled weight decay, Loshchilov and Hutter 2019), `adam` (Kingma and Ba 2015), `adamw8bit`
            (adamw with moments of 8 bits, `train.eight`), or `muon` (Jordan et al. 2024) for the inner matrices and
            adamw for the rest.
        lr: the rate after warm-up, before decay.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: as the optimiser defines it.
        warmup: images over which the rate rises from 0; a value below 1 is a fraction of the planned length.
        decay: `constant`, or down to 0 at the planned length: `cosine`, `linear`, or `late`, over the last 30 %.
        clip: greatest norm of the whole gradient; None does not clip.
    """

    name: str = "adamw"
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: float = 0.05
    decay: str = "cosine"
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        for name, register in (("name", OPTIMIZERS), ("decay", DECAYS)):
            value = getattr(self, name)
            if value not in register:
                raise ValueError(f'{name} = "{value}" is unknown{nearest(value, register)}')
        for name in ("lr", "eps", "clip"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} = {value}: must be above 0")
        for name in ("weight_decay", "warmup"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must not be negative")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must lie in [0, 1)")


@dataclass(frozen=True)
class EMAConfig:
    """The averages of the weights.

    Attributes:
        half_life: in images; a value below 1 is a fraction of the planned length.
        ramp: the half-life is at most this fraction of the images seen so far; None has no ramp.
        snapshots: two more averages are tracked, and at most so many snapshots of them kept, from which `sfumato ema`
            computes an average of any length after training (`train.powers`); 0 tracks none.
    """

    half_life: float = 0.02
    ramp: float | None = 0.05
    snapshots: int = 0

    def __post_init__(self) -> None:
        if self.half_life <= 0:
            raise ValueError(f"half_life = {self.half_life}: must be above 0 images")
        if self.ramp is not None and self.ramp <= 0:
            raise ValueError(f"ramp = {self.ramp}: must be above 0, or none")
        if self.snapshots < 0 or 0 < self.snapshots < 4:
            raise ValueError(f"snapshots = {self.snapshots}: must be 0, or at least 4")

    def decay(self, images: int, batch: int, planned: int) -> float:
        """Return d_k for the step of B = `batch` images that starts when n_k = `images` have been seen, of `planned` in
        all."""
        half_life = in_images(self.half_life, planned)
        if self.ramp is not None:
            half_life = min(half_life, self.ramp * images)
        return float(0.5 ** (batch / half_life)) if half_life > 0 else 0.0


def in_images(length: float, planned: int) -> float:
    """Return a length in images: itself, or, where it is below 1, that fraction of the planned length."""
    return length * planned if length < 1 else length
