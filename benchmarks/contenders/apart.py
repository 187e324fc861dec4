"""Run a contender in a process of its own, so that nobody's TensorFlow, Ray or threads are in another's way."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lab

from contenders import Task
from core.settings import PREFIX

LIMIT_SECONDS = 3600
STOP_SECONDS = 60


def run_apart(module: str, task: Task, variant: dict[str, Any]) -> dict[str, Any]:
    """Run a contender and return what it measured, the fields of ``Measured``.

    Args:
        module: of this package.
        task: for it.
        variant: further arguments of its ``measure``.

    Raises:
        ChildProcessError: it failed, or took too long.
    """
    words = json.dumps({"task": asdict(task), "variant": variant}, default=str)
    # No settings of whoever runs this; and the processes that a contender starts must find its modules, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")])
    )
    with lab.scratch() as folder:
        output, errors = folder / "output", folder / "errors"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "contenders", module, words],
                env=environment, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                raise ChildProcessError(f"does not run: not done after {LIMIT_SECONDS} s") from None
            finally:
                _end(process)
        if process.returncode:
            said = errors.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise ChildProcessError(f"does not run: {said[-1]:.300}")
        result: dict[str, Any] = json.loads(output.read_text().splitlines()[-1])
        return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a contender that runs: interrupted, it stops what it has started, brokers too."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
