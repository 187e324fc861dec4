"""The faults: what each one does to a scene, how it is undone, and which settings it suits."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.e2e.conftest import children_of

if TYPE_CHECKING:
    from tests.faults.scene import Scene

Heal = Callable[[], None]
Inject = Callable[["Scene", Random], Heal | None]


@dataclass(frozen=True, slots=True)
class Setting:
    """The servers and workers of a run.

    Attributes:
        broker: ``redis``, a Valkey server behind a proxy, or ``embedded``.
        database: ``sqlite``, on a small disk of its own, or ``postgresql``, behind a proxy.
        nodes: workers.
        slots: processes of each.
        engine: ``simulated``, or ``tiny``: a real network, run by OpenVINO, and a slow decoder.
    """

    broker: str
    database: str
    nodes: int
    slots: int
    engine: str = "simulated"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: as it stands in tables.
        inject: does it, and returns what undoes it; None if there is nothing to undo.
        lasts: least and most seconds until it is undone.
        broker: that it needs; empty if any will do.
        database: likewise.
        needs: what the machine must allow: ``disk`` (mounting one), ``clock`` (a C compiler); empty if nothing.
    """

    name: str
    inject: Inject
    lasts: tuple[float, float]
    broker: str
    database: str
    needs: str

    def suits(self, setting: Setting, means: frozenset[str]) -> bool:
        """Tell whether it can be done to such servers, on such a machine."""
        return self.fit(setting) == setting and (not self.needs or self.needs in means)

    def fit(self, setting: Setting) -> Setting:
        """Return the setting with the servers that it needs."""
        return replace(setting, broker=self.broker or setting.broker, database=self.database or setting.database)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    lasts: tuple[float, float] = (0.0, 0.0),
    *,
    broker: str = "",
    database: str = "",
    needs: str = "",
) -> Callable[[Inject], Inject]:
    """Enter a function into the catalogue."""

    def enter(inject: Inject) -> Inject:
        FAULTS[name] = Fault(name, inject, lasts, broker, database, needs)
        return inject

    return enter


# --- processes ---------------------------------------------------------------------------------------------------


@fault("child killed (SIGKILL)")
def kill_child(scene: "Scene", chance: Random) -> None:
    _signal_child(scene, chance, signal.SIGKILL)


@fault("child terminated (SIGTERM)")
def terminate_child(scene: "Scene", chance: Random) -> None:
    _signal_child(scene, chance, signal.SIGTERM)


@fault("worker killed with its children (a lost host)")
def kill_host(scene: "Scene", chance: Random) -> None:
    worker = chance.choice(scene.workers)
    children = children_of(worker.pid) if worker.poll() is None else []
    worker.kill()
    for child in children:
        _kill(child, signal.SIGKILL)


@fault("worker's parent killed (SIGKILL)")
def kill_parent(scene: "Scene", chance: Random) -> None:
    chance.choice(scene.workers).kill()


@fault("worker stopped (SIGTERM)")
def stop_worker(scene: "Scene", chance: Random) -> None:
    scene.stop_in_order(chance.choice(scene.workers))


@fault("worker hangs (SIGSTOP)", (0.5, 4.0))
def freeze_worker(scene: "Scene", chance: Random) -> Heal:
    worker = chance.choice(scene.workers)
    frozen = [worker.pid, *(children_of(worker.pid) if worker.poll() is None else [])]
    for pid in frozen:
        _kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in reversed(frozen):
            _kill(pid, signal.SIGCONT)

    return thaw


@fault("producer killed (SIGKILL)")
def kill_producer(scene: "Scene", chance: Random) -> None:
    scene.producer.kill()


@fault("producer interrupted (SIGTERM)")
def terminate_producer(scene: "Scene", chance: Random) -> None:
    scene.producer.terminate()


@fault("out of memory: the kernel kills a child")
def kill_hungry(scene: "Scene", chance: Random) -> None:
    scene.hunger.write_text("kill")


@fault("out of memory: an allocation fails")
def starve(scene: "Scene", chance: Random) -> None:
    scene.hunger.write_text("error")


# --- broker ------------------------------------------------------------------------------------------------------


@fault("Valkey killed, started again", (0.2, 4.0), broker="redis")
def kill_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.valkey.kill()
    return scene.valkey.start


