"""How threads that wait should wait: training steps with two threads, on a quiet machine and beside other work.

    python benchmarks/threads.py [--rounds 7] [--steps 8] [--threads 2]

GNU OpenMP, which torch carries on Linux, lets a thread that waits for the others spin for some milliseconds before it
sleeps. Where another process has one of the cores, the threads spin while the last of them waits for its turn. One
process for each setting takes the same training steps in turn; the table has the median seconds of a step, and of the
slowest round, beside nothing, beside one process that computes on one thread, and beside one per core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "default": {},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin 3,000": {"GOMP_SPINCOUNT": "3000"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = "while True: pass"


def worker(threads: int, steps: int) -> None:
    """Take `steps` training steps for each line of stdin, and print the seconds."""
    import torch

    from sfumato.config.presets import resolve
    from sfumato.data import open_data
    from sfumato.nets import keep_memory
    from sfumato.train.trainer import Trainer

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    keep_memory()
    config = resolve("small16", overrides={"data.source": "faces", "train.images": "1000000"})
    trainer = Trainer(config, open_data(config.data))
    trainer.step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(steps):
            trainer.step()
        print(time.perf_counter() - start, flush=True)


def ask(process: subprocess.Popen[str]) -> float:
    """Have a worker take its steps, and return the seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.threads, args.steps)
    cores = os.cpu_count() or 1
    own = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    plain = {name: value for name, value in os.environ.items() if name not in own}
    command = [sys.executable, __file__, "--worker", f"--threads={args.threads}", f"--steps={args.steps}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {name: subprocess.Popen(command, env=plain | more, **pipes) for name, more in SETTINGS.items()}
    for process in workers.values():
        process.stdout.readline()
    print(f"{'seconds a step: median (slowest round)':32}" + "".join(f"{name:>20}" for name in SETTINGS))
    for load in (0, 1, cores):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(load)]
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for k in range(args.rounds):
            names = list(workers)
            for name in names[k % len(names) :] + names[: k % len(names)]:
                seconds[name].append(ask(workers[name]) / args.steps)
        for process in busy:
            process.kill()
        cells = (f"{statistics.median(s):.4f} ({max(s):.4f})" for s in seconds.values())
        print(f"{f'beside {load} busy processes':38}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    for process in workers.values():
        process.stdin.close()
        process.wait()
    return None


if __name__ == "__main__":
    main()
