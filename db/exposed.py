"""What the exporter tells, by name. The table in docs/metrics.md is this list."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from core.cli import printable

#: Over what the present throughput is taken; also by how much the clocks of workers may differ from this machine's.
WINDOW = timedelta(minutes=2)
#: Upper edges of the histograms, in seconds.
EDGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
STATES = ("queued", "running", "failed")
OTHERS = "(others)"
MOST_MODELS = 100
MOST_WORKERS = 100
LONGEST_LABEL = 100


@dataclass(frozen=True, slots=True)
class Metric:
    """What is told under one name.

    Attributes:
        name: as a scraper sees it.
        kind: of metric.
        labels: names of them.
        text: what it means, for people.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str


UP = Metric("facesieve_up", "gauge", (), "1 if the ledger could be read, else 0, and nothing else is told")
SECONDS = Metric(
    "facesieve_job_seconds",
    "histogram",
    ("model", "stage"),
    "seconds of jobs that were done; decode, which includes fetching, is summed over threads",
)
#: All that stand for one number each.
PLAIN = (
    Metric("facesieve_images_total", "counter", ("model", "outcome"), "images with a verdict, by its status"),
    Metric("facesieve_images_pending", "gauge", ("model",), "images that no worker has finished: queued and in flight"),
    Metric("facesieve_images_in_flight", "gauge", ("model",), "images in jobs that a worker has begun"),
    Metric("facesieve_jobs", "gauge", ("model", "state"), "jobs that are queued, running or failed as a whole"),
    Metric("facesieve_job_losses_total", "counter", ("model",), "times that a worker died in a job"),
    Metric(
        "facesieve_queue_age_seconds", "gauge", ("model",), "since the longest waiting job was queued; 0 if none is"
    ),
    Metric("facesieve_last_job_timestamp_seconds", "gauge", ("model",), "when a job was last done, in Unix time"),
    Metric(
        "facesieve_engine_images_per_second",
        "gauge",
        ("engine", "precision"),
        "images finished in the last two minutes, a second",
    ),
    Metric(
        "facesieve_worker_images_per_second",
        "gauge",
        ("worker",),
        f"likewise; the {MOST_WORKERS} fastest workers, and the rest as {OTHERS}",
    ),
    Metric(
        "facesieve_model_info",
        "gauge",
        ("model", "id", "architecture", "preprocess", "trained"),
        f"1 for each of the {MOST_MODELS} models that a worker has last started with",
    ),
    Metric("facesieve_read_seconds", "gauge", (), "that reading the ledger has taken"),
)
METRICS = (UP, *PLAIN, SECONDS)


def label(text: str) -> str:
    """Return any text as the value of a label: short, and without control characters."""
    return printable(text)[:LONGEST_LABEL]
