"""``worker``: score the images of queued jobs."""

import ctypes
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Annotated

import typer

from core.cli import JsonOption, console, new_app, print_json, printable, read_settings, run
from core.errors import DatabaseError, FacesieveError, WorkerError
from core.logs import say, set_up
from worker import cli_flower

app = new_app("Score the images of queued jobs, with processes that are pinned to a GPU each, or share the CPU.")
app.add_typer(cli_flower.app)

ModelOption = Annotated[str | None, typer.Option(help="Name or folder of the model artifact.")]
EngineOption = Annotated[str, typer.Option(help="auto, openvino (CPU) or tensorflow.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, int8 (see `model quantise`), bf16 or float32.")]
SlotsOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that share each GPU, or the CPU; 2, or more on a large CPU.")
]


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
    from core.broker import open_broker
    from core.manifest import find_artifact
    from db.engine import open_engine
    from db.ledger import longest_job_seconds
    from db.store import Store
    from model.artifact import verify
    from model.predictor import check_engine
    from worker.app import node_name, run_node
    from worker.cores import usable_cores
    from worker.gpu import plan_slots, visible_gpus
    from worker.process import Plan

    settings = read_settings(model=model, batch_size=batch_size)
    _set_up_logging(settings.log, verbose)
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
        say("worker_started", worker=plan.node, model=manifest.name, trained=manifest.trained, children=len(devices))
        released = 0
        try:
            run_node(plan, manifest.name, url, longest_job=longest)
        finally:
            with suppress(DatabaseError):  # then the next delivery counts a loss, no more
                released = Store(database).release_jobs(plan.node)
            say("worker_stopped", worker=plan.node, released=released)


@app.command()
def check(
    engine: EngineOption = "auto",
    precision: PrecisionOption = "auto",
    model: ModelOption = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask instead whether the workers that run on this host are stuck.")
    ] = False,
    node: Annotated[str | None, typer.Option(help="With --live: one worker, by its name in Celery.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try all that a worker needs: model, engine, GPU, broker, database. Exits with 1 if something is wrong.

    With --live, look at the running workers of this data directory: in a moment, and without a connection.

    Examples:
        worker check --model untrained

        worker check --live
    """
    if live:
        _check_live(node, as_json)
        return
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


def _check_live(node: str | None, as_json: bool) -> None:
    from worker.alive import read_signs

    settings, now = read_settings(), time.monotonic()
    found = [(sign, sign.fault(now)) for sign in read_signs(settings, node)]
    if as_json:
        print_json([sign.ages(now) | {"fault": fault} for sign, fault in found])
    else:
        for sign, fault in found:
            line = printable(f"{sign.node}: {fault or sign.state}")
            console().print(f"{'FAIL' if fault else 'ok  '} {line}", markup=False)
    if not found:
        which = f"worker {node}" if node else "worker"
        raise FacesieveError(f"no {which} runs on this host with data directory {settings.data_dir}")
    if any(fault for _, fault in found):
        raise FacesieveError(f"{sum(bool(fault) for _, fault in found)} of {len(found)} workers are stuck")


def main() -> None:
    """Entry point of the console script."""
    run(app)


def _stop_with(parent: int) -> None:
    """Get SIGTERM when the parent dies, however it dies. Celery's own way would be SIGKILL, whatever one asks for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before that
        raise WorkerError(f"the command that started this worker, process {parent}, is gone")


def _set_up_logging(style: str, verbose: bool) -> None:
    set_up(style, is_verbose=verbose)
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)  # child_lost says it, and in the form asked for
    if not verbose:  # what these say is said by our own actions
        logging.getLogger("celery.app.trace").setLevel(logging.ERROR)
        for name in ("celery.worker.request", "celery.concurrency.asynpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
