"""Training as a generator: it records the run and yields events. Closing it saves a checkpoint.

    for event in train(config, run, data):
        print(event)

The same call on the same run folder resumes at the newest good checkpoint, with the same bits as a run that was never
interrupted. A generator pauses at each `yield`, between two steps, so closing it there (a signal, a `break`) saves a
complete state. An exception in the middle of a step saves nothing: the last checkpoint remains. Nor is anything saved
while steps are being skipped, or with a value that is not finite: what is on disk is from before the trouble.

The order at n images is fixed: the step that ends there, the held-out loss and the grids that are due, a checkpoint. On
resuming at n, what is due at n is done (again) first, so nothing is missed and nothing counts twice.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from sfumato.config.config import Config
from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.generate.sample import out_of_memory
from sfumato.ranks import World
from sfumato.run.events import Finished, Warned
from sfumato.run.folder import Run
from sfumato.run.sinks.protocol import check as check_sinks
from sfumato.train.eight import check_eight
from sfumato.train.extend import More, is_finished
from sfumato.train.follow import follow
from sfumato.train.interrupt import closed_at_exit
from sfumato.train.lineage import lineage_of
from sfumato.train.plan import begin, resolve_course
from sfumato.train.saver import publish_last
from sfumato.train.session import Events, Session


@closed_at_exit
def train(
    config: Config,
    run: Run,
    data: Dataset,
    device: torch.device | str = "cpu",
    *,
    accept_changes: bool = False,
    began: float | None = None,
    world: World = World(),
    more: More | None = None,
    init: Path | str | None = None,
) -> Events:
    """Train, or resume, in a run folder, and record the events there.

    Args:
        config: where `train.images` is None, the length is planned from `train.budget` at the first start.
        run: the folder; created if missing, locked until the generator ends.
        data: the images.
        device: where to train.
        accept_changes: resume although the images or the versions differ from those of the checkpoint.
        began: `time.perf_counter()` when the budget began; now by default.
        world: the ranks that train together. Only rank 0 reads and writes the run folder and yields events; the others
            follow it to the end, and yield none.
        more: another length for a run that was started (`extend`), in place of the configuration's.
        init: weights to begin with, as `model.load` takes them; a run that was begun with them resumes.

    Yields:
        Events, each after it was recorded; the first is `Started`, the last `Finished`.

    Raises:
        UserError: the folder belongs to another configuration, to another trainer, or lies inside the data; no length
            and no budget; no usable checkpoint; a training that has diverged; a last save that failed; a folder that
            was moved or deleted meanwhile.
    """
    began = time.perf_counter() if began is None else began
    device = torch.device(device)
    if not world.main:
        follow(world, device, data)
        return
    run.check_path(data.source_name)
    check_sinks(config.train.log)
    check_eight(config.optim.name, device)
    with run.locked() as lock:
        run.sweep()
        lineage = lineage_of(run, init, config, data)
        before = run.config().data.source if run.exists() else ""
        config, course = resolve_course(config, run, data, device, began, more, world)
        begin(run, config, course, device, lineage)
        moved = before not in ("", config.data.source)
        news = [f"the images of {before} are at {config.data.source} now: they are the same"] if moved else []
        if is_finished(run, course):
            finished = run.read(run.finished_path) or {}
            publish_last(run, run.checkpoint(finished["images"]))
            for text in news:
                yield Warned(int(finished["images"]), text)
            yield Finished(int(finished["images"]), float(finished.get("seconds", 0.0)), again=True)
            return
        try:
            session = Session(config, run, data, device, course, lock, world)
            session.warnings += news
            yield from session.recorded(accept_changes)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            half = max(1, (config.train.micro or -(-config.train.batch // world.size)) // 2)
            raise UserError(
                f"out of memory: set --train.micro={half} (images at once on a device), --train.recompute=true, or "
                f"--train.batch={max(1, config.train.batch // 2)}, in another --run folder"
            ) from None
