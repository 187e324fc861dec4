"""How many cores a worker may use: of the machine, of its affinity, and of its container's share."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may use; a share of 1.5 is two, as one would leave some of it unused.

    Args:
        cgroup: where Linux tells of the limits of this container.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(cgroup)
    return min(cores, math.ceil(share)) if share else cores


def _share(cgroup: Path) -> float | None:
    """Return the seconds of CPU that may be used in each second; None without a limit.

    Threads for all the cores of a large host would use up such a share in an instant, and then all wait.
    """
    try:
        if (limits := cgroup / "cpu.max").exists():
            quota, period = limits.read_text().split()
        else:  # version 1 of cgroups
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # there are no cgroups; or "max"
        return None
