"""Engines x precisions x batch sizes: images/s, start-up, memory, and how far scores are from the reference's.

Each line is one or more processes of their own that load the shipped model through `model.predictor`, as a worker does,
and score pictures that are decoded already, over and over: no queue, no decoding. Of two processes each has half the
cores, as a worker's children have. "start-up" is from the start of Python to the end of the warm-up, with the
conversion in the cache, by one process alone; "MiB" is the resident memory of one process at its end. int8 needs
`--data`: a labelled data set that `model quantise` takes its ranges from and is checked on; without it, or where the
check fails, the line says so.

    python benchmarks/bench_engine.py --data ./faces
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from lab import median, parser, publish, scratch, write_pictures

PICTURES = 128
PACKAGES = ("tensorflow", "keras", "openvino", "numpy")


def score(options: argparse.Namespace) -> None:
    """Be one of the processes: load, say so, wait for the word, score for some seconds, and print what was found."""
    from core.errors import FacesieveError
    from core.manifest import find_artifact
    from core.settings import load_settings
    from model.predictor import load_predictor
    from model.preprocess import decode

    settings = load_settings()
    folder = find_artifact(options.model, settings)
    try:
        predictor = load_predictor(
            folder,
            engine=options.engine,
            precision=options.precision,
            batch_size=options.batch_size,
            cache=settings.cache_dir,
            threads=options.threads,
        )
        predictor.warm_up()
    except FacesieveError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    ready = time.time() - options.started
    files = sorted(options.pictures.glob("*.jpg"))
    pixels = np.stack(
        [decode(file.read_bytes(), predictor.manifest.preprocess, max_pixels=10**7).pixels for file in files]
    )
    scores = predictor.predict(pixels)
    print(json.dumps({"ready": ready, "scores": scores.tolist()}), flush=True)
    while sys.stdin.readline():
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < options.seconds:
            predictor.predict(pixels)
            done += len(pixels)
        rate = done / (time.perf_counter() - begun)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"rate": rate, "memory": memory}), flush=True)


class Processes:
    """Some processes with one configuration, started one after the other, scoring together."""

    def __init__(self, options: argparse.Namespace, number: int, *, threads: int, **wanted: Any) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self.error = ""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in {**wanted, "threads": threads}.items()]
        words += [f"--model={options.model}", f"--pictures={options.pictures}", f"--seconds={options.seconds}"]
        for _ in range(number):
            command = [sys.executable, __file__, "--be-one", f"--started={time.time()}", *words]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._running.append(process)
            said = self._hear(process)
            if "error" in said:
                self.error = said["error"]
                break
            self.ready, self.scores = said["ready"], np.array(said["scores"])

    def measure(self) -> tuple[float, float]:
        """Return images/s of all of them together, and the memory of one in MiB."""
        for process in self._running:
            print(file=process.stdin, flush=True)
        said = [self._hear(process) for process in self._running]
        return sum(one["rate"] for one in said), said[0]["memory"]

    def close(self) -> None:
        """End them."""
        for process in self._running:
            process.communicate()

    @staticmethod
    def _hear(process: "subprocess.Popen[str]") -> dict[str, Any]:
        line = process.stdout.readline() if process.stdout else ""
        return dict(json.loads(line)) if line else {"error": "the process died"}


def measure(
    options: argparse.Namespace, reference: "np.ndarray[Any, Any]", number: int, **wanted: Any
) -> dict[str, Any]:
    """Return the row of one configuration."""
    cores = len(os.sched_getaffinity(0))
    row = {"model": options.model, **wanted, "processes": number}
    running = Processes(options, number, threads=max(1, cores // number), **wanted)
    try:
        if running.error:
            return {**row, "images/s": None, "start-up s": None, "MiB": None, "largest change": running.error[:60]}
        found = [running.measure() for _ in range(options.rounds)]
        return {
            **row,
            "images/s": median([rate for rate, _ in found]),
            "start-up s": round(running.ready, 2),
            "MiB": round(found[-1][1]),
            "largest change": f"{np.abs(running.scores - reference).max():.1e}",
        }
    finally:
        running.close()


def quantise(options: argparse.Namespace) -> None:
    """Make int8 if there is a data set for it; why there is none is then the line's own matter."""
    if options.data:
        command = [sys.executable, "-m", "model", "quantise", options.model, str(options.data)]
        subprocess.run(command, capture_output=True, check=False)


def main() -> None:
    """Parse, measure, print."""
    made = parser(__doc__)
    made.add_argument("--models", nargs="+", default=["face-efficientnet", "face-resnet"])
    made.add_argument(
        "--engines",
        nargs="+",
        default=["tensorflow/float32", "tensorflow/bf16", "openvino/float32", "openvino/bf16", "openvino/int8"],
    )
    made.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8, 32, 128])
    made.add_argument("--data", type=Path, help="labelled data set for int8")
    made.add_argument("--seconds", type=float, default=3.0, help="of each round")
    made.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    made.add_argument("--be-one", action="store_true", help=argparse.SUPPRESS)
    for name, kind in (("model", str), ("engine", str), ("precision", str), ("pictures", Path)):
        made.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    for name, kind in (("batch-size", int), ("threads", int), ("started", float)):
        made.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.be_one:
        score(options)
        return
    rows = []
    with scratch() as folder:
        os.environ["FACESIEVE_DATA_DIR"] = str(folder / "data")
        write_pictures(folder / "pictures", PICTURES, 256)
        options.pictures = folder / "pictures"
        for name in options.models:
            options.model = name
            quantise(options)
            exact = Processes(options, 1, threads=0, engine="tensorflow", precision="float32", batch_size=32)
            exact.close()
            measure(options, exact.scores, 1, engine="openvino", precision="float32", batch_size=8)  # fills the cache
            for engine, size, number in product(options.engines, options.batch_sizes, options.processes):
                kind, precision = engine.split("/")
                row = measure(options, exact.scores, number, engine=kind, precision=precision, batch_size=size)
                rows.append(row)
                print(*row.values(), flush=True)
    publish("bench_engine", options.out, rows, PACKAGES, pictures=PICTURES)


if __name__ == "__main__":
    main()
