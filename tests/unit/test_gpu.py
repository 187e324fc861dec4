"""Which child sees which GPU."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UsageError, WorkerError
from worker.gpu import NO_GPU, ORDER, PIN, device_of, pin, plan_slots, visible_gpus

TWO_GPUS = "GPU 0: NVIDIA H100 (UUID: GPU-aaaa)\nGPU 1: NVIDIA H100 (UUID: GPU-bbbb)"
MIG = "GPU 0: NVIDIA H100 (UUID: GPU-aaaa)\n  MIG 1g.10gb Device 0: (UUID: MIG-cccc)"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Put a program with this output and exit code before all others of that name."""
    monkeypatch.delenv(PIN, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def install(output: str, code: int = 0) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
        script.chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("gpus", "slots", "available", "planned"),
    [
        ("auto", None, ["0", "1"], ["0", "1", "0", "1"]),
        ("auto", 1, ["0", "1"], ["0", "1"]),
        ("auto", None, [], [NO_GPU] * 2),
        ("auto", 3, [], [NO_GPU] * 3),
        ("all", None, ["0", "1"], ["0", "1", "0", "1"]),
        ("none", None, ["0", "1"], [NO_GPU] * 2),
        ("none", 4, ["0", "1"], [NO_GPU] * 4),
        ("1", None, ["0", "1"], ["1", "1"]),
        ("1,0", 1, ["0", "1"], ["1", "0"]),
        (" 0 , 1 ", 1, ["0", "1"], ["0", "1"]),
        ("GPU-aaaa", 1, ["GPU-aaaa", "GPU-bbbb"], ["GPU-aaaa"]),
    ],
)
def test_each_child_gets_a_gpu_or_the_cpu(
    gpus: str, slots: int | None, available: list[str], planned: list[str]
) -> None:
    assert plan_slots(gpus, slots, available, cores=2) == planned


@pytest.mark.parametrize(("cores", "children"), [(1, 2), (2, 2), (8, 2), (12, 3), (64, 16)])
def test_a_large_cpu_is_shared_by_more_children(cores: int, children: int) -> None:
    assert plan_slots("auto", None, [], cores=cores) == [NO_GPU] * children


@pytest.mark.parametrize(
    ("gpus", "available"),
    [("all", []), ("2", ["0", "1"]), ("0,2", ["0", "1"]), ("0", []), (",", ["0"]), ("some", ["0"])],
)
def test_a_gpu_that_is_not_there_is_a_mistake_of_the_user(gpus: str, available: list[str]) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        plan_slots(gpus, None, available, cores=2)


@pytest.mark.parametrize("gpus", ["0,0", "0,1,0", " 1 ,1"])
def test_a_gpu_that_is_named_twice_is_a_mistake_of_the_user(gpus: str) -> None:
    with pytest.raises(UsageError, match=r"is named twice; --slots says how many"):
        plan_slots(gpus, None, ["0", "1"], cores=2)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_each_gpu_is_shared_by_as_many_children_as_was_said(slots: int) -> None:
    planned = plan_slots("all", slots, ["0", "1", "2"], cores=2)
    assert [planned.count(device) for device in ("0", "1", "2")] == [slots] * 3


def test_more_children_than_devices_are_refused() -> None:
    devices = plan_slots("all", None, ["0", "1"], cores=2)
    assert [device_of(index, devices) for index in range(4)] == ["0", "1", "0", "1"]
    with pytest.raises(WorkerError, match="no device for a process 4: --gpus and --slots make 4"):
        device_of(4, devices)


def test_the_gpus_are_those_that_the_driver_lists(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi(TWO_GPUS)
    assert visible_gpus() == ["0", "1"]


def test_the_parts_of_a_divided_gpu_are_not_gpus(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi(MIG)
    assert visible_gpus() == ["0"]


@pytest.mark.parametrize(
    ("allowed", "visible"),
    [
        ("1", ["1"]),
        (" 1 , 0 ", ["1", "0"]),
        ("", []),
        (NO_GPU, []),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("GPU-bb,0", ["GPU-bb", "0"]),  # CUDA takes the beginning of a UUID
        ("0,GPU-cccc,1", ["0"]),  # and nothing after what is not there
        ("1,7,0", ["1"]),
        ("x", []),
    ],
)
def test_a_restriction_by_the_environment_is_respected(
    allowed: str, visible: list[str], nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv(PIN, allowed)
    assert visible_gpus() == visible


def test_a_part_of_a_divided_gpu_can_be_named(nvidia_smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(MIG)
    monkeypatch.setenv(PIN, "MIG-cccc,MIG-dddd")
    assert visible_gpus() == ["MIG-cccc"]


def test_a_driver_that_fails_means_no_gpu(nvidia_smi: Callable[..., None]) -> None:
    nvidia_smi("NVIDIA-SMI has failed", 9)
    assert visible_gpus() == []


def test_no_driver_means_no_gpu_whatever_the_environment_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(PIN, "0")
    assert visible_gpus() == []


def test_a_pinned_process_sees_its_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIN, "0,1")
    pin("1")
    assert os.environ[PIN] == "1"


@pytest.mark.parametrize(
    ("before", "order"),
    [({}, "PCI_BUS_ID"), ({ORDER: "FASTEST_FIRST"}, "FASTEST_FIRST"), ({PIN: "1,0"}, None)],
    ids=["nothing is said", "the order is said", "the devices are said"],
)
def test_indices_are_those_of_the_driver_unless_the_environment_says_otherwise(
    before: dict[str, str], order: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PIN, ORDER):
        monkeypatch.setenv(name, "")  # so that what `pin` sets is undone
        monkeypatch.delenv(name)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    pin("1")
    assert (os.environ[PIN], os.environ.get(ORDER)) == ("1", order)
