"""Child processes that work off numbered cases: one that dies, hangs or eats memory costs its case, not the run.

Linux only: memory is read from ``/proc``.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

#: What a case is given to; returns a label for what came out.
Target = Callable[[int], str]

POLL_SECONDS = 0.02
START_SECONDS = 120.0
MIB = 2**20
#: Instead of a case's number: the child is not ready, or between two cases.
_STARTING, _BETWEEN = -2, -1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SPAWN = multiprocessing.get_context("spawn")  # as a forked child of a process with threads may hang by itself


@dataclass(frozen=True, slots=True)
class Limits:
    """What one case may take.

    Attributes:
        seconds: by the clock.
        mib: of memory, beside what the child had before.
    """

    seconds: float = 60.0
    mib: float = 256.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case.

    Attributes:
        case: its number.
        label: as the target returned it; empty if it did not return.
        fault: why it did not, ``SIGSEGV`` or ``hung``, say; or ``memory``, if it did; else empty.
        seconds: of CPU, in all threads; of one that did not return, by the clock.
        mib: of memory at most, beside what the child had before; of one that did not return, the last that was seen.
    """

    case: int
    label: str
    fault: str
    seconds: float
    mib: float


class _Child:
    """One child process, and the cases that it has been given."""

    def __init__(self, make: Callable[[], Target], cases: Sequence[int], limits: Limits) -> None:
        self._cases = cases
        self._limits = limits
        self._state = _SPAWN.Array("d", 3, lock=False)  # number of the case; when it was begun; MiB before it
        self._state[0] = _STARTING
        self.connection, theirs = _SPAWN.Pipe(duplex=False)
        self._process = _SPAWN.Process(target=_serve, args=(make, cases, limits, theirs, self._state), daemon=True)
        self._process.start()
        theirs.close()
        self._born = time.monotonic()
        self._seen_mib = 0.0
        self._reason = ""

    def receive(self) -> Result | None:
        """Return the next result, or None if there will be none."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return None

    def watch(self) -> None:
        """Kill the child if its case takes too much."""
        case, begun, mib = self._state
        if case < 0:
            if case == _STARTING and time.monotonic() - self._born > START_SECONDS:
                self._kill("never started")
            return
        self._seen_mib = max(0.0, _resident_mib(self._process.pid) - mib)
        if self._seen_mib > self._limits.mib:
            self._kill("memory")
        elif time.monotonic() - begun > self._limits.seconds:
            self._kill("hung")

    def verdict(self) -> tuple[Result | None, Sequence[int]]:
        """Return the result of the case that the child died of, if it did, and the cases that nobody has done."""
        case = int(self._state[0])
        if case < 0:
            if self._process.exitcode:
                reason = self._reason or f"ended with {self._process.exitcode}"
                raise RuntimeError(f"a child {reason}, and not because of a case")
            return None, ()
        code = self._process.exitcode or 0
        fault = self._reason or (signal.Signals(-code).name if code < 0 else f"exit {code}")
        result = Result(case, "", fault, time.monotonic() - self._state[1], self._seen_mib)
        return result, self._cases[self._cases.index(case) + 1 :]

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._process.kill()


def run_cases(make: Callable[[], Target], number: int, *, children: int, limits: Limits) -> Iterator[Result]:
    """Yield what becomes of each case, in no order.

    Args:
        make: called in each child to make what the cases are given to; must be importable.
        number: of cases, counted from 0.
        children: processes at a time.
        limits: for each case.
    """
    start = partial(_Child, make, limits=limits)
    alive = [start(range(first, number, children)) for first in range(min(children, number))]
    while alive:
        ready = set(wait([child.connection for child in alive], POLL_SECONDS))
        for child in list(alive):
            child.watch()
            if child.connection not in ready:
                continue
            if (result := child.receive()) is not None:
                yield result
                continue
            alive.remove(child)
            last, left = child.verdict()
            if last is not None:
                yield last
            if left:
                alive.append(start(left))


def _serve(make: Callable[[], Target], cases: Sequence[int], limits: Limits, results: Connection, state: Any) -> None:
    """Do all cases; the parent sees from ``state`` which one it is."""
    target = make()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng and others write about what they find
    for case in cases:
        state[1], state[2] = time.monotonic(), _resident_mib(os.getpid())
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        state[0] = case
        started = time.process_time()
        try:
            label, fault = target(case), ""
        except Exception as error:
            label, fault = "", f"{type(error).__name__}: {error!s:.200}"
        seconds, mib = time.process_time() - started, max(0.0, _peak_mib() - state[2])
        state[0] = _BETWEEN
        results.send(Result(case, label, fault or ("memory" if mib > limits.mib else ""), seconds, mib))


def _resident_mib(process: int | None) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE / MIB
    except (OSError, IndexError):
        return 0.0  # it has just died


def _peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell the peak of a process's memory")
