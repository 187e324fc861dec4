"""``db review``."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.cli import JsonOption, clients_may_hang_up, console, notice, print_json, read_settings
from core.errors import UsageError
from db.cli_options import (
    LabelOption,
    MaxScoreOption,
    MinScoreOption,
    ModelOption,
    PathOption,
    ScanOption,
    read_filter,
)

if TYPE_CHECKING:
    from core.settings import Settings
    from db.review import Session

app = typer.Typer()

_LONGEST_NAME = 64  # the column's


@app.command()
def review(
    label: LabelOption = None,
    min_score: MinScoreOption = None,
    max_score: MaxScoreOption = None,
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    order: Annotated[
        Literal["uncertain", "score", "-score", "random"],
        typer.Option(help="uncertain: nearest to the middle of the thresholds first."),
    ] = "uncertain",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many images.")] = 1000,
    again: Annotated[bool, typer.Option("--again", help="Also images that have a review.")] = False,
    reviewer: Annotated[
        str | None, typer.Option(help="Who reviews: stands beside each label.", show_default="the user's name")
    ] = None,
    address: Annotated[str, typer.Option(help="Listen here; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 means a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Go through images in a browser, with the keyboard, and say of each whether it is real or generated.

    Each label is a row with the reviewer's name, the time and a note; of several, an image's newest one counts.
    Ctrl+C ends it.

    Examples:
        db review

        db review --label unsure --model face-efficientnet --reviewer ann

        db review --min-score 0.3 --max-score 0.7 --order random --limit 200 --json
    """
    from db.engine import open_engine
    from db.review import Session, choose_images

    wanted = read_filter(label, None, min_score, max_score, path, scan, model)
    name = _reviewer_name(reviewer)
    settings = read_settings()
    engine = open_engine(settings)
    session = Session(engine, choose_images(engine, wanted, order=order, limit=limit, again=again), name, again=again)
    if session.total:
        _serve(session, settings, address=address, port=port, is_browser_wanted=not no_browser)
    else:
        notice("there is nothing to review" + ("" if again else ": images that have a review come with --again"))
    labels = session.labels()
    if as_json:
        print_json({"reviewer": name, "images": session.total, "reviewed": sum(labels.values()), "labels": labels})
    else:
        counts = ", ".join(f"{number} {label}" for label, number in labels.items())
        console().print(f"{sum(labels.values())} of {session.total} images reviewed: {counts}")


def _reviewer_name(given: str | None) -> str:
    import getpass

    try:
        name = (getpass.getuser() if given is None else given).strip()
    except (KeyError, OSError) as error:  # a user id without a name, as in some containers
        raise UsageError("this user has no name: say who reviews with --reviewer NAME") from error
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(f"--reviewer {name!r:.80} is no name: use 1 to {_LONGEST_NAME} printable characters")
    return name


def _serve(session: "Session", settings: "Settings", *, address: str, port: int, is_browser_wanted: bool) -> None:
    try:
        from db.review_server import ReviewServer
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'facesieve[answers]'") from error
    server = ReviewServer(session, settings, address=address, port=port)
    if not server.is_loopback:
        notice(
            f"note: other machines can reach {address}, and nothing is encrypted: whoever reads the network sees "
            "the images and the token"
        )
    notice(f"note: {session.total} images to review; Ctrl+C ends it. Open {server.url}")
    # Without a display, it would be a browser in the terminal.
    has_display = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if is_browser_wanted and has_display and _is_terminal():
        import webbrowser

        webbrowser.open(server.url)
    with clients_may_hang_up():
        server.run()


def _is_terminal() -> bool:
    return sys.stdout.isatty()
