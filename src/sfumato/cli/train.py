"""`sfumato train`: from images to a run folder."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from sfumato.cli import signals
from sfumato.cli.console import optional_stdout, pick_device, print_json, progress, say
from sfumato.cli.ending import ending
from sfumato.cli.launch import begun, in_processes, pick_processes, unused_gpus
from sfumato.cli.options import Flag, Json, option
from sfumato.cli.training import TrainingOptions, length, with_source
from sfumato.errors import UserError, command, plural
from sfumato.ranks import World
from sfumato.report.text import count, facts, size

if TYPE_CHECKING:
    import torch

    from sfumato.config.config import Config
    from sfumato.data import Dataset
    from sfumato.run.folder import Run
    from sfumato.train.extend import More


@dataclass(frozen=True)
class Train(TrainingOptions):
    """Train a model on a folder of images or a built-in data set.

    Ctrl-C saves and stops; the same command, or `sfumato train RUN`, resumes, with the result of a training that was
    never interrupted. A run goes on after its end where more is asked for: `train RUN --images +500k`. Any value of the
    configuration can be set by its dotted name, such as --net.base 64; --dry-run prints them all, as a
    file that --config reads.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato train faces --budget 5m",
        "sfumato train ~/photos --images 2M --data.size 64,64 --net.base 96",
        "sfumato train ~/photos --preset celeba64-ddpm --run runs/celeba --dry-run",
        "sfumato train runs/faces --images +500k",
        "sfumato train ~/cats --init runs/photos --run runs/cats --budget 1h",
    )

    data: Annotated[str | None, Positional, option("DATA|RUN")] = None
    """a built-in name (see `sfumato data`), a folder of images, or a run to go on with"""
    from_: Annotated[str | None, arg(name="from", metavar="RUN@IMAGES", help_behavior_hint="")] = None
    """make a branch in --run: go on with the whole state of another run at a checkpoint, such as runs/faces@200k"""
    processes: Annotated[str | None, option("auto|N")] = None
    """train in several processes on this machine, with the result of one; auto starts one for each GPU"""
    accept_changes: Flag = False
    """resume although the images, or the version of torch or sfumato, have changed"""
    dry_run: Flag = False
    """print the configuration, the cost and the plan, and train nothing"""
    json: Json = False
    """print one JSON object a line instead of text"""

    def perform(self) -> int:
        """Train, and return 0 when the planned length is reached."""
        with signals.saying("stopped before training began; nothing was saved"):
            return self._train(begun())

    def _train(self, began: float) -> int:
        """Train, with a budget that began at `began`, in as many processes as were asked for or have been started."""
        device = pick_device(self.device)
        if self.dry_run:
            place, _ = pick_processes(self.processes, device)
            return 0 if place and place.rank else self._perform(device, began, World())
        return in_processes(
            self.processes, device, lambda device, world: self._perform(device, began, world), follow_training
        )

    def _perform(self, device: torch.device, began: float, world: World) -> int:
        """Train on rank 0, or in one process alone."""
        from sfumato.nets import keep_memory
        from sfumato.train.extend import More

        if device.type == "cpu":
            keep_memory()
        more = More.parse(self.images, self.budget)
        config, run, data, reason = self._chosen(device, more, world)
        more = more if run.exists() or (more and more.added) else None
        if self.dry_run:
            return _dry_run(config, run, data, device, reason, self.json, more)
        if not self.json:
            with optional_stdout():
                say(_heading(config, run, data, reason, device, world.size))
        elif data.skipped:
            say(f"{plural(len(data.skipped), 'file')} skipped; {command('data', self.data)} lists them", error=True)
        train_in_view(config, run, data, device, self.accept_changes, self.json, began, world, more, self.init)
        if not self.json:
            with optional_stdout():
                say(ending(run, data))
        return 0

    def _chosen(self, device: torch.device, more: More | None, world: World) -> tuple[Config, Run, Dataset, str]:
        """Return the configuration, the run folder, the images, and why this configuration.

        A run that was begun keeps its values, but for those that are given here.
        """
        from sfumato.run.folder import Run
        from sfumato.run.locate import locate
        from sfumato.run.places import spelled_as_begun
        from sfumato.train.choose import as_begun, choose, default_run, resume
        from sfumato.train.extend import with_length_of
        from sfumato.train.plan import check_source

        values, reading = self.given(), progress("reading images")
        if self.from_ is not None:
            return self._branch(values, device, world)
        if self.data is None:
            raise UserError(f"train needs DATA, for example: {self.EXAMPLES[0]}")
        if self.init is not None:
            locate(self.init)
        itself = Run(Path(self.data))
        run = itself if itself.exists() else Run(self.run or default_run(str(Path(self.data).expanduser().absolute())))
        if itself.exists() and self.run is not None:
            raise UserError(
                f"{self.data} is a run, not images: leave --run out to go on with it, or branch from it "
                f"(--from {self.data} --run {self.run})"
            )
        if itself.exists() and (self.preset or self.config):
            raise UserError(f"{self.data} is a run, which has its configuration: leave --preset and --config out")
        if run.exists() and self.preset is None and self.config is None:
            source = {} if itself.exists() else {"data.source": self.data}
            config, data, reason = resume(run, source | values, reading, world)
            return config, run, data, reason
        if run.exists():
            begun = run.config()
            check_source(replace(begun, data=spelled_as_begun(replace(begun.data, source=self.data), run)), run)
        else:
            run.check_path(str(Path(self.data).expanduser().absolute()))
        values = {"data.source": self.data} | values | length(more)
        config, data, reason = choose(self.preset, self.config, values, device, reading, self.init, world)
        run = Run(self.run or default_run(data.source_name))
        if self.config is None:
            config, data = as_begun(config, data, run, values)
        if run.exists():  # another length is `more`
            config = with_length_of(config, run.config())
        return config, run, data, reason

    def _branch(self, values: dict[str, str], device: torch.device, world: World) -> tuple[Config, Run, Dataset, str]:
        """Make the branch, unless it is there, and return what `_chosen` returns."""
        from sfumato.run.folder import Run
        from sfumato.train.choose import resume
        from sfumato.train.lineage import branch

        assert self.from_ is not None
        if self.run is None or self.init or self.preset or self.config or self.dry_run:
            raise UserError(
                f"--from needs --run, the folder of the branch, and takes the rest from {self.from_}: leave --init, "
                "--preset, --config and --dry-run out"
            )
        run = Run(self.run)
        branch(self.from_, run, str(device))
        source = {} if self.data is None else {"data.source": self.data}
        config, data, _ = resume(run, source | values, progress("reading images"), world)
        return config, run, data, f"as {self.from_}, of which this is a branch"


