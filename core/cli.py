"""What the four command lines share: global options, errors as one line, tables and plain text."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import FacesieveError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    from core.settings import Settings


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


#: Given before the command; they win over the environment.
_overrides: dict[str, Any] = {}


def new_app(help_text: str) -> typer.Typer:
    """Return a command line in the house style, with the options that all four have in common."""
    app = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common_options)
    return app


def _common_options(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the embedded broker, the database and the models.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="sqlite:///FILE or postgresql+psycopg://... Others see it: no passwords, see SECURITY.md."),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(help="redis://..., rediss://... or 'embedded'. Others see it, too.")
    ] = None,
) -> None:
    _overrides.update(data_dir=data_dir, database_url=database, broker_url=broker)


def run(app: typer.Typer) -> None:
    """Run a command line; a mistake of the user is one line on stderr and the exit code of its kind."""
    # SIGTERM ends a command as Ctrl+C does: in order, with the embedded broker and local worker stopped. typer makes
    # it exit code 130.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FacesieveError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)


@contextmanager
def clients_may_hang_up() -> Iterator[None]:
    """Serve others within the block: one that breaks off an answer does not end this command, as `| head` may."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def read_settings(**overrides: Any) -> "Settings":
    """Read the settings: a command's own option wins over a common one, and that over the environment."""
    from core.settings import load_settings

    return load_settings(**{**_overrides, **overrides})


def notice(text: str) -> None:
    """Print a line for people beside the results: on stderr."""
    print(printable(text), file=sys.stderr)


def console() -> "Console":
    """Return a console for standard output. Lines are never broken: a terminal wraps them, a pipe wants them whole."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 10_000)


def printable(text: str) -> str:
    """Return text that cannot move the cursor, change colours or break a line: control characters are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cell(text: str) -> "Text":
    """Return any text as a cell of a table: its markup means nothing, and it is folded rather than cut."""
    from rich.text import Text

    return Text(printable(text), overflow="fold")


def print_json(value: object) -> None:
    """Print one JSON document on a line of its own."""
    import json

    print(json.dumps(value, default=str))


def image_bar(target: "Console", *, is_quiet: bool = False) -> "Progress":
    """Return a progress bar of images, for tasks with the field ``rate``; it is only ever shown on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=target,
        disable=is_quiet or not target.is_terminal,
        transient=True,
    )
