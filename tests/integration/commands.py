"""Commands that run as a user runs them, and names that mean harm."""

import os
import subprocess
import sys
from pathlib import Path

HOSTILE = (
    "\x1b[31mred\x1b[0m.jpg",
    "\x1b]0;title\x07.jpg",
    "[red]markup[/red].jpg",
    "[/].jpg",
    "[link=file:///etc/passwd]x.jpg",
    "new\nline.jpg",
    "return\rerror.jpg",
    "turned\u202egpj.exe.jpg",
    "\x9b31m.jpg",
    "tab\t.jpg",
    "'; DROP TABLE verdict; --.jpg",
    "{braces}%s%d.jpg",
)


class Site:
    """An installation whose commands run as processes.

    Attributes:
        folder: where they run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it never ends in a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            env=os.environ
            | {"COLUMNS": "200"}
            | {f"FACESIEVE_{name.upper()}": value for name, value in environment.items()},
            cwd=self.folder,
            capture_output=True,
            timeout=120,
            check=False,
        )
        # Not text=True: that would turn a carriage return into a line break.
        text = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in text.stdout + text.stderr
        return text

    def ok(self, *words: object, **environment: str) -> str:
        """Return the output of a command that must succeed."""
        done = self.run(*words, **environment)
        assert done.returncode == 0, done.stderr
        assert all(line.startswith("note: ") for line in done.stderr.splitlines())
        return done.stdout

    def error(self, code: int, *words: object, **environment: str) -> str:
        """Return the one line that a command prints when it ends with this code."""
        done = self.run(*words, **environment)
        assert done.returncode == code, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line
