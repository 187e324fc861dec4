"""What it costs that pictures are in a bucket behind a network, and how a million objects are listed.

    python benchmarks/bench_sources.py [--images 4096] [--side 256] [--delay-ms 30] [--objects 1_000_000]

- `producer run`: the same pictures from a local folder and from S3, which answers each request after 30 ms, by turns.
  The rate is the ledger's, from the start of the first job to the end of the last; `share_of_local` is the rate from S3
  by that from the folder. `off_by` is the largest difference of a picture's score.
- `list`: listing alone, of objects that are made up, in a process of its own; an answer has a thousand of them.
- `producer enqueue`: the command as a user runs it on those objects, with SQLite and a real Valkey, whose queue nobody
  empties. `first_job_s` are the seconds from the start of the command to its first message in Valkey.

`peak_mb` is the most memory that the producer had. The S3 is `small_s3.py`, in a process on the same cores;
`server_cpu_us` are microseconds of its processor time for an image or object, which a server elsewhere would not take
from the worker.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab
from contenders import Task
from contenders.apart import run_apart

from core.broker import connect, queue_name
from core.embedded import EmbeddedBroker
from core.settings import PREFIX

FOLDER = Path(__file__).parent
MODEL = "made-up"
COLUMNS = ("images_per_second", "share_of_local", "first_job_s", "peak_mb", "server_cpu_us", "off_by")

#: Measurements by column, of what was done with so many images.
Found = defaultdict[tuple[str, int], defaultdict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Server:
    """The S3 that runs.

    Attributes:
        process: its id.
    """

    process: int

    @property
    def cpu_seconds(self) -> float:
        """What it has used so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write; with the options of the command line if no others are given."""
    options = _options(words)
    found: Found = defaultdict(lambda: defaultdict(list))
    with lab.scratch() as folder:
        lab.write_pictures(folder / "pictures", options.images, options.side)
        (folder / "cache").mkdir()
        task = Task(folder / "pictures", options.images, options.artifact.resolve(), folder / "cache")
        run_apart("producer_run", Task(task.folder, 1, task.artifact, task.cache), {})  # converts the network
        with _server(task.folder, options) as server:
            for _ in range(options.rounds):
                _run(found, task, server)
            for number in range(options.rounds):
                _list(found, options.objects, server)
                _enqueue(found, folder / str(number), options.objects, server)
    rows = [{"what": what, "images": images} | lab.medians(taken, COLUMNS) for (what, images), taken in found.items()]
    facts = {"rounds": options.rounds, "delay_ms": options.delay_ms, "side": options.side}
    lab.publish(
        "bench_sources", options.out, rows, ["obstore", "celery", "openvino"], model=task.artifact.name, **facts
    )


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    made = lab.parser(__doc__)
    made.add_argument("--images", type=int, default=4096, help="pictures")
    made.add_argument("--side", type=int, default=256, help="of pictures, in pixels")
    made.add_argument("--delay-ms", type=float, default=30.0, help="before each answer of the S3")
    made.add_argument("--objects", type=int, default=1_000_000, help="made-up objects that are listed")
    artifact = lab.ROOT / "model" / "artifacts" / "face-resnet"
    made.add_argument("--artifact", type=Path, default=artifact, help="folder of the model")
    return made.parse_args(words)


@contextmanager
def _server(pictures: Path, options: argparse.Namespace) -> Iterator[Server]:
    """Run the S3, and lead all processes that are started meanwhile to it."""
    words = [f"--delay-ms={options.delay_ms}", f"--made-up={options.objects}"]
    before = dict(os.environ)
    script = [sys.executable, str(FOLDER / "small_s3.py"), str(pictures), *words]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        os.environ |= {
            "AWS_ENDPOINT_URL": process.stdout.readline().strip(),
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
        }
        try:
            yield Server(process.pid)
        finally:
            os.environ.clear()
            os.environ.update(before)
            process.terminate()


def _run(found: Found, task: Task, server: Server) -> None:
    local = run_apart("producer_run", task, {})
    begin = server.cpu_seconds
    far = run_apart("producer_run", task, {"source": "s3://pictures"})
    used = server.cpu_seconds - begin
    for what, measured in (("producer run, a folder", local), ("producer run, S3", far)):
        columns = found[what, task.images]
        columns["images_per_second"].append(task.images / measured["seconds"])
        columns["peak_mb"].append(measured["facts"]["peak_mib"]["producer"] * 2**20 / 1e6)
    columns = found["producer run, S3", task.images]
    columns["share_of_local"].append(local["seconds"] / far["seconds"])
    columns["server_cpu_us"].append(used / task.images * 1e6)
    columns["off_by"].append(max(abs(a - b) for a, b in zip(local["scores"], far["scores"], strict=True)))


def _list(found: Found, objects: int, server: Server) -> None:
    words = [sys.executable, str(FOLDER / "enqueuing.py"), "--source", "s3://made-up"]
    begin = server.cpu_seconds
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=_environment())
    taken: dict[str, Any] = json.loads(done.stdout)
    if taken["listed"] != objects:
        raise RuntimeError(f"{taken['listed']} objects were listed, not {objects}")
    columns = found["list", objects]
    columns["images_per_second"].append(objects / taken["seconds"])
    columns["server_cpu_us"].append((server.cpu_seconds - begin) / objects * 1e6)
    columns["peak_mb"] += [] if taken["peak_mb"] is None else [taken["peak_mb"]]


def _enqueue(found: Found, folder: Path, objects: int, server: Server) -> None:
    columns = found["producer enqueue", objects]
    begin = server.cpu_seconds
    with EmbeddedBroker(folder / "broker") as broker, connect(broker.url) as client:
        words = [sys.executable, "-m", "producer", "--broker", broker.url, "enqueue", "s3://made-up", "--json"]
        settings = {"DATA_DIR": str(folder), "MODEL": MODEL, "MAX_QUEUED_IMAGES": str(10**12)}
        environment = _environment() | {f"{PREFIX}{name}": value for name, value in settings.items()}
        started = time.perf_counter()
        with subprocess.Popen(words, cwd=lab.ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
            while not client.exists(queue_name(MODEL)) and process.poll() is None:
                time.sleep(0.01)
            columns["first_job_s"].append(time.perf_counter() - started)
            peak = _watch_peak(process)
        if process.returncode:
            raise RuntimeError(f"producer enqueue ended with {process.returncode}")
        columns["images_per_second"].append(objects / (time.perf_counter() - started))
    columns["server_cpu_us"].append((server.cpu_seconds - begin) / objects * 1e6)
    columns["peak_mb"].append(peak)


def _watch_peak(process: "subprocess.Popen[bytes]") -> float:
    """Wait for the end of a process and return the most memory it had."""
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    return peak / 1000


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | {
        "PYTHONPATH": str(lab.ROOT)
    }


if __name__ == "__main__":
    main()
