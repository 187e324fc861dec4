"""docker-compose.yml and the Dockerfile keep their promises, as far as that can be read from them."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from core.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
STACK = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
ONE_SHOT = {"migrate", "producer"}
OURS = [name for name, service in SERVICES.items() if "facesieve" in service["image"]]
PROGRAMS = ("producer", "worker", "db", "model")


def command_of(words: list[str]) -> None:
    """Check that a program of ours takes these words; raise what typer raises if not."""
    from importlib import import_module

    command = typer.main.get_command(import_module(f"{words[0]}.cli").app)
    context = command.make_context(words[0], words[1:])
    name, sub, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert sub is not None
    sub.make_context(name, rest, parent=context)


def test_all_services_of_the_stack_are_there() -> None:
    assert SERVICES.keys() == {
        "valkey", "postgres", "migrate", "producer", "worker", "worker-gpu",
        "flower", "exporter", "prometheus", "grafana",
    }  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_the_commands_of_our_services_exist_with_their_options(name: str) -> None:
    words = [re.sub(r"\$\{(\w+)(:[-?].*?)?\}", "1", word) for word in SERVICES[name]["command"]]
    assert words[0] in PROGRAMS
    command_of(words)


def test_the_variables_of_our_containers_are_settings() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"FACESIEVE_SECRETS_DIR"}
    for name in OURS:
        assert SERVICES[name]["environment"].keys() <= known


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_restart_policy_a_memory_limit_and_bounded_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert service["mem_limit"]
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name].get("healthcheck", {})
    if name in ONE_SHOT:
        assert check == {"disable": True}
    elif name.startswith("worker"):
        assert check == {}  # the image's
        assert "\nHEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    else:
        assert check["test"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_and_a_file_system_that_is_read_only(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_alone(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert bool(ports) == (name in ("flower", "prometheus", "grafana"))


def test_images_are_mounted_read_only_and_at_the_same_path_everywhere() -> None:
    with_images = [name for name in SERVICES if "${IMAGES_DIR}:${IMAGES_DIR}:ro" in SERVICES[name].get("volumes", [])]
    assert with_images == ["producer", "worker", "worker-gpu"]


def test_whoever_uses_a_server_waits_for_it() -> None:
    for name in ("producer", "worker", "worker-gpu"):
        conditions = {other: told["condition"] for other, told in SERVICES[name]["depends_on"].items()}
        assert conditions == {
            "migrate": "service_completed_successfully",
            "valkey": "service_healthy",
            "postgres": "service_healthy",
        }


def test_a_stop_leaves_more_time_than_a_worker_takes() -> None:
    grace = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > 2 * Settings.model_fields["drain_seconds"].default


def test_secrets_are_files_that_the_script_makes_and_keeps(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "compose" / "make-secrets.sh"
    folder = tmp_path / "secrets"
    subprocess.run(["sh", script, folder], check=True, capture_output=True)
    made = {path.name: path.read_text().strip() for path in folder.iterdir()}
    subprocess.run(["sh", script, folder], check=True, capture_output=True)

    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == made
    assert made.keys() == STACK["secrets"].keys()
    assert {named for service in SERVICES.values() for named in service.get("secrets", [])} == made.keys()
    assert folder.stat().st_mode & 0o777 == 0o700
    passwords = [made["valkey_password"], made["postgres_password"], made["grafana_password"]]
    assert made["facesieve_broker_url"] == f"redis://:{passwords[0]}@valkey:6379/0"
    assert made["valkey.conf"] == f"requirepass {passwords[0]}"
    assert made["facesieve_database_url"] == f"postgresql+psycopg://facesieve:{passwords[1]}@postgres/facesieve"
    assert re.fullmatch(r"flower:[0-9a-f]{48}", made["flower_auth"])
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)
    assert len({*passwords, made["flower_auth"].removeprefix("flower:")}) == 4


def test_no_service_is_told_a_secret_that_it_does_not_need() -> None:
    told = {name: set(service.get("secrets", [])) for name, service in SERVICES.items()}
    assert told["flower"] == {"facesieve_broker_url", "flower_auth"}
    assert told["exporter"] == {"facesieve_database_url"}
    assert {name for name in told if "facesieve_signing_key" in told[name]} == {
        "producer",
        "worker",
        "worker-gpu",
    }
    assert told["migrate"] == {"facesieve_database_url"}
    assert "PASSWORD:" not in (ROOT / "docker-compose.yml").read_text()


def test_the_image_gets_only_what_the_dockerfile_copies() -> None:
    copied = {
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied


def test_the_entry_point_puts_what_the_image_converted_where_a_volume_hides_it(tmp_path: Path) -> None:
    script = (
        (ROOT / "deploy" / "compose" / "entrypoint.sh").read_text().replace("/opt/facesieve", str(tmp_path / "opt"))
    )
    kept, found = tmp_path / "opt" / "cache" / "openvino" / "id", tmp_path / "data" / "cache" / "openvino" / "id"
    kept.mkdir(parents=True)
    (kept / "network.xml").write_text("converted")
    for _ in range(2):  # the second time nothing is written over
        done = subprocess.run(
            ["sh", "-c", script, "entry", "printf", "%s|", "a b", "c"],
            env={"FACESIEVE_DATA_DIR": str(tmp_path / "data"), "PATH": os.environ["PATH"]},
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout == "a b|c|"
        assert (found / "network.xml").read_text() in ("converted", "used")
        (found / "network.xml").write_text("used")
    assert (found / "network.xml").read_text() == "used"
