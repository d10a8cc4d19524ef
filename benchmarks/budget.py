"""How well `--budget` is kept: whole commands, timed from outside, at constant load and with a busy machine.

    python benchmarks/budget.py                                     # 1m, 2m and 5m, three times each, 30 minutes
    python benchmarks/budget.py --budgets 40s --loads slowed        # some of it
    python benchmarks/budget.py --data fashion -- --preset small32  # other images, and options for `sfumato train`

Each run is `sfumato train DATA --budget B` in a process of its own, with the decay `late`. `constant` runs alone;
`slowed` shares the machine from half of the budget on, and `measured busy` for the first quarter, with one process a
core that computes all the time. Time is that of the whole command, Python's start included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

from sfumato.config.units import parse_seconds
from sfumato.run.folder import Run
from sfumato.run.plan import read_course

LOADS = {"constant": (1.0, 1.0), "slowed": (0.5, 9.0), "measured busy": (0.0, 0.25)}
"""From when to when other processes compute, as fractions of the budget."""


class Busy:
    """Processes that compute, one a core, from one moment to another."""

    def __init__(self, start: float, end: float) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.timers = [Timer(start, self.begin), Timer(end, self.stop)] if end > start else []

    def __enter__(self) -> Busy:
        for timer in self.timers:
            timer.daemon = True
            timer.start()
        return self

    def begin(self) -> None:
        """Start one process a core."""
        command = [sys.executable, "-c", "while True: pass"]
        self.processes += [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]

    def stop(self) -> None:
        """End them."""
        while self.processes:
            self.processes.pop().kill()

    def __exit__(self, *_: object) -> None:
        for timer in self.timers:
            timer.cancel()
        self.stop()


def row(data: str, budget: str, load: str, options: list[str]) -> str:
    """Train once, and return the row of the table."""
    seconds = parse_seconds(budget)
    with ExitStack() as stack:
        run = Run(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run")
        stack.enter_context(Busy(*(fraction * seconds for fraction in LOADS[load])))
        words = ["train", data, "--budget", budget, "--run", str(run.path), "--optim.decay=late", "--json", *options]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sfumato", *words], capture_output=True, text=True, check=False)
        took = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: {done.stderr}")
        course = read_course(run.read(run.plan_path))
        assert course is not None
        finished = json.loads(done.stdout.splitlines()[-1])
        counted = course.plans[0].before + finished["seconds"]
        figures = (f"{took:.1f}", f"{100 * took / seconds:.1f} %", f"{counted:.1f}")
        lengths = " -> ".join(f"{plan.images:,}" for plan in course.plans)
        looks = len(run.list_grids())
        return f"| {budget} | {load} | {' | '.join(figures)} | {lengths} | {looks} |"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["1m", "2m", "5m"])
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--data", default="faces")
    parser.add_argument("options", nargs="*", help="options for sfumato train, after --")
    arguments = parser.parse_args()
    print("| budget | load | seconds | of the budget | as counted | planned images | grids |")
    print("|---|---|---|---|---|---|---|")
    for budget in arguments.budgets:
        for load in arguments.loads:
            print(row(arguments.data, budget, load, arguments.options), flush=True)


if __name__ == "__main__":
    main()
