"""Coverage-guided fuzzing of what reads bytes of others: messages, what the ledger keeps of them, manifests, lists.

    python -m tests.fuzz.fuzz_messages [--seconds 60] [--targets message manifest ...]

Needs Atheris (``pip install --group fuzz``), whose wheels are for Linux on x86-64. Each target runs in a process of its
own. Anything but a value or the named error ends it; Atheris then leaves the bytes in a file ``crash-...``.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ID = "0123456789abcdef0123456789abcdef"
ROW = ["/faces/a.jpg", "5-17", 5]
PAYLOAD = {
    "version": 2,
    "id": ID,
    "scan_id": 3,
    "model": "card",
    "model_id": None,
    "images": [[*ROW, 512]],
    "faces": True,
}
MANIFEST = {
    "schema_version": 1, "name": "card", "format": "keras", "file": "model.keras", "sha256": "ab" * 32,
    "architecture": "card-resnet", "parameters": 11, "preprocess": "card", "trained": True, "source": "x",
    "created_at": "2025-01-01T00:00:00Z", "keras_version": "3.12.0", "calibration": {
        "slope": 1.0, "intercept": 0.0, "images": 1, "source": "x", "false_positive_rate": 0.1,
        "operating_points": {"0.01": 0.5},
    },
}  # fmt: skip


def read_message(content: bytes) -> None:
    """Read a message as a worker does once Celery has taken the JSON apart."""
    from core.errors import MessageError
    from core.jobs import Job

    try:
        payload = json.loads(content)
    except (ValueError, RecursionError):  # Celery's, and not ours
        return
    with suppress(MessageError):
        job = Job.from_payload(payload)
        assert Job.from_payload(json.loads(json.dumps(job.to_payload()))) == job


def read_kept(content: bytes) -> None:
    """Read a message as `producer retry` finds it in the ledger."""
    import zlib

    from core.errors import MessageError
    from core.jobs import Job

    for packed in (content, zlib.compress(content)):
        with suppress(MessageError):
            job = Job.unpack(packed)
            assert Job.unpack(job.pack()) == job


def read_model_manifest(content: bytes) -> None:
    """Read the manifest of an artifact."""
    from core.errors import ModelBrokenError
    from core.manifest import MANIFEST_NAME, Manifest, read_manifest

    (_scratch() / MANIFEST_NAME).write_bytes(content)
    with suppress(ModelBrokenError):
        manifest = read_manifest(_scratch())
        assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def read_list(content: bytes) -> None:
    """Read a list of images, of each kind that has lines."""
    from core.errors import SourceError
    from core.selection import Selection
    from producer.manifests import ManifestListing

    for suffix in ("txt", "csv", "jsonl"):
        path = _scratch() / f"list.{suffix}"
        path.write_bytes(content)
        with suppress(SourceError):
            for ref in ManifestListing(str(path), Selection()):
                assert ref.uri.encode()


TARGETS: dict[str, tuple[Callable[[bytes], None], Sequence[bytes]]] = {
    "message": (read_message, [json.dumps(PAYLOAD).encode(), b"[]"]),
    "kept message": (read_kept, [json.dumps(PAYLOAD).encode()]),
    "manifest": (read_model_manifest, [json.dumps(MANIFEST).encode()]),
    "list": (read_list, [b"a.jpg\ns3://b/a.tar#x\n", b"uri,size\na.jpg,5\n", b'{"uri": "a.jpg"}\n', b'"a\nb","c"\n']),
}


def _scratch() -> Path:
    return Path.cwd()


def fuzz_one(name: str, seconds: int) -> None:
    """Run one target in this process, in the current folder, until its time is over; does not return."""
    import atheris

    target, seeds = TARGETS[name]
    with atheris.instrument_imports(include=["core", "producer"]):
        for module in ("core.jobs", "core.manifest", "producer.manifests"):
            import_module(module)
    corpus = Path("corpus")
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-timeout=60", "-print_final_stats=1"], target
    )
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> dict[str, int | str]:
    """Run one target in a process and a folder of its own, and return how often it ran."""
    with TemporaryDirectory(prefix="facesieve-fuzz-") as folder:
        words = [sys.executable, "-m", __spec__.name, "--seconds", str(seconds), "--one", name]
        root = {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(words, cwd=folder, env=os.environ | root, capture_output=True, text=True, check=False)
        found = re.search(r"Done (\d+) runs", done.stderr)
        if done.returncode or found is None:
            for crash in Path(folder).glob("crash-*"):
                print(f"{name}: {crash.read_bytes()!r:.4000}", file=sys.stderr)
            print(done.stderr[-4000:], file=sys.stderr)
        covered = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "target": name,
        "runs": int(found[1]) if found else 0,
        "covered": int(covered[-1]) if covered else 0,
        "faults": int(done.returncode != 0 or found is None),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file of the results")
    parser.add_argument("--one", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        fuzz_one(options.one, options.seconds)
        return
    rows = [fuzz(name, options.seconds) for name in options.targets]
    for row in rows:
        print(row)
    found = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"atheris": version("atheris")},
        "seconds": options.seconds,
        "rows": rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fuzz_messages.json").write_text(json.dumps(found, indent=1) + "\n")
    if any(row["faults"] for row in rows):
        raise SystemExit("a target met what is no value and no named error")


if __name__ == "__main__":
    main()
