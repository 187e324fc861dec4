"""What is meant for Kubernetes and Slurm names commands and settings that exist, and lets workers end in time."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from core.settings import PREFIX, SECRETS_DIR, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SBATCH = DEPLOY / "slurm" / "facesieve.sbatch"
MANIFESTS = sorted(KUBERNETES.rglob("*.yaml"))
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
HAND_BACK_SECONDS = 15
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which has kustomize, is missing")


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


RESOURCES = [one for path in MANIFESTS for one in documents(path) if not path.name.startswith("kustomization")]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods of all workloads, by name; those of the overlays are patches of one."""
    for one in RESOURCES:
        if one["kind"] in ("Deployment", "Job"):
            metadata = one["metadata"]
            yield metadata.get("name", metadata.get("generateName")), one["spec"]["template"]["spec"]


PODS = [(name, pod) for name, pod in pods() if "volumes" in pod]
PATCHES = [pod for _, pod in pods() if "volumes" not in pod]
SETTINGS = next(one["data"] for one in RESOURCES if one["kind"] == "ConfigMap")


def parse(words: list[str]) -> None:
    """Have a command line read its options, without doing anything."""
    program, *rest = words
    group: Any = typer.main.get_command(import_module(f"{program}.cli").app)
    context = group.make_context(program, [*rest], resilient_parsing=True)
    name, command, options = group.resolve_command(context, rest)
    command.make_context(name, options, parent=context)


def commands() -> list[list[str]]:
    """All command lines of pods and probes."""
    found = [pod["containers"][0].get("args") for pod in (*(pod for _, pod in PODS), *PATCHES)]
    probes = [probe for _, pod in PODS for key, probe in pod["containers"][0].items() if key.endswith("Probe")]
    return [*filter(None, found), *(probe["exec"]["command"] for probe in probes if "exec" in probe)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_exists_with_its_options(words: list[str]) -> None:
    parse(words)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):  # of typer or of click, as versions have it
        parse(["worker", "start", "--no-such-option"])


@pytest.mark.parametrize("path", [*MANIFESTS, SBATCH], ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_variable_of_ours_is_a_setting_and_no_secret_stands_in_the_file(path: Path) -> None:
    text = path.read_text()
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {SECRETS_DIR}
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+", text)) <= known
    files = set(re.findall(rf"\b{PREFIX.lower()}[a-z_]+", text)) - {"facesieve_images_pending", "facesieve_up"}
    assert files <= {name.lower() for name in known}
    assert not re.search(r"://[^/\s]*:[^/\s]*@|kind: Secret\b", text)


@pytest.mark.parametrize("folder", sorted({path.parent for path in KUBERNETES.rglob("kustomization.yaml")}))
def test_a_kustomization_names_files_that_are_there_and_leaves_none_out(folder: Path) -> None:
    (found,) = documents(folder / "kustomization.yaml")
    named = found.get("resources", []) + found.get("components", []) + [p["path"] for p in found.get("patches", [])]
    assert all((folder / name).exists() for name in named)
    assert {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"} <= set(named)


@pytest.mark.parametrize(("name", "pod"), PODS, ids=[name for name, _ in PODS])
def test_a_pod_has_no_more_rights_than_it_needs(name: str, pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "a Service facesieve-* would set variables that we refuse"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounts["secrets"]["readOnly"] is True
    assert mounts["secrets"]["mountPath"] == SETTINGS[SECRETS_DIR]
    assert "emptyDir" in next(volume for volume in pod["volumes"] if volume["name"] == "state")
    assert mounts.get("images", {"readOnly": True})["readOnly"] is True


def test_producers_and_workers_see_the_images_under_the_same_path_which_is_a_root() -> None:
    places = [
        mount["mountPath"]
        for _, pod in PODS
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] == "images"
    ]
    assert places == [SETTINGS["FACESIEVE_ROOTS"]] * 2


def test_the_database_alone_is_known_to_what_needs_the_database_alone() -> None:
    for name, pod in PODS:
        (secret,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
        items = [item["path"] for item in secret.get("items", [])]
        assert items == ([] if name.startswith(("worker", "producer")) else ["facesieve_database_url"]), name


def test_a_worker_has_more_time_to_end_than_it_takes() -> None:
    (worker,) = (pod for name, pod in PODS if name == "worker")
    drain = float(SETTINGS["FACESIEVE_DRAIN_SECONDS"])
    assert worker["terminationGracePeriodSeconds"] >= drain + HAND_BACK_SECONDS
    notice = re.search(r"#SBATCH --signal=B:TERM@(\d+)", SBATCH.read_text())[1]
    drain = re.search(r"FACESIEVE_DRAIN_SECONDS:-(\d+)", SBATCH.read_text())[1]
    assert int(notice) >= int(drain) + HAND_BACK_SECONDS


def test_the_settings_of_the_cluster_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name.removeprefix(PREFIX).lower(): value for name, value in SETTINGS.items() if name != SECRETS_DIR}
    settings = Settings(**values)
    assert (settings.log, settings.drain_seconds) == ("json", 40.0)


def test_the_scaler_counts_the_model_that_the_workers_have_and_scales_their_deployment() -> None:
    (scaler,) = (one for one in RESOURCES if one["kind"] == "ScaledObject")
    metadata = scaler["spec"]["triggers"][0]["metadata"]
    assert f'model=~"{SETTINGS["FACESIEVE_MODEL"]}([.]faces)?"' in metadata["query"]
    assert metadata["ignoreNullValues"] == "false"
    assert "fallback" not in scaler["spec"]
    most = Settings.model_fields["max_queued_images"].default
    assert scaler["spec"]["maxReplicaCount"] * int(metadata["threshold"]) <= most
    (worker,) = (
        one
        for one in RESOURCES
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "worker" and "selector" in one["spec"]
    )
    assert scaler["spec"]["scaleTargetRef"] == {"name": worker["metadata"]["name"]}
    assert "replicas" not in worker["spec"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_can_be_built_and_names_images_that_are_made(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["kind"] for one in built} >= {"Deployment", "Job", "ScaledObject", "PodDisruptionBudget", "Namespace"}
    assert all(one["metadata"].get("namespace") == "facesieve" for one in built if one["kind"] != "Namespace")
    images = {pod["image"] for one in built for pod in _containers(one)}
    assert images == ({"facesieve:latest"} if overlay == "cpu" else {"facesieve:latest", "facesieve:gpu"})
    (worker,) = (pod for one in built for pod in _containers(one) if pod["name"] == "worker")
    assert "memory" in worker["resources"]["limits"]
    assert ("nvidia.com/gpu" in worker["resources"]["limits"]) == (overlay == "gpu")


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_the_form_that_kubernetes_asks_for(overlay: str) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate, of the group deploy, is missing"
    )
    folder = KUBERNETES / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    (producer,) = documents(KUBERNETES / "producer.yaml")
    producer["metadata"]["name"] = producer["metadata"].pop("generateName")  # which the validator does not know
    for one in (*yaml.safe_load_all(done.stdout), producer):
        if one["kind"] != "ScaledObject":  # KEDA's own
            validator.validate(one, validator.latest_version(), strict=True)


def _containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return resource.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])


def test_bash_can_read_the_batch_script() -> None:
    subprocess.run(["bash", "-n", SBATCH], check=True)
    words = SBATCH.read_text().splitlines()[-1].removeprefix("exec ").split()
    parse(words)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say_against_the_batch_script() -> None:
    done = subprocess.run(["shellcheck", SBATCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
