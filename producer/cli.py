"""``producer``: put images into the queue and see what becomes of them."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import JsonOption, console, new_app, notice, print_json, read_settings, run
from core.errors import FacesieveError
from producer import cli_watch
from producer.options import (
    ColumnOption,
    ExcludeOption,
    Faces,
    FacesOption,
    ForceOption,
    IncludeOption,
    JobSizeOption,
    LimitOption,
    MaxSizeOption,
    MinSizeOption,
    ModelOption,
    NewerOption,
    OlderOption,
    RetryFailuresOption,
    SampleOption,
    ShardsOption,
    ShuffleOption,
    Sources,
    read_selection,
)

if TYPE_CHECKING:
    from producer.enqueue import Tally, Target
    from producer.scan import Scan
    from producer.session import Session

app = new_app("Put images into the queue, and see what becomes of them.")

WATCH_SECONDS = 1.0
ScanArgument = Annotated[int | None, typer.Argument(help="Number of the scan; the latest if left out.")]


@app.command()
def enqueue(
    sources: Sources,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    column: ColumnOption = None,
    shards: ShardsOption = False,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    newer_than: NewerOption = None,
    older_than: OlderOption = None,
    sample: SampleOption = None,
    limit: LimitOption = None,
    shuffle_jobs: ShuffleOption = False,
    job_size: JobSizeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be sent.")] = False,
    force: ForceOption = False,
    retry_failures: RetryFailuresOption = False,
    faces: FacesOption = Faces.OFF,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until workers have scored everything.")] = False,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """List images and queue those that have no verdict yet; workers do the rest.

    Examples:
        producer enqueue /data/faces

        producer enqueue /data/faces --include '*.png' --exclude 'thumbs/*' --dry-run

        producer enqueue s3://faces/list.parquet --column url --sample 0.01

        find /data -name '*.jpg' -newer mark | producer enqueue -

        producer --broker redis://queue:6379/0 enqueue /data/faces --wait
    """
    from producer.progress import ScanProgress
    from producer.scan import Scan
    from producer.session import find_target, open_session
    from producer.summary import print_tally
    from producer.waiting import Waiter

    settings = read_settings(model=model, job_size=job_size)
    selection = read_selection(
        include=include, exclude=exclude, min_size=min_size, max_size=max_size,
        newer_than=newer_than, older_than=older_than, sample=sample,
    )  # fmt: skip
    scan = Scan(sources, selection, column=column, has_shards=shards, limit=limit)
    with open_session(settings) as session:
        skip = _skip(force, retry_failures)
        target = find_target(settings, session.engine, skip=skip, faces=faces is Faces.DETECT)
        if target.model_id is None:
            notice(f"note: no worker has registered model {target.name} yet, and it is not on this machine")
        if dry_run:
            _dry_run(session, scan, target, as_json)
            return
        tally = session.enqueuer.start(sources, target)
        with ScanProgress(session.engine, console(), is_quiet=as_json) as progress:
            session.enqueuer.enqueue(scan, target, tally, progress.show, is_shuffled=shuffle_jobs)
            if wait:
                Waiter(session, tally, target.name).wait(progress.show)
        print_tally(console(), tally, as_json=as_json)
        if wait:
            _raise_if_jobs_failed(session, tally)


@app.command("run")
def run_command(
    sources: Sources,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    column: ColumnOption = None,
    shards: ShardsOption = False,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    newer_than: NewerOption = None,
    older_than: OlderOption = None,
    sample: SampleOption = None,
    limit: LimitOption = None,
    shuffle_jobs: ShuffleOption = False,
    job_size: JobSizeOption = None,
    force: ForceOption = False,
    retry_failures: RetryFailuresOption = False,
    faces: FacesOption = Faces.OFF,
    model: ModelOption = None,
    gpus: Annotated[str, typer.Option(help="auto, all, none, or a list such as 0,1.")] = "auto",
    slots: Annotated[int | None, typer.Option(min=1, help="Processes that share each GPU, or the CPU.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a forward pass.")] = None,
    engine: Annotated[str, typer.Option(help="auto, openvino (CPU) or tensorflow.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, int8 (see `model quantise`), bf16 or float32.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score images on this machine: start what is not running, wait, sum up, and leave nothing running.

    Ctrl+C cancels what is left of the scan; the same command goes on where it stopped.

    Examples:
        producer run ./faces

        producer run ./faces ./more --limit 1000 --json

        producer run ./group-photos --faces detect
    """
    from core.manifest import find_artifact
    from producer.local import LocalWorker
    from producer.progress import ScanProgress
    from producer.scan import Scan
    from producer.session import find_target, open_session
    from producer.summary import print_summary, print_unlistable, summarise
    from producer.waiting import Waiter

    settings = read_settings(model=model, job_size=job_size, batch_size=batch_size)
    selection = read_selection(
        include=include, exclude=exclude, min_size=min_size, max_size=max_size,
        newer_than=newer_than, older_than=older_than, sample=sample,
    )  # fmt: skip
    scan = Scan(sources, selection, column=column, has_shards=shards, limit=limit)
    options = [f"--gpus={gpus}", f"--engine={engine}", f"--precision={precision}"]
    options += [f"--slots={slots}"] if slots else []
    find_artifact(settings.model, settings)  # this machine does the work: better say now that it cannot
    with open_session(settings) as session:
        skip = _skip(force, retry_failures)
        target = find_target(settings, session.engine, skip=skip, faces=faces is Faces.DETECT)
        tally = session.enqueuer.start(sources, target)
        progress = ScanProgress(session.engine, console(), is_quiet=as_json)
        with LocalWorker(session.app, settings, target.name, options) as worker, progress:

            def tick(tally: "Tally") -> None:
                if tally.sent:
                    worker.ensure()
                progress.show(tally)

            try:
                session.enqueuer.enqueue(scan, target, tally, tick, is_shuffled=shuffle_jobs)
                Waiter(session, tally, target.name).wait(tick)
            except KeyboardInterrupt:
                session.enqueuer.cancel(tally.scan_id)
                notice(f"interrupted: scan {tally.scan_id} is cancelled; the same command goes on where it stopped")
                raise
        summary = summarise(session.engine, tally.scan_id, scan.prefixes)
        if as_json:
            print_json(summary)
        else:
            print_unlistable(console(), tally)
            print_summary(console(), summary)
        _raise_if_jobs_failed(session, tally)


