"""``db metrics``."""

import threading
from functools import partial
from typing import Annotated

import typer

from core.cli import clients_may_hang_up, notice, read_settings
from core.errors import UsageError

app = typer.Typer()


@app.command()
def metrics(
    address: Annotated[str, typer.Option(help="Listen here; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 means a free one.")] = 9108,
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve metrics for Prometheus: images by outcome, backlog, age of the queue, times of jobs, throughput.

    They are read from the ledger when they are asked for, so one exporter tells of all producers and workers, wherever
    they run. They hold no names of images. While the database is away, facesieve_up is 0. Ctrl+C ends it.

    Examples:
        db metrics

        db metrics --address 0.0.0.0 --port 9108

        db metrics --once | grep facesieve_images_pending
    """
    from db.engine import make_engine, open_engine

    try:
        from db.exporter import LedgerCollector, exposition, serve
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'facesieve[ops]'") from error
    from db.metrics import LedgerReader

    settings = read_settings()
    if once:
        print(exposition(LedgerReader(open_engine(settings)).read()), end="")
        return
    make_engine(settings).dispose()  # a URL that is wrong will not mend itself, as a database that is away may
    with clients_may_hang_up():
        server = serve(LedgerCollector(partial(open_engine, settings), notice), address, port)
        host = f"[{address}]" if ":" in address else address
        notice(f"note: metrics are at http://{host}:{server.server_port}/metrics; Ctrl+C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.shutdown()
