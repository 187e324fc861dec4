"""Which accelerator each child of a worker uses. Nothing here loads CUDA: children pin themselves before they do."""

import os
import re
import subprocess
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from core.errors import UsageError, WorkerError

PIN = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
NO_GPU = "-1"  # an empty value would mean the same to CUDA, but unset to some tools
LIST_SECONDS = 20.0
CORES_EACH = 4  # of a large CPU; a network gains little from more threads, and much from another batch at a time


def visible_gpus() -> list[str]:
    """Return the identifiers of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` spells them.

    These are indices, unless the environment names GPUs, or parts of divided ones, by their UUIDs.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LIST_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    allowed = os.environ.get(PIN)
    if allowed is None:
        return [str(index) for index in range(count)]
    known = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", listed.stdout)

    def is_there(name: str) -> bool:
        if name.isdigit():
            return int(name) < count
        return name.startswith(("GPU-", "MIG-")) and any(uuid.startswith(name) for uuid in known)

    # As CUDA does: the first name that leads nowhere ends the list.
    return list(takewhile(is_there, allowed.replace(" ", "").split(",")))


def plan_slots(gpus: str, slots: int | None, available: Sequence[str], *, cores: int) -> list[str]:
    """Decide how many children a worker has and what each of them sees.

    Args:
        gpus: ``auto`` (all there are, or the CPU), ``all``, ``none``, or a comma-separated list such as ``0,1``.
        slots: children that share each GPU, or the CPU; None means two, so that one predicts while the other saves and
            begins its next job, and one for every four cores of a CPU with more than eight.
        available: what ``visible_gpus`` returned.
        cores: of the CPU, that this process may use.

    Returns:
        For each child, by its index in the pool, the value of ``CUDA_VISIBLE_DEVICES``.

    Raises:
        UsageError: a GPU is not there, or named twice.
    """
    if gpus == "auto":
        chosen = list(available)
    elif gpus == "none":
        chosen = []
    elif gpus == "all":
        chosen = list(available)
        if not chosen:
            raise UsageError("--gpus all: no NVIDIA GPU is visible; use --gpus none to run on the CPU")
    else:
        chosen = _named(gpus, available)
    if not chosen:
        return [NO_GPU] * (slots or max(2, cores // CORES_EACH))
    return chosen * (slots or 2)


def device_of(index: int, devices: Sequence[str]) -> str:
    """Return what a child sees: a new one in the place of a dead one has its index, and so its device.

    Args:
        index: of the child in the pool.
        devices: what ``plan_slots`` returned.

    Raises:
        WorkerError: there are more children than planned, which would crowd each other out of a GPU's memory.
    """
    if index >= len(devices):
        raise WorkerError(f"there is no device for a process {index}: --gpus and --slots make {len(devices)}")
    return devices[index]


def pin(device: str) -> None:
    """Let this process see one GPU, or none. Call it before anything of CUDA is imported."""
    if PIN not in os.environ:
        # Then indices are those of nvidia-smi, which counts by slot. CUDA would put the fastest GPU first.
        os.environ.setdefault(ORDER, "PCI_BUS_ID")
    os.environ[PIN] = device


def refuse_to_grow() -> None:
    """Let nobody add children by Celery's remote control: there is no device for them."""
    from celery.worker.control import Panel, nok

    def pool_grow(*_: Any, **__: Any) -> Any:
        return nok("each process is pinned to its device: start another worker, or this one with more --slots")

    Panel.data["pool_grow"] = pool_grow


def _named(gpus: str, available: Sequence[str]) -> list[str]:
    chosen = [name for name in gpus.replace(" ", "").split(",") if name]
    if not chosen or not set(chosen) <= set(available):
        raise UsageError(f"--gpus {gpus}: visible GPUs are {', '.join(available) or 'none'}")
    twice = [name for number, name in enumerate(chosen) if name in chosen[:number]]
    if twice:
        raise UsageError(f"--gpus {gpus}: {twice[0]} is named twice; --slots says how many processes share each GPU")
    return chosen
