"""What a case does to its process is counted against that case, and all others are done."""

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.fuzz.sandbox import MIB, Limits, Target, run_cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

LIMITS = Limits(seconds=5, mib=100)
FAULTS = {3: "SIGSEGV", 4: "exit 7", 9: "hung", 12: "memory", 13: "memory", 19: "ValueError: no"}


def misbehave(case: int) -> str:
    match FAULTS.get(case):
        case "SIGSEGV":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit 7":
            os._exit(7)
        case "hung":
            time.sleep(1000)
        case "memory" if case == 12:
            hold = bytearray(150 * MIB)
            hold[::4096] = b"x" * len(hold[::4096])  # given back at once: nobody outside saw it
        case "memory":
            hoard = [b"x" * MIB for _ in range(150)]
            time.sleep(1000 if hoard else 0)
        case "ValueError: no":
            raise ValueError("no")
    return f"case {case}"


def make_misbehaving() -> Target:
    return misbehave


def make_nothing() -> Target:
    os._exit(3)


def run(make: Callable[[], Target], number: int, children: int) -> dict[int, tuple[str, str]]:
    results = list(run_cases(make, number, children=children, limits=LIMITS))
    found = {result.case: (result.label, result.fault) for result in results}
    assert len(found) == len(results)
    return found


def test_each_case_has_one_result_and_the_bad_ones_say_why() -> None:
    found = run(make_misbehaving, 21, children=2)
    assert {case: fault for case, (_, fault) in found.items() if fault} == FAULTS
    assert {case: label for case, (label, fault) in found.items() if not fault} == {
        case: f"case {case}" for case in range(21) if case not in FAULTS
    }


def test_a_child_that_dies_before_any_case_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="not because of a case"):
        run(make_nothing, 5, children=1)
