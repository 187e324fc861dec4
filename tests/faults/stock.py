"""What runs share, made once: an artifact, a migrated database of each kind, the bytes of images, and a disk."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cv2
import numpy as np

from benchmarks.simulated import make_artifact
from core.settings import load_settings
from core.verdicts import Status
from db.engine import make_engine, upgrade
from model.predictor import load_predictor
from tests.faults.servers import Postgres
from tests.faults.worker import POISON
from tests.tiny import make_tiny_artifact

TINY = "tiny"
#: Room on the disk of a run, which a fault fills.
DISK_BYTES = 24 * 2**20


class Stock:
    """Templates, in a folder of their own.

    Attributes:
        data_dir: a data directory with artifacts of the engines and an SQLite database.
        means: what faults can be done here: ``disk`` (a small one can be mounted), ``clock`` (there is a C
            compiler), ``tiny`` (the network was made).
        clock: library whose clock can be stepped.
    """

    def __init__(self, folder: Path, *, has_network: bool = False) -> None:
        """Make them.

        Args:
            folder: is made.
            has_network: also make a real network; that takes TensorFlow, and half a minute.
        """
        self.data_dir = folder / "stock"
        settings = load_settings(data_dir=self.data_dir)
        make_artifact(settings)
        engine = make_engine(settings)
        upgrade(engine)
        engine.dispose()
        self.clock = folder / "clock.so"
        if has_network:
            make_tiny_artifact(settings)
            load_predictor(settings.models_dir / TINY, engine="openvino", cache=settings.cache_dir)
        means = {"disk": _can_mount(), "clock": _compile(self.clock), TINY: has_network}
        self.means = frozenset(name for name, has in means.items() if has)
        self._good, self._broken = _draw_images()

    def write_images(self, folder: Path, number: int, *, broken: int, poison: int, chance: Random) -> dict[str, Status]:
        """Write the images of a run and return the status that each must get, by its path."""
        folder.mkdir(parents=True)
        kinds = [None] * poison + list(range(broken))
        kinds = [*kinds, *[-1] * (number - len(kinds))]
        chance.shuffle(kinds)
        expected = {}
        for index, kind in enumerate(kinds):
            path = folder / f"{index:05d}.jpg"
            content, status = self._good[index % len(self._good)], Status.OK
            if kind is None:
                content, status = content + POISON, Status.CRASHED
            elif kind >= 0:
                content, status = self._broken[kind % len(self._broken)]
            path.write_bytes(content)
            expected[str(path)] = status
        return expected


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small disk on a folder, if that is allowed here."""
    folder.mkdir()
    is_mounted = _mount(folder)
    try:
        yield
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def new_database(postgres: Postgres) -> Iterator[str]:
    """Make a migrated database on a server, yield its name, and drop it."""
    name = postgres.make_database()
    try:
        yield name
    finally:
        postgres.drop_database(name)


def copy_stock(stock: Stock, data_dir: Path) -> None:
    """Make the data directory of a run."""
    shutil.copytree(stock.data_dir, data_dir)


def _draw_images() -> tuple[list[bytes], list[tuple[bytes, Status]]]:
    rng = np.random.default_rng(1)
    good = [cv2.imencode(".jpg", rng.integers(0, 256, (48, 48, 3), np.uint8))[1].tobytes() for _ in range(10)]
    broken = [
        (b"not an image at all\n", Status.UNSUPPORTED),
        (good[0][: len(good[0]) // 2], Status.TRUNCATED),
        (b"", Status.TRUNCATED),
    ]
    return good, broken


def _compile(library: Path) -> bool:
    if (compiler := shutil.which("cc")) is None:
        return False
    source = Path(__file__).with_name("clock.c")
    return subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=False).returncode == 0


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if not _mount(Path(folder)):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _mount(folder: Path) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