@fault("Valkey killed, started again without its data", (0.2, 4.0), broker="redis")
def wipe_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.valkey.kill(with_its_data=True)
    return scene.valkey.start


@fault("embedded Valkey killed", broker="embedded")
def kill_embedded(scene: "Scene", chance: Random) -> None:
    pid = scene.site.data_dir / "valkey" / "server.pid"
    if pid.exists() and scene.embedded_lives():
        _kill(int(pid.read_text()), signal.SIGKILL)


@fault("Valkey hangs (SIGSTOP)", (0.5, 8.0), broker="redis")
def freeze_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.valkey.signal(signal.SIGSTOP)
    return lambda: scene.valkey.signal(signal.SIGCONT)


@fault("connections to Valkey cut", broker="redis")
def cut_valkey(scene: "Scene", chance: Random) -> None:
    scene.broker_proxy.cut()


@fault("connections to Valkey refused", (0.5, 5.0), broker="redis")
def refuse_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.broker_proxy.refuse()
    return scene.broker_proxy.pass_on


@fault("nothing passes to or from Valkey", (0.5, 8.0), broker="redis")
def swallow_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.broker_proxy.swallow()
    return scene.broker_proxy.pass_on


@fault("connections to Valkey slow", (1.0, 5.0), broker="redis")
def delay_valkey(scene: "Scene", chance: Random) -> Heal:
    scene.broker_proxy.delay = chance.uniform(0.02, 0.3)
    return scene.broker_proxy.pass_on


# --- database ----------------------------------------------------------------------------------------------------


@fault("PostgreSQL crashed, started again", (0.2, 4.0), database="postgresql")
def crash_postgres(scene: "Scene", chance: Random) -> Heal:
    scene.postgres.stop("immediate")
    return scene.postgres.start


@fault("PostgreSQL restarted", (0.2, 2.0), database="postgresql")
def restart_postgres(scene: "Scene", chance: Random) -> Heal:
    scene.postgres.stop("fast")
    return scene.postgres.start


@fault("connections to PostgreSQL cut", database="postgresql")
def cut_postgres(scene: "Scene", chance: Random) -> None:
    scene.database_proxy.cut()


@fault("nothing passes to or from PostgreSQL", (0.5, 6.0), database="postgresql")
def swallow_postgres(scene: "Scene", chance: Random) -> Heal:
    scene.database_proxy.swallow()
    return scene.database_proxy.pass_on


@fault("connections to PostgreSQL slow", (1.0, 4.0), database="postgresql")
def delay_postgres(scene: "Scene", chance: Random) -> Heal:
    scene.database_proxy.delay = chance.uniform(0.01, 0.1)
    return scene.database_proxy.pass_on


@fault("SQLite locked by another process", (0.5, 8.0), database="sqlite")
def lock_sqlite(scene: "Scene", chance: Random) -> Heal | None:
    holder = sqlite3.connect(
        scene.site.settings.sql_url.removeprefix("sqlite:///"), timeout=5, isolation_level=None, check_same_thread=False
    )
    try:
        holder.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:  # its disk is full, or it is locked already
        holder.close()
        return None

    def release() -> None:
        holder.execute("ROLLBACK")
        holder.close()

    return release


@fault("disk full (database)", (0.5, 5.0), database="sqlite", needs="disk")
def fill_disk(scene: "Scene", chance: Random) -> Heal:
    return _fill(scene.disk)


@fault("disk full (queue)", (0.5, 5.0), broker="redis", needs="disk")
def fill_queue_disk(scene: "Scene", chance: Random) -> Heal:
    return _fill(scene.valkey.folder.parent)


# --- clock -------------------------------------------------------------------------------------------------------


@fault("clock steps forward", needs="clock")
def step_forward(scene: "Scene", chance: Random) -> None:
    scene.step_clock(chance.choice([5, 60, 3600, 86_400]))


@fault("clock steps back", needs="clock")
def step_back(scene: "Scene", chance: Random) -> None:
    scene.step_clock(-chance.choice([5, 60, 3600, 86_400]))


def _signal_child(scene: "Scene", chance: Random, number: int) -> None:
    worker = chance.choice(scene.workers)
    children = children_of(worker.pid) if worker.poll() is None else []
    if children:
        _kill(chance.choice(children), number)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _fill(folder: Path) -> Heal:
    """Leave no byte of a disk free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return lambda: ballast.unlink(missing_ok=True)
