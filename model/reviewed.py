"""Images that people have reviewed, as a data set. Another process reads them: models know nothing of the database."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.cli import notice
from core.errors import FacesieveError, UsageError
from core.settings import Settings
from model.data import LABELS


@contextmanager
def reviewed_images(settings: Settings) -> Iterator[Path]:
    """Write a ``manifest.csv`` of the images that were reviewed as real or generated; it is gone after the block.

    Args:
        settings: tell which database.

    Raises:
        UsageError: there are no reviews, or all have the same label.
        FacesieveError: the database cannot be used; with the exit code of `db export`.
    """
    with tempfile.TemporaryDirectory(prefix="facesieve-reviewed-") as folder:
        manifest = Path(folder) / "manifest.csv"
        # -P: a folder named db where the user is must not be taken for ours.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "db", "export", "--reviewed", str(manifest), "--json"],
            env=os.environ | settings.as_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        *lines, last = done.stderr.splitlines() or [""]
        if not done.stdout:
            reason = last.removeprefix("error: ") or f"`db export --reviewed` ended with {done.returncode}"
            if done.returncode == UsageError.exit_code:
                raise UsageError(f"{reason}: label some images with `db review`")
            error = FacesieveError(reason)
            error.exit_code = done.returncode
            raise error
        for line in lines:  # of images that a manifest cannot name
            notice(line)
        counts = json.loads(done.stdout)["labels"]
        if missing := [label for label in LABELS if not counts.get(label)]:
            raise UsageError(
                f"no image has been reviewed as {' or as '.join(missing)}: a model is measured on images of both, "
                "so go on with `db review`"
            )
        yield manifest
