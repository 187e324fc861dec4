"""docker-compose.yml as a whole, on any container engine: for bench_compose.py and tests/compose."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

ROOT = Path(__file__).parent.parent
SIMULATED = ROOT / "benchmarks" / "compose_simulated.yml"
IMAGE = "facesieve"
POLL_SECONDS = 0.3

T = TypeVar("T")


def missing() -> str:
    """Return what is not there to run a stack with; nothing if all is."""
    if shutil.which("docker") is None:
        return "the program docker is not installed"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no container engine answers: is it running, is DOCKER_HOST right?"
    return "" if _compose() else "neither `docker compose` nor docker-compose is installed"


def build(image: str = IMAGE) -> None:
    """Build the image for CPUs, with the host's network and pip's own configuration."""
    call("docker", "build", "--network", "host", "--tag", image, str(ROOT))


def call(*words: str, environment: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def wait_for(condition: Callable[[], T], what: str, seconds: float = 180.0) -> T:
    """Return the first truthy value of a condition.

    Raises:
        TimeoutError: it does not come in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"waited {seconds:g} s in vain for {what}")


class Stack:
    """One project of compose: its own containers, volumes, secrets and ports.

    Attributes:
        secrets: folder of its passwords.
        images: the folder to score.
    """

    def __init__(self, folder: Path, images: Path | str, *more_files: Path, **environment: str) -> None:
        """Take what to run; nothing is started.

        Args:
            folder: for what it makes here; the engine must see it under the same path.
            images: to score.
            more_files: of compose, that change docker-compose.yml.
            environment: of compose.
        """
        self.secrets = folder / "secrets"
        self.images = images
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": f"facesieve-{uuid4().hex[:8]}",
            "COMPOSE_PROFILES": "",
            "IMAGES_DIR": str(images),
            "SECRETS_DIR": str(self.secrets),
            # Whatever is free.
            **dict.fromkeys(("FLOWER_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"), "0"),
            **environment,
        }
        files = (ROOT / "docker-compose.yml", *more_files)
        self._compose = [
            *_compose(), "--project-directory", str(ROOT), *(word for file in files for word in ("-f", str(file)))
        ]  # fmt: skip

    def make_secrets(self) -> None:
        """Make the passwords, as `make secrets` does."""
        call("sh", str(ROOT / "deploy" / "compose" / "make-secrets.sh"), str(self.secrets))

    def compose(self, *words: str) -> str:
        """Run a command of compose and return what it printed."""
        return call(*self._compose, *words, environment=self._environment)

    def up(self, *services: str, workers: int = 1) -> None:
        """Start services, with what they depend on."""
        self.compose("up", "--detach", "--no-build", "--scale", f"worker={workers}", *services)

    def run(self, *command: str) -> str:
        """Run a command in a container of its own, as users do."""
        return self.compose("run", "--rm", "-T", "producer", *command)

    def containers(self, service: str) -> list[str]:
        """Return the ids of the containers of a service that run."""
        named = self.compose("ps", "--quiet", service).split()
        return [name for name in named if self.inspect(name)["State"]["Running"]]

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        (found,) = json.loads(call("docker", "inspect", container))
        return dict(found)

    def wait_until_healthy(self, service: str, number: int = 1) -> list[str]:
        """Wait for the health checks of a service and return the ids of its containers."""

        def healthy() -> list[str]:
            states = {name: self.inspect(name)["State"] for name in self.containers(service)}
            return [name for name, state in states.items() if state.get("Health", {}).get("Status") == "healthy"]

        return wait_for(lambda: found if len(found := healthy()) == number else [], f"{number} healthy {service}")

    def ask(self, query: str, container: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of a query, asked in a container that runs already: a worker's, if none is named."""
        inside = container or self.containers("worker")[0]
        lines = call("docker", "exec", inside, "db", "sql", "--json", "--limit", "0", query).splitlines()
        return [json.loads(line) for line in lines]

    def ready_workers(self, processes: int = 1) -> list[str]:
        """Return the ids of the workers that run and so many processes of which are ready since their last start."""
        logged = {name: call("sh", "-c", 'docker logs "$0" 2>&1', name) for name in self.containers("worker")}
        since = {name: log.rpartition(" worker_started ")[2] for name, log in logged.items()}
        return [name for name, log in since.items() if log.count(" child_ready ") == processes]

    def logs(self, *services: str) -> list[str]:
        """Return the lines that services have printed."""
        return self.compose("logs", "--no-color", *services).splitlines()

    def url(self, service: str, port: int) -> str:
        """Return where a service is published."""
        return "http://" + self.compose("port", service, str(port)).strip()

    def down(self) -> None:
        """Remove all of it."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")


def _compose() -> Sequence[str]:
    """Return how compose is called here; empty if it is not installed."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(words[0])
            and not subprocess.run([*words, "version"], capture_output=True, check=False).returncode
        ):
            return words
    return []
