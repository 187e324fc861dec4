"""``worker``: score the images of queued jobs."""

import ctypes
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from core.cli import JsonOption, console, new_app, print_json, printable, read_settings, run
from core.errors import DatabaseError, FacesieveError, UsageError, WorkerError

app = new_app("Score the images of queued jobs, with processes that are pinned to a GPU each, or share the CPU.")

ModelOption = Annotated[str | None, typer.Option(help="Name or folder of the model artifact.")]
EngineOption = Annotated[str, typer.Option(help="auto, openvino (CPU) or tensorflow.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, int8 (see `model quantise`), bf16 or float32.")]
SlotsOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that share each GPU, or the CPU; 2, or more on a large CPU.")
]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command()
def start(
    gpus: Annotated[str, typer.Option(help="auto, all, none, or a list such as 0,1.")] = "auto",
    slots: SlotsOption = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a forward pass.")] = None,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    model: ModelOption = None,
    with_parent: Annotated[int | None, typer.Option(hidden=True, help="Stop when this parent dies.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what Celery does, too.")] = False,
) -> None:
    """Start a worker; Ctrl+C or SIGTERM lets the running job finish, or hands it back.

    Examples:
        worker start

        worker start --gpus all --batch-size 256

        worker --broker redis://queue:6379/0 start --gpus none --slots 4
    """
    if with_parent:
        _stop_with(with_parent)
    _set_up_logging(verbose)
    from core.broker import open_broker
    from core.manifest import find_artifact
    from db.engine import open_engine
    from db.ledger import longest_job_seconds
    from db.store import Store
    from model.artifact import verify
    from model.predictor import check_engine
    from worker.app import node_name, run_node
    from worker.gpu import plan_slots, visible_gpus
    from worker.process import Plan, usable_cores

    settings = read_settings(model=model, batch_size=batch_size)
    artifact = find_artifact(settings.model, settings)
    manifest = verify(artifact)
    check_engine(engine, precision)
    devices = plan_slots(gpus, slots, visible_gpus(), cores=usable_cores())
    with open_broker(settings) as url:
        database = open_engine(settings)
        Store(database).register_model(manifest)
        longest = longest_job_seconds(database, manifest.name)
        database.dispose()  # connections must not be shared with the children
        plan = Plan(settings, artifact, engine, precision, tuple(devices), node_name(manifest.name))
        log = logging.getLogger("facesieve.worker")
        untrained = "" if manifest.trained else " (untrained: scores mean nothing)"
        log.info("worker %s: model %s%s, %d processes", plan.node, manifest.name, untrained, len(devices))
        try:
            run_node(plan, manifest.name, url, longest_job=longest)
        finally:
            with suppress(DatabaseError):  # then the next delivery counts a loss, no more
                Store(database).release_jobs(plan.node)
        log.info("worker %s stopped", plan.node)


@app.command()
def check(
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try all that a worker needs: model, engine, GPU, broker, database. Exits with 1 if something is wrong.

    Example:
        worker check --model untrained
    """
    from worker.check import check as run_checks

    findings = run_checks(read_settings(model=model), engine, precision)
    if as_json:
        print_json([{"name": found.name, "ok": found.is_ok, "detail": found.detail} for found in findings])
    else:
        for found in findings:
            console().print(
                f"{'ok  ' if found.is_ok else 'FAIL'} {found.name}: {printable(found.detail)}", markup=False
            )
    if not all(found.is_ok for found in findings):
        raise FacesieveError("this machine is not ready to work")


@app.command()
def flower(
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5555,
    basic_auth: Annotated[str | None, typer.Option(help="USER:PASSWORD", envvar="FLOWER_BASIC_AUTH")] = None,
) -> None:
    """Start Flower, the monitor of Celery, on the right broker. It counts jobs; `producer status` counts images.

    Example:
        worker flower --port 5555
    """
    try:
        import flower as _flower  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("Flower is not installed: pip install 'facesieve[ops]'") from error
    if address not in LOOPBACK and not basic_auth:
        raise UsageError(f"--address {address} is open to others: give --basic-auth USER:PASSWORD")
    from core.broker import make_app, open_broker

    settings = read_settings()
    with open_broker(settings) as url:
        arguments = ["flower", f"--address={address}", f"--port={port}", "--logging=error"]
        console().print(f"Flower listens on http://{address}:{port}", markup=False)
        make_app(url).start([*arguments, *([f"--basic-auth={basic_auth}"] if basic_auth else [])])


def main() -> None:
    """Entry point of the console script."""
    run(app)


def _stop_with(parent: int) -> None:
    """Get SIGTERM when the parent dies, however it dies. Celery's own way would be SIGKILL, whatever one asks for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before that
        raise WorkerError(f"the command that started this worker, process {parent}, is gone")


def _set_up_logging(verbose: bool) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=level)
    logging.getLogger("facesieve").setLevel(logging.INFO)
    if not verbose:
        logging.getLogger("celery.app.trace").setLevel(logging.ERROR)  # our tasks say why they reject a message
