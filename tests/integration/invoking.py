"""``db`` within this process, on the test's own engine: many commands in little time."""

import json
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from core.errors import FacesieveError
from db.cli import app


class Db:
    """The command line of ``db``.

    Attributes:
        engine: of its database.
        notes: what the last command said on stderr, line by line.
    """

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("db.engine.open_engine", lambda settings: engine)
        self.engine = engine
        self._runner = CliRunner(env={"COLUMNS": "200"})
        self.notes: list[str] = []

    def run(self, *words: object, typed: str | bytes | None = None) -> Result:
        """Run a command to its end, with this on its standard input."""
        done = self._runner.invoke(app, [*map(str, words)], input=typed)
        if done.exception and not isinstance(done.exception, FacesieveError | SystemExit):
            raise done.exception
        self.notes = done.stderr.splitlines()
        return done

    def ok(self, *words: object, typed: str | bytes | None = None) -> str:
        """Return the output of a command that must succeed."""
        done = self.run(*words, typed=typed)
        assert done.exit_code == 0, done.exception or done.stderr
        return done.stdout

    def read(self, *words: object) -> Any:
        """Return the one JSON document that a command prints."""
        return json.loads(self.ok(words[0], "--json", *words[1:]))

    def error(self, code: int, *words: object, typed: str | bytes | None = None) -> str:
        """Return what a command says is wrong when it ends with this code."""
        done = self.run(*words, typed=typed)
        assert isinstance(done.exception, FacesieveError), done.output
        assert done.exception.exit_code == code
        return str(done.exception)
