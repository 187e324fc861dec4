"""Where in images a model found its evidence: asked of ``model explain``, as this process has no TensorFlow."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from core.errors import ImageError
from core.settings import Settings
from core.uris import uri_to_path
from db.thumbnails import to_data_uri

COMMAND = (sys.executable, "-m", "model")


@dataclass(frozen=True, slots=True)
class Heat:
    """Where the evidence for a label lies.

    Attributes:
        source: the drawing, as a ``data:`` URI.
        evidence_for: ``generated`` or ``real``.
    """

    source: str
    evidence_for: str


@dataclass(slots=True)
class Explanations:
    """What became of a wish for explanations.

    Attributes:
        heats: by URI.
        problems: a line for each thing that went wrong.
    """

    heats: dict[str, Heat] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def explain(uris: Sequence[str], artifact: Path, settings: Settings) -> Explanations:
    """Draw where a model found its evidence in images. What goes wrong is told, not raised.

    Args:
        uris: of the images.
        artifact: folder of the model.
        settings: roots and limits.
    """
    found = Explanations()
    paths: dict[str, str] = {}
    for uri in uris:
        try:
            paths[uri] = uri_to_path(uri)
        except ImageError as error:
            found.problems.append(f"{uri}: {error}")
    if not paths:
        return found
    with TemporaryDirectory(prefix="facesieve-heat-") as folder:
        done = subprocess.run(
            [*COMMAND, "explain", *paths.values(), "--model", str(artifact), "--out", folder, "--json"],
            env=os.environ | settings.as_environment(),
            capture_output=True,
            check=False,
        )
        try:
            rows = json.loads(done.stdout)
            for (uri, _), row in zip(paths.items(), rows, strict=True):
                if "error" in row:
                    found.problems.append(f"{uri}: {row['error']}")
                else:
                    with Image.open(row["drawing"], formats=("PNG",)) as drawing:
                        found.heats[uri] = Heat(to_data_uri(drawing), row["evidence_for"])
        except (ValueError, KeyError, TypeError, OSError):
            found.problems.append(_last_line(done))
    return found


def _last_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"model explain ended with {done.returncode}"
