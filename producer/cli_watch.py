"""``producer watch``."""

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import JsonOption, console, notice, print_json, read_settings
from producer.options import (
    ExcludeOption,
    Faces,
    FacesOption,
    IncludeOption,
    JobSizeOption,
    MaxSizeOption,
    MinSizeOption,
    ModelOption,
    SampleOption,
    read_selection,
)

if TYPE_CHECKING:
    from producer.watching import Watch

app = typer.Typer()

MOST_SECONDS = 7 * 86_400.0


@app.command()
def watch(
    sources: Annotated[list[str], typer.Argument(help="Folders, and s3:// gs:// az://.", metavar="SOURCE...")],
    settle: Annotated[
        float, typer.Option(min=0, max=MOST_SECONDS, help="Seconds that a file must not have changed for.")
    ] = 2.0,
    max_wait: Annotated[
        float, typer.Option(min=0, max=MOST_SECONDS, help="Seconds that an image waits for others to fill its job.")
    ] = 5.0,
    interval: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=MOST_SECONDS,
            help="Seconds between full listings; 600 for folders and 60 for buckets if not given.",
        ),
    ] = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    sample: SampleOption = None,
    job_size: JobSizeOption = None,
    faces: FacesOption = Faces.OFF,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue the images of folders and buckets as they appear, until stopped.

    Nothing is scored here: workers must run (`worker start`).

    A file is queued once its size and time have not changed for --settle seconds, and again whenever it changes.

    A full listing now and then finds what the system did not report, as on network file systems.

    Ctrl+C and SIGTERM are how a watch ends: it queues what is complete, sums up, and exits with 0.

    The same command goes on where it stopped.

    Examples:
        producer watch /data/incoming

        producer watch s3://faces/incoming/ --interval 300

        producer watch ./drop --include '*.jpg' --settle 10 --json
    """
    from producer.session import find_target, open_session
    from producer.watch_progress import WatchProgress
    from producer.watching import Pace, Watch

    settings = read_settings(model=model, job_size=job_size)
    selection = read_selection(include=include, exclude=exclude, min_size=min_size, max_size=max_size, sample=sample)
    with open_session(settings) as session:
        target = find_target(settings, session.engine, skip="all", faces=faces is Faces.DETECT)
        if target.model_id is None:
            notice(f"note: no worker has registered model {target.name} yet, and it is not on this machine")
        pace = Pace(settle, max_wait, interval)
        watching = Watch(session, sources, target, selection=selection, pace=pace, say=notice)
        _stop_on_signals(watching)
        try:
            with WatchProgress(console(), is_quiet=as_json) as progress:
                watching.run(progress.show)
        finally:
            _print_summary(watching, as_json=as_json)


def _stop_on_signals(watching: "Watch") -> None:
    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)  # a second one does not wait for anything
        watching.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _print_summary(watching: "Watch", *, as_json: bool) -> None:
    from producer.summary import print_unlistable

    tally = watching.tally
    seen = tally.skipped + tally.sent + watching.unsent
    summary: dict[str, Any] = {
        "scan": tally.scan_id, "seen": seen, "skipped": tally.skipped, "sent": tally.sent,
        "unsent": watching.unsent, "vanished": watching.settling.vanished, "ignored": tally.ignored,
        "unlistable": tally.unlistable,
    }  # fmt: skip
    if as_json:
        print_json(summary)
        return
    print_unlistable(console(), tally)
    rest = f"; {watching.unsent:,} found but not queued: watch again" if watching.unsent else ""
    console().print(
        f"scan {tally.scan_id}: {seen:,} images seen, {tally.skipped:,} already scored, {tally.sent:,} queued{rest}"
    )
