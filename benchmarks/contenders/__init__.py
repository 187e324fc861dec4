"""The contenders of ``bench_pipeline.py``: each module scores the same pictures with the same network, its own way.

A module has one function, ``measure(task, **variant) -> Measured``, and runs in a process of its own:
``python -m contenders MODULE OPTIONS``, see ``__main__.py``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """What a contender is given.

    Attributes:
        folder: of the pictures.
        images: how many of them to score, from the first.
        artifact: folder of the model.
        cache: folder of converted networks, filled by whoever needs one first.
    """

    folder: Path
    images: int
    artifact: Path
    cache: Path

    @property
    def files(self) -> list[Path]:
        """The pictures to score."""
        return sorted(self.folder.glob("*.jpg"))[: self.images]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a contender gives back.

    Attributes:
        seconds: that the pictures took; starting, loading and warming up are not in it.
        scores: P(real) of each picture, in the order of the files.
        facts: whatever else is known of this run.
    """

    seconds: float
    scores: Sequence[float]
    facts: dict[str, Any] = field(default_factory=dict)


def cores() -> list[int]:
    """Return the cores that this process may use; as on Linux, where all of this runs."""
    return sorted(os.sched_getaffinity(0))
