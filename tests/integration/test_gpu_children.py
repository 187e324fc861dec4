"""Which GPU the processes of a real worker see, and when: without a GPU, by a module that tells of its own import."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.broker import make_app
from tests.e2e.conftest import stop, wait_for

#: Stands before the real TensorFlow, and writes down what each process that imports it sees.
TENSORFLOW = """
import json, os
from billiard.process import current_process
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
seen |= {"pid": os.getpid(), "parent": os.getppid(), "index": getattr(current_process(), "index", None)}
with open(os.environ["TELL"], "a") as file:
    file.write(json.dumps(seen) + "\\n")
"""
NVIDIA_SMI = """#!/bin/sh
echo 'GPU 0: NVIDIA H100 (UUID: GPU-aaaa)'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-bbbb)'
"""


class Node:
    """A worker that has been started, and what its processes saw when they imported TensorFlow."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, url: str) -> None:
        self.process = process
        self.control = make_app(url).control
        self._folder = folder

    def seen(self, count: int) -> list[dict[str, object]]:
        """Wait for so many imports, and return all, the latest last."""
        told = self._folder / "told"

        def is_told() -> bool:
            assert self.process.poll() is None, (self._folder / "log").read_text()
            return told.exists() and len(told.read_text().splitlines()) >= count

        wait_for(is_told, f"{count} imports")
        return [json.loads(line) for line in told.read_text().splitlines()]

    def listen(self) -> None:
        """Wait until it takes commands, and jobs: a child that dies before ends the node."""
        wait_for(lambda: self.control.ping(timeout=1), "the node to listen")


@pytest.fixture
def start_node(broker: str, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start a node on two GPUs that are not there."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorflow.py").write_text(TENSORFLOW)
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def start(gpus: str, slots: int, **environment: str) -> Node:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        variables |= {
            "PYTHONPATH": f"{tmp_path / 'site'}",
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "TELL": str(tmp_path / "told"),
        }
        with (tmp_path / "log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.gpu_node", broker, gpus, str(slots)],
                env=variables | environment, cwd=Path(__file__).parents[2], stdout=log, stderr=log,
            )  # fmt: skip
        started.append(node)
        return Node(node, tmp_path, broker)

    yield start
    for node in started:
        stop(node)


def test_each_child_is_pinned_before_it_imports_tensorflow_and_the_parent_never_does(
    start_node: Callable[..., Node],
) -> None:
    node = start_node("all", 2)
    seen = node.seen(4)
    assert {one["index"]: one["CUDA_VISIBLE_DEVICES"] for one in seen} == {0: "0", 1: "1", 2: "0", 3: "1"}
    assert {one["CUDA_DEVICE_ORDER"] for one in seen} == {"PCI_BUS_ID"}
    assert {one["parent"] for one in seen} == {node.process.pid}
    assert len({one["pid"] for one in seen} - {node.process.pid}) == 4


def test_the_child_in_the_place_of_a_dead_one_has_its_device(start_node: Callable[..., Node]) -> None:
    node = start_node("1,0", 1)
    first = node.seen(2)
    node.listen()
    dead = next(one for one in first if one["index"] == 1)
    os.kill(int(str(dead["pid"])), signal.SIGKILL)
    *_, new = node.seen(3)
    assert new["pid"] not in {one["pid"] for one in first}
    assert (new["index"], new["CUDA_VISIBLE_DEVICES"]) == (1, "0")


def test_a_node_does_not_grow_beyond_its_devices(start_node: Callable[..., Node]) -> None:
    node = start_node("1", 1, CUDA_VISIBLE_DEVICES="0,1")
    node.seen(1)
    node.listen()
    (answer,) = wait_for(lambda: node.control.pool_grow(1, reply=True, timeout=5), "the node to answer")
    assert "pinned to its device" in next(iter(answer.values()))["error"]
    ((_, stats),) = (node.control.inspect(timeout=10).stats() or {}).items()
    assert len(stats["pool"]["processes"]) == 1
    (only,) = node.seen(1)
    assert (only["CUDA_VISIBLE_DEVICES"], only["CUDA_DEVICE_ORDER"]) == ("1", None)
