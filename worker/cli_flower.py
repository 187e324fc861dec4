"""``worker flower``: Flower, the monitor of Celery, behind its password."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from core.cli import console, read_settings
from core.errors import SettingsError, UsageError, WorkerError

app = typer.Typer()

CREDENTIALS = "FLOWER_BASIC_AUTH"  # Flower's own variable
OPTIONS = (
    "--logging=error",
    # Flower would run a flowerconfig.py of the working directory, whoever wrote it.
    f"--conf={os.devnull}",
    # A task that is revoked here would be pending in the ledger for ever (`producer cancel` cancels jobs), and a pool
    # that is made larger here would share GPUs otherwise than was asked for.
    "--read-only",
    "--tasks-columns=name,args,state,received,started,runtime,worker,uuid",
    "--max-tasks=10000",  # each is a job of hundreds of images; Flower's own limit takes some hundred MB
    # A worker that starts anew has a new name: the old ones would stay for ever, in the page and in the metrics.
    "--purge-offline-workers=3600",
    "--task-runtime-metric-buckets=0.25,0.5,1,2.5,5,10,25,60,180,600",  # seconds that jobs take, not requests
)


@app.command()
def flower(
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5555,
    auth_file: Annotated[
        Path | None,
        typer.Option(envvar=f"{CREDENTIALS}_FILE", help=f"File with USER:PASSWORD; else {CREDENTIALS} is taken."),
    ] = None,
) -> None:
    """Start Flower, the monitor of Celery, on the right broker. It counts jobs; `producer status` counts images.

    Examples:
        worker flower --port 5555

        worker flower --address 0.0.0.0 --auth-file flower.auth
    """
    try:
        from flower.options import options
    except ModuleNotFoundError as error:
        raise UsageError("Flower is not installed: pip install 'facesieve[ops]'") from error
    credentials = read_credentials(auth_file)
    if not credentials and not _is_loopback(address):
        raise UsageError(
            f"--address {address} is open to others: put USER:PASSWORD into a file and give --auth-file, "
            f"or set {CREDENTIALS}"
        )
    from core.broker import make_app, open_broker

    # Not as an argument, which others could see, nor left to Flower, which would cut a password at its first comma.
    options.basic_auth = credentials
    for name in (CREDENTIALS, "FLOWER_PORT"):  # Kubernetes sets the latter for a service of that name, to an URL
        os.environ.pop(name, None)
    with open_broker(read_settings()) as url:
        console().print(f"Flower listens on http://{address}:{port}", markup=False)
        try:
            make_app(url).start(["flower", f"--address={address}", f"--port={port}", *OPTIONS])
        except OSError as error:
            raise WorkerError(f"Flower cannot listen on {address}:{port}: {error.strerror}") from error


def read_credentials(file: Path | None) -> list[str]:
    """Return each USER:PASSWORD of a file, one a line, or the one of the environment; none if there is neither.

    Raises:
        UsageError: the file cannot be read, is empty, or a line of it is nothing of the kind.
        SettingsError: the variable is nothing of the kind.
    """
    if file is None:
        found = os.environ.get(CREDENTIALS, "")
        if found and not _is_credential(found):
            raise SettingsError(f"{CREDENTIALS} must be USER:PASSWORD, of visible ASCII characters")
        return [found] if found else []
    try:
        lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--auth-file {file} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from error
    if not lines or not all(map(_is_credential, lines)):  # what is in it is not shown
        raise UsageError(f"--auth-file {file} must hold USER:PASSWORD, of visible ASCII characters")
    return lines


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:  # a name, or nothing, with which Flower would listen everywhere
        return address == "localhost"


def _is_credential(text: str) -> bool:
    user, _, password = text.partition(":")
    return bool(user and password) and text.isascii() and text.isprintable()  # Flower fails at what is not ASCII