@app.command()
def status(
    scan: ScanArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again until nothing is pending.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where the images of a scan are.

    Examples:
        producer status

        producer status 3 --watch
    """
    from db.engine import open_engine
    from db.ledger import latest_scan, read_ledger
    from producer.summary import print_ledger

    engine = open_engine(read_settings())
    scan_id = latest_scan(engine) if scan is None else scan
    ledger = read_ledger(engine, scan_id)
    while watch and not ledger.is_complete:
        print_ledger(console(), ledger, as_json=as_json)
        time.sleep(WATCH_SECONDS)
        ledger = read_ledger(engine, scan_id)
    print_ledger(console(), ledger, as_json=as_json)


@app.command()
def retry(scan: ScanArgument = None) -> None:
    """Send again the jobs of a scan that failed, or that the broker has lost.

    Images that failed by themselves are another matter: see `producer enqueue --retry-failures`.

    Example:
        producer retry 3
    """
    from db.ledger import latest_scan, read_ledger
    from producer.progress import ScanProgress
    from producer.session import open_session

    with open_session(read_settings()) as session:
        scan_id = latest_scan(session.engine) if scan is None else scan
        model = read_ledger(session.engine, scan_id).model
        with ScanProgress(session.engine, console()) as progress:
            sizes = [len(job.images) for job in session.enqueuer.retry(scan_id, model, progress.show)]
        console().print(f"scan {scan_id}: {len(sizes)} jobs with {sum(sizes)} images sent again")


@app.command()
def cancel(scan: Annotated[int, typer.Argument(help="Number of the scan.")]) -> None:
    """Drop the jobs of a scan that no worker has begun, and stop its listing.

    Example:
        producer cancel 3
    """
    from db.engine import open_engine
    from db.ledger import read_ledger
    from db.store import Store

    engine = open_engine(read_settings())
    read_ledger(engine, scan)  # raises if there is no such scan
    console().print(f"scan {scan}: {Store(engine).cancel_scan(scan)} jobs cancelled")


app.add_typer(cli_watch.app)


def _skip(force: bool, retry_failures: bool) -> str:
    return "none" if force else "ok" if retry_failures else "all"


def _dry_run(session: "Session", scan: "Scan", target: "Target", as_json: bool) -> None:
    from producer.enqueue import select_images

    listed = wanted = size = 0
    for number, images in select_images(session.engine, scan, target):
        listed += number
        wanted += len(images)
        size += sum(ref.size_bytes for ref in images)
    if as_json:
        print_json({"listed": listed, "skipped": listed - wanted, "to_send": wanted, "bytes": size})
    else:
        console().print(
            f"{listed:,} images listed, {listed - wanted:,} already scored or listed twice, {wanted:,} to send "
            f"({size / 1e6:,.1f} MB), {scan.ignored:,} files passed over; nothing was sent"
        )


def _raise_if_jobs_failed(session: "Session", tally: "Tally") -> None:
    from db.ledger import read_ledger

    ledger = read_ledger(session.engine, tally.scan_id)
    if ledger.undelivered:
        reasons = "; ".join(ledger.errors)
        raise FacesieveError(
            f"{ledger.undelivered} images are in failed jobs ({reasons:.300}): "
            f"`producer retry {tally.scan_id}` sends them again"
        )


def main() -> None:
    """Entry point of the console script."""
    run(app)
