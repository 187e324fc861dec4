"""The stack of docker-compose.yml in real containers: how long until the first verdict, and what more workers bring.

    python benchmarks/bench_compose.py [--rounds 3] [--rate 100] [--seconds 20] [--workers 1 2 3] [--pictures DIR]

- ``start``: the image is built, volumes are new, and 1,000 pictures wait to be scored by the shipped model. Seconds
  since `up --detach` (broker, database, migration, one worker) was called: ``up`` when it returned, and `producer
  enqueue` was run in a container; ``first_verdict`` when the first job of 64 pictures stood in the database, ``all``
  when all did.
- ``rows``: images/s of workers whose engine is simulated (simulated.py), one process each, from the first job that was
  begun to the last that was saved, as the ledger says; ``ratio`` to the first row. The engine only sleeps, so that
  several workers fit on few cores; containers, broker, database, messages and ledger are real.

``--pictures`` also writes flower.png and report.html of the first start into a folder.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import compose_stack
import lab
import simulated
from compose_stack import SIMULATED, Stack, wait_for

from core.settings import load_settings

PICTURES = 1000
SIDE = 256
JOB_SIZE = 64
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

Row = dict[str, Any]


def measure_start(image: str, images: Path, pictures: Path | None) -> Row:
    """Return the seconds from `up` to what a user waits for."""
    with lab.scratch() as folder:
        stack = Stack(folder, images, WORKER_IMAGE=image, FACESIEVE_JOB_SIZE=str(JOB_SIZE))
        stack.make_secrets()
        began = time.time()
        try:
            stack.up("worker")
            up = time.time() - began
            stack.run("producer", "enqueue", str(images), "--wait")
            (moments,) = stack.ask(
                "SELECT extract(epoch FROM min(scored_at)) AS first, extract(epoch FROM max(scored_at)) AS last, "
                "count(*) AS number FROM verdict"
            )
            if moments["number"] != PICTURES:
                raise RuntimeError(f"{moments['number']} of {PICTURES} pictures have a verdict")
            if pictures:
                take_pictures(stack, images, pictures)
        finally:
            stack.down()
    return {
        "up_seconds": lab.median([up]),
        "first_verdict_seconds": lab.median([float(moments["first"]) - began]),
        "all_seconds": lab.median([float(moments["last"]) - began]),
    }


def take_pictures(stack: Stack, images: Path, folder: Path) -> None:
    """Look at Flower in a browser while pictures are scored again, and write the report."""
    folder.mkdir(parents=True, exist_ok=True)
    stack.up("worker", "flower", workers=2)
    stack.wait_until_healthy("flower")
    wait_for(lambda: len(stack.ready_workers(processes=2)) == 2, "two workers")
    stack.run("producer", "enqueue", str(images), "--force", "--wait")
    user, _, password = (stack.secrets / "flower_auth").read_text().strip().partition(":")
    take_picture(stack.url("flower", 5555) + "/tasks", user, password, folder / "flower.png")
    (worker, *_) = stack.containers("worker")
    report = ["sh", "-c", "db report --out /tmp/report.html >&2 && cat /tmp/report.html"]
    (folder / "report.html").write_text(compose_stack.call("docker", "exec", worker, *report))


def take_picture(url: str, user: str, password: str, file: Path) -> None:
    """Write what a browser shows of a page that asks for a password and fills its table by itself."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": 1280, "height": 620}, http_credentials={"username": user, "password": password}
        )
        page.goto(url)
        page.wait_for_selector("tbody tr:nth-child(5)")
        page.screenshot(path=file)
        browser.close()


def measure_workers(image: str, images: Path, models: Path, options: argparse.Namespace) -> list[Row]:
    """Return the images/s of 1 and more workers, whose engine is simulated."""
    numbers = options.workers
    taken: dict[int, list[float]] = {number: [] for number in numbers}
    with lab.scratch() as folder:
        stack = Stack(
            folder,
            images,
            SIMULATED,
            WORKER_IMAGE=image,
            FACESIEVE_MODEL=simulated.NAME,
            FACESIEVE_JOB_SIZE=str(JOB_SIZE),
            SIMULATED_RATE=str(options.rate),
            SIMULATED_MODELS=str(models),
        )
        stack.make_secrets()
        try:
            for _ in range(options.rounds):
                for number in numbers:
                    stack.up("worker", workers=number)
                    wait_for(lambda n=number: len(stack.ready_workers()) == n, f"{number} workers")
                    taken[number].append(_pace(stack, images))
        finally:
            stack.down()
    paces = {number: lab.median(found) for number, found in taken.items()}
    return [
        {"workers": number, "images_per_second": pace, "ratio": round(pace / paces[numbers[0]], 2)}
        for number, pace in paces.items()
    ]


def _pace(stack: Stack, images: Path) -> float:
    stack.run("producer", "enqueue", str(images), "--force", "--wait")
    (scan,) = stack.ask(
        "SELECT sum(images) AS images, sum(n_ok) AS ok, "
        "extract(epoch FROM max(finished_at) - min(started_at)) AS seconds "
        "FROM job WHERE scan_id = (SELECT max(id) FROM scan)"
    )
    if scan["ok"] != scan["images"]:
        raise RuntimeError(f"{scan['ok']} of {scan['images']} images were scored")
    return float(scan["ok"]) / float(scan["seconds"])


def main() -> None:
    """Measure, print, and write benchmarks/results/bench_compose.json."""
    parser = lab.parser(__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="images/s of a simulated engine")
    parser.add_argument("--seconds", type=float, default=20.0, help="that the work of all workers lasts")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--image", help="that is built already; else it is built first")
    parser.add_argument("--pictures", type=Path, help="folder for flower.png and report.html")
    options = parser.parse_args()
    if reason := compose_stack.missing():
        raise SystemExit(f"nothing to measure with: {reason}")
    if not options.image:
        compose_stack.build()
    image = options.image or compose_stack.IMAGE
    with lab.scratch() as folder:
        folder.chmod(0o755)  # containers read it under users of their own
        lab.write_pictures(folder / "pictures", PICTURES, SIDE)
        starts = [
            measure_start(image, folder / "pictures", options.pictures if turn == 0 else None)
            for turn in range(options.rounds)
        ]
        simulated.make_artifact(load_settings(data_dir=folder / "data"))
        (folder / "data").chmod(0o755)
        many = folder / "many"
        many.mkdir()
        for index in range(int(options.rate * options.seconds * max(options.workers))):
            (many / f"{index:06d}.jpg").hardlink_to(folder / "pictures" / f"{index % PICTURES:06d}.jpg")
        rows = measure_workers(image, many, folder / "data" / "models", options)
    start = {name: lab.median([run[name] for run in starts]) for name in starts[0]}
    lab.publish("bench_compose", options.out, rows, ["celery", "openvino"], start=start, rate=options.rate)


if __name__ == "__main__":
    main()
