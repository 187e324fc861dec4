"""Which accelerator each child of a worker uses. Nothing here loads CUDA: children pin themselves before they do."""

import os
import subprocess
from collections.abc import Sequence
from itertools import takewhile

from core.errors import UsageError

PIN = "CUDA_VISIBLE_DEVICES"
NO_GPU = "-1"  # an empty value would mean the same to CUDA, but unset to some tools
LIST_SECONDS = 20.0
CORES_EACH = 4  # of a large CPU; a network gains little from more threads, and much from another batch at a time


def visible_gpus() -> list[str]:
    """Return the identifiers of the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` spells them."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LIST_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    allowed = os.environ.get(PIN)
    if allowed is None:
        return [str(index) for index in range(count)]
    named = allowed.replace(" ", "").split(",")
    # As CUDA does: the first name that leads nowhere ends the list.
    return list(takewhile(lambda name: name.startswith("GPU-") or (name.isdigit() and int(name) < count), named))


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
        UsageError: a GPU is not there.
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
        chosen = list(dict.fromkeys(filter(None, gpus.replace(" ", "").split(","))))
        missing = [name for name in chosen if name not in available]
        if missing or not chosen:
            raise UsageError(f"--gpus {gpus}: visible GPUs are {', '.join(available) or 'none'}")
    if not chosen:
        return [NO_GPU] * (slots or max(2, cores // CORES_EACH))
    return chosen * (slots or 2)


def pin(device: str) -> None:
    """Let this process see one GPU, or none. Call it before anything of CUDA is imported."""
    os.environ[PIN] = device