def follow_training(device: torch.device, world: World) -> int:
    """Follow rank 0 to the end, and return the exit code."""
    from sfumato.nets import keep_memory
    from sfumato.train.follow import follow

    if device.type == "cpu":
        keep_memory()
    return follow(world, device)


def train_in_view(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device,
    accept_changes: bool = False,
    as_json: bool = False,
    began: float | None = None,
    world: World = World(),
    more: More | None = None,
    init: str | None = None,
) -> None:
    """Train with a live view or JSON; on a signal finish the step, save, and raise `signals.Stop`."""
    from sfumato.cli.live import viewing
    from sfumato.run.events import Initialised, Saved, Skipped, Stepped
    from sfumato.train import train

    events = train(
        config, run, data, device, accept_changes=accept_changes, began=began, world=world, more=more, init=init
    )
    title, again = command("train", config.data.source), "the same command resumes"
    last = f"stopped; {run.path} is at its last checkpoint; {again}"
    with signals.deferring() as stop, closing(events), viewing(run, title, as_json) as view:
        skipping = False
        if run.list_checkpoints():
            stop.message = last
        for event in events:
            stop.holding = True
            if isinstance(event, Stepped | Skipped):  # while steps are skipped, nothing is saved
                skipping = isinstance(event, Skipped) and event.in_a_row > 0
            if isinstance(event, Saved | Initialised):
                stop.message = last
            elif isinstance(event, Stepped) and stop.message == signals.STOPPED:
                stop.message = "stopped before the first checkpoint; the same command begins again"
            view(event)
            if stop.signal is not None:
                stop.finish()
                if event.images and not skipping:
                    stop.message = f"stopped at {event.images:,} images, saved in {run.path}; {again}"
                break


def _heading(config: Config, run: Run, data: Dataset, reason: str, device: torch.device, processes: int) -> str:
    """The network, the data and the device, before training starts."""
    from sfumato.cli.info import padding
    from sfumato.model import cost_of

    cost, inside = cost_of(config, data), padding(config, config.codec.build(data.format, data.shape).shape)
    network = f"{count(cost.parameters)} parameters, {count(cost.flops)}FLOP an image forward"
    return facts(
        [
            ("data", data.summary(names=0 if run.exists() else 8)),
            ("preset", reason),
            ("network", f"{network}{inside and ', ' + inside}"),
            (
                "device",
                str(device) + unused_gpus(device) if processes == 1 else f"{device.type}, {processes} processes",
            ),
            ("run", str(run.path)),
        ]
    )


def _dry_run(
    config: Config, run: Run, data: Dataset, device: torch.device, reason: str, as_json: bool, more: More | None
) -> int:
    """Print the configuration, the cost and the plan."""
    from sfumato.config.config import to_dict, to_toml
    from sfumato.evaluate.need import worth
    from sfumato.train.forecast import forecast
    from sfumato.train.plan import resolve_course

    run.check_path(data.source_name)
    config, course = resolve_course(config, run, data, device, more=more)
    plan = course.last
    cost = forecast(config, data, run.path, device, seconds=0)
    if as_json:
        report: dict[str, Any] = {"run": str(run.path), "shape": data.shape, "plan": vars(plan)}
        report |= {name: getattr(cost, name) for name in ("parameters", "flops", "state_bytes", "train_images")}
        print_json(report | {"config": to_dict(config)})
        return 0
    speed = f", planned from {plan.images_per_second:,.0f} images/s" if plan.images_per_second else ""
    step = f"{count(3 * cost.flops * plan.batch)}FLOP a training step"
    about = [
        ("data", data.summary()),
        ("parameters", f"{cost.parameters:,}"),
        ("cost", f"{count(cost.flops)}FLOP an image forward, {step}"),
        ("memory", f"{size(cost.state_bytes)} for weights, gradients, moments and average, besides activations"),
        (
            "length",
            f"{plural(plan.images, 'image')} in {plural(plan.steps, 'step')}, {cost.epochs:,.1f} times the data{speed}",
        ),
        ("worth", worth(plan.images, data.shape)),
        ("preset", with_source(reason)),
        ("run", f"{run.path} (a dry run writes nothing)"),
    ]
    # comments, so that the output can be kept as a file for --config
    say(to_toml(config) + "\n# " + facts(about).replace("\n", "\n# "), longest=None)
    return 0


VERB = Train
