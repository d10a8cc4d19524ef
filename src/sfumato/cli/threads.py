"""How threads wait for one another. Set before torch is imported, since OpenMP reads its settings once.

A training step enters some hundred parallel regions, and at the end of each the threads wait for the slowest. GNU
OpenMP, which torch carries on Linux, lets them spin for about 5 ms before they sleep. Where another process has one of
the cores, one thread waits for its turn and the others spin in place of giving up theirs: a step of 0.12 s on two quiet
cores took 7.8 s beside one busy process, and 2.5 s with the number of spins below. On the quiet machine the steps
take as long (`python benchmarks/threads.py`, LOG.md); fewer spins are faster beside other work and slower without.
"""

from __future__ import annotations

import os
import sys

SPINS = "10000"
"""Turns of the loop in which a thread waits before it sleeps: about 0.2 ms."""
_OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon when they wait, unless the environment already says how they wait."""
    if sys.platform.startswith("linux") and not any(name in os.environ for name in _OWN):
        os.environ["GOMP_SPINCOUNT"] = SPINS
