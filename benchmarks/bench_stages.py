"""Where a worker's time goes: each stage by itself on one core, what all of them together allow, and what is reached.

The stages are the functions that a worker calls, one after the other, each over all pictures, in one thread, with an
engine of one thread. Their sum is what one image costs a core; the cores of this machine divided by it are the limit of
a worker that wastes nothing. `producer run` on the same files, in the same round, shows how near it comes.

    python benchmarks/bench_stages.py
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from lab import median, parser, publish, scratch, write_pictures
from sqlalchemy import text

from core.images import ImageRef
from core.jobs import Job
from core.manifest import find_artifact
from core.settings import Settings, load_settings
from core.storage import read_image
from core.verdicts import Outcome, Status
from db.engine import open_engine
from db.store import RunReport, Store
from model.predictor import Predictor, load_predictor
from model.preprocess import SIDE, configure_cv2, decode, difference_hash

PACKAGES = ("openvino", "opencv-python-headless", "numpy", "celery", "sqlalchemy")
JOB = 256


def stages(settings: Settings, predictor: Predictor, paths: Sequence[Path]) -> dict[str, float]:
    """Return microseconds an image for each stage."""
    preset = predictor.manifest.preprocess
    refs = [ImageRef(str(path), "1-1", path.stat().st_size) for path in paths]
    spent: dict[str, float] = {}

    def timed(name: str, action: Callable[[Any], Any], inputs: Sequence[Any], images: int = len(paths)) -> list[Any]:
        begun = time.perf_counter()
        results = [action(one) for one in inputs]
        spent[name] = (time.perf_counter() - begun) / images * 1e6
        return results

    contents = timed("read", lambda ref: read_image(ref.uri, roots=settings.roots, max_bytes=settings.max_bytes), refs)
    digests = timed("digest", lambda content: hashlib.sha256(content).digest()[:16], contents)
    # As in a worker, pixels go where their batch wants them, and its memory was touched before.
    pixels = np.ones((len(paths), SIDE, SIDE, 3), np.uint8)
    timed(
        "decode and resize",
        lambda pair: decode(pair[0], preset, max_pixels=10**8, out=pair[1]),
        list(zip(contents, pixels, strict=True)),
    )
    hashes = timed("perceptual hash", difference_hash, list(pixels))
    size = predictor.batch_size
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    scores = np.concatenate(timed("predict", predictor.predict, batches)).tolist()
    outcomes = [
        Outcome(ref, Status.OK, score, "", digest, 256, 256, phash)
        for ref, score, digest, phash in zip(refs, scores, digests, hashes, strict=True)
    ]
    store = Store(open_engine(settings))
    store.register_model(predictor.manifest)
    scan = store.start_scan(["bench"], predictor.manifest.name, predictor.manifest.id)
    report = RunReport("bench", predictor.manifest.id, predictor.engine, predictor.precision, 1, 1, 1)
    jobs = []
    for start in range(0, len(outcomes), JOB):
        part = outcomes[start : start + JOB]
        job = Job(uuid4().hex, scan, predictor.manifest.name, tuple(one.ref for one in part), predictor.manifest.id)
        store.record_listing(scan, [job], skipped=0)
        jobs.append((job, part))
    timed("save", lambda pair: store.save_job(pair[0], pair[1], report), jobs)
    return spent


def run(settings: Settings, folder: Path, model: str) -> float:
    """Return images/s of `producer run` by its ledger: from the start of the first job to the end of the last."""
    environment = os.environ | settings.as_environment()
    command = [sys.executable, "-m", "producer", "run", str(folder), "--model", model, "--force", "--json"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    query = text("SELECT min(started_at), max(finished_at), sum(images) FROM job WHERE worker <> 'bench'")
    with open_engine(settings).connect() as connection:
        begun, ended, images = connection.execute(query).one()
    return float(images / (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds())


def measure(options: argparse.Namespace, side: int, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of one size of pictures."""
    data = load_settings(data_dir=folder / "cache")
    artifact = find_artifact(options.model, data)
    predictor = load_predictor(artifact, engine="openvino", cache=data.cache_dir, threads=1)
    predictor.warm_up()
    number = options.images if side <= 256 else options.images // 4
    paths = write_pictures(folder / f"pictures-{side}", number // JOB * JOB, side)
    rounds, rates = [], []
    for turn in range(options.rounds):
        settings = load_settings(data_dir=folder / f"data-{side}-{turn}")
        settings.data_dir.mkdir()
        (settings.data_dir / "cache").symlink_to(data.cache_dir)
        rounds.append(stages(settings, predictor, paths))
        fresh = load_settings(data_dir=folder / f"run-{side}-{turn}")
        fresh.data_dir.mkdir()
        (fresh.data_dir / "cache").symlink_to(data.cache_dir)
        rates.append(run(fresh, paths[0].parent, options.model))
    spent = {stage: median([one[stage] for one in rounds]) for stage in rounds[0]}
    cores, total = len(os.sched_getaffinity(0)), sum(spent.values())
    rows = [
        {"side": side, "stage": stage, "us/image on a core": value, "share": f"{value / total:.0%}", "images/s": None}
        for stage, value in spent.items()
    ]
    limit = cores / total * 1e6
    named = {f"limit: {cores} cores / sum of the stages": limit, "producer run": median(rates)}
    rows += [
        {
            "side": side,
            "stage": stage,
            "us/image on a core": round(cores / rate * 1e6, 1),
            "share": f"{rate / limit:.2f} of the limit",
            "images/s": round(rate),
        }
        for stage, rate in named.items()
    ]
    return rows


def main() -> None:
    """Parse, measure, print."""
    made = parser(__doc__)
    made.add_argument("--model", default="face-resnet")
    made.add_argument("--images", type=int, default=4096, help="of 256 px; a quarter of it of larger ones")
    made.add_argument("--sides", type=int, nargs="+", default=[256, 1024])
    options = made.parse_args()
    configure_cv2()
    with scratch() as folder:
        rows = [row for side in options.sides for row in measure(options, side, folder)]
    publish("bench_stages", options.out, rows, PACKAGES, model=options.model, images=options.images)


if __name__ == "__main__":
    main()
