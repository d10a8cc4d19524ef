"""The watch over the other ranks: who has died or stalled is named within half a minute, and the job ends.

A thread of every rank writes a beat into the store that the processes met at, once a second: how often it has beaten,
and to how many meetings (`World.waiting`) its rank has come. Rank 0 watches the others, the others watch rank 0.

    no beat for `SILENT` seconds, for `BROKEN` where a connection broke    dead or stopped: the job ends
    not at the meeting that rank 0 came to `LATE` seconds ago              it is named; after `TOO_LATE` the job ends
    it reports that it has failed                                          the job ends, with its reason

Seconds are those that a process is awake itself: a job whose processes are stopped together goes on afterwards. The
main thread may wait in a call that no exception reaches. So the verdict is left for it, and where it has not ended
the process `GRACE` seconds later, the thread does. A checkpoint that is being written then is safe, as after a kill.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sfumato.ranks.place import LAUNCHER

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

BEAT = 1.0
"""Seconds between two beats."""
SILENT, BROKEN = 20.0, 5.0
"""Seconds without a beat after which a rank counts as dead, and where a connection to a rank was lost."""
LATE, TOO_LATE = 20.0, 300.0
"""Seconds after which a rank that beats, but does not come to a meeting, is named, and is given up."""
GRACE = 5.0
"""Seconds that the main thread has to end by itself."""
HEAR = 5.0
"""Seconds that a rank which has failed waits for the others to read why."""
_COMMUNICATION = ("gloo", "nccl", "connection", "peer", "socket", "broken pipe", "timed out", "store")


@dataclass(frozen=True)
class Verdict:
    """Why the job ends: a line, empty where rank 0 has said it itself, and the exit code; `rank` is who failed."""

    message: str
    code: int
    rank: int

    def said_by(self, rank: int) -> bool:
        """Whether a rank is the one that tells the user: rank 0, or rank 1 where rank 0 is the one that failed."""
        return bool(self.message) and rank == (1 if self.rank == 0 else 0)


class Watch:
    """Beats for this rank and watches others, in a thread.

    Args:
        store: where the processes met; the thread uses it alone.
        rank: of this process.
        size: of the job.
        on_request: called with the number of a signal that another rank has received, on rank 0.
    """

    def __init__(self, store: Store, rank: int, size: int, on_request: Callable[[int], None] | None = None) -> None:
        self.store, self.rank, self.size, self.on_request = store, rank, size, on_request
        self.verdict: Verdict | None = None
        self._now = self._looked = self._since = 0.0  # seconds that this process was awake, at the last look, meeting
        self._meetings, self._warned, self._beats = 0, -1, 0
        self._seen: dict[int, tuple[dict[str, Any], float]] = {}
        self._stopped, self._told, self._broken = threading.Event(), threading.Event(), threading.Event()
        self._asked, self._patient = 0, False
        self._watched = range(1, size) if rank == 0 else [0]
        self._parent = int(os.environ.get(LAUNCHER, 0))
        self.store.set_timeout(timedelta(seconds=SILENT / 2))
        self._beat()
        self._threads = [
            threading.Thread(target=act, name="watch", daemon=True) for act in (self._run, self._watch_the_watch)
        ]

    def start(self) -> None:
        """Begin; every rank must have been made, since it has beaten then."""
        for rank in self._watched:  # so that one that dies at once has a name
            self._seen[rank] = json.loads(self.store.get(f"beat/{rank}")), self._now
        for thread in self._threads:
            thread.start()

    @contextmanager
    def meeting(self, patient: bool = False) -> Iterator[None]:
        """Count a meeting; to a patient one a rank may come as late as it likes."""
        self._meetings, self._since, self._patient = self._meetings + 1, self._now, patient
        yield
        self._since, self._patient = self._now, False

    def stop(self) -> None:
        """End the watch: what the other ranks do from here on is their own affair."""
        self._stopped.set()

    def request(self, number: int) -> None:
        """Ask rank 0 to stop the job as if it had received this signal; safe in a signal's handler."""
        self._asked = number

    def report(self, code: int, reason: str) -> None:
        """Have all other ranks end with a code, and wait a little until they know why."""
        if self.verdict is None:
            with suppress(RuntimeError):
                message = f"rank {self.rank} ({_who()}) has failed: {reason}" if reason and self.rank else ""
                self._publish(Verdict(message, code, self.rank))
                others = [f"heard/{rank}" for rank in range(self.size) if rank != self.rank]
                self.store.wait(others, timedelta(seconds=HEAR))
        self.stop()

    def wait_for_verdict(self, error: BaseException) -> Verdict | None:
        """Return the verdict on an error of the main thread; None where it has nothing to do with other ranks."""
        text = str(error).lower()
        if self.verdict is None and not any(word in text for word in _COMMUNICATION):
            return None
        self._broken.set()
        if not self._told.wait(BROKEN + 2 * GRACE):
            self.verdict = Verdict(f"the connection to another rank broke: {' '.join(str(error).split())[:200]}", 2, -1)
        self.stop()
        return self.verdict

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            try:
                self._beat()
                verdict = self._look()
            except RuntimeError:
                verdict = self._no_store()
            self._looked = self._now
            if verdict is not None and not self._stopped.is_set():
                self._conclude(verdict)
                return

    def _watch_the_watch(self) -> None:
        """Count the seconds that this process is awake, and end the job where the other thread waits for too long: no
        timeout ends its wait for a store whose process is stopped."""
        last = time.monotonic()
        while not self._stopped.wait(BEAT / 2):
            now = time.monotonic()
            self._now += min(now - last, BEAT)  # a process that was stopped itself has missed nothing
            last = now
            if self._now - self._looked > SILENT and self.verdict is None:
                self._conclude(self._no_store())
                return

    def _no_store(self) -> Verdict:
        """The verdict where the store does not answer: it lives in rank 0, or in the launcher."""
        who = "the launcher" if self.rank == 0 else self._name(0)
        return Verdict(f"{who} does not answer: it died or was stopped", 2, 0 if self.rank else -1)

    def _beat(self) -> None:
        self._beats += 1
        beat = {"beats": self._beats, "meetings": self._meetings, "who": _who()}
        self.store.set(f"beat/{self.rank}", json.dumps(beat))

    def _look(self) -> Verdict | None:
        """Look at the other ranks once."""
        self._pass_on()
        if self.store.check(["failed"]):
            failed = Verdict(**json.loads(self.store.get("failed")))
            with suppress(RuntimeError):  # it may have waited long enough, and be gone with the store
                self.store.set(f"heard/{self.rank}", "1")
            return failed
        now, patience = self._now, BROKEN if self._broken.is_set() else SILENT
        for rank in self._watched:
            beat = json.loads(self.store.get(f"beat/{rank}"))
            if self._seen[rank][0]["beats"] != beat["beats"]:
                self._seen[rank] = beat, now
            verdict = self._judge(rank, now, patience)
            if verdict is not None:
                self._publish(verdict)
                return verdict
        return None

    def _judge(self, rank: int, now: float, patience: float) -> Verdict | None:
        """Return the verdict on a rank that is dead or too late; name one that is late."""
        beat, last = self._seen[rank]
        if now - last > patience:
            return Verdict(
                f"{self._name(rank)} has not answered for {now - last:.0f} s: it died or was stopped", 2, rank
            )
        late = now - self._since
        if self.rank == 0 and not self._patient and late > LATE and beat["meetings"] < self._meetings:
            if late > TOO_LATE:
                return Verdict(f"{self._name(rank)} has been stuck for {late:.0f} s", 2, rank)
            if self._warned != self._meetings:
                self._warned = self._meetings
                limit = f"{TOO_LATE / 60:.0f} minutes"
                say(f"{self._name(rank)} has kept the others waiting for {late:.0f} s; giving it up after {limit}")
        return None

    def _pass_on(self) -> None:
        """Pass a signal on to rank 0; there, obey one that another rank was sent, or the end of the launcher."""
        if self.rank:
            if self._asked:
                self.store.set("stop", str(self._asked))
            return
        orphaned = self._parent and os.getppid() != self._parent
        if (orphaned or self.store.check(["stop"])) and self.on_request is not None:
            self.on_request(signal.SIGTERM if orphaned else int(self.store.get("stop")))

    def _publish(self, verdict: Verdict) -> None:
        self.store.set("failed", json.dumps(vars(verdict)))

    def _conclude(self, verdict: Verdict) -> None:
        """Leave the verdict to the main thread; end the process where that does not."""
        self.verdict = verdict
        self._told.set()
        if self._stopped.wait(GRACE):
            return
        if verdict.said_by(self.rank):
            say(verdict.message)
        os._exit(verdict.code)

    def _name(self, rank: int) -> str:
        return f"rank {rank} ({self._seen[rank][0]['who']})"


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def say(message: str) -> None:
    """Print a line on stderr, below a live view if there is one."""
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h\n")  # a live view hides the cursor
        print(f"sfumato: {message}", file=sys.stderr, flush=True)
