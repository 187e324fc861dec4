"""On a machine with a GPU: what a pinned process sees and computes with; ``test_gpu_children.py`` needs none."""

import json
import subprocess
import sys

import pytest

from worker.gpu import PIN, visible_gpus

pytestmark = pytest.mark.tensorflow

#: Pins itself as a child does, and tells what TensorFlow finds and where it computes.
SCRIPT = """
import json, sys
from worker import gpu
gpu.pin(sys.argv[1])
from model.runtime import import_tensorflow
tf = import_tensorflow()
product = tf.matmul(tf.ones((64, 64)), tf.ones((64, 64)))
print(json.dumps({"gpus": len(tf.config.list_physical_devices("GPU")), "device": product.device}))
"""


@pytest.fixture(scope="module")
def gpus() -> list[str]:
    """The GPUs of this machine, with a TensorFlow that can use them."""
    found = visible_gpus()
    if not found:
        pytest.skip("no NVIDIA GPU here")
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow finds no CUDA: pip install 'facesieve[gpu]'")
    return found


def seen_with(device: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, device], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_pinned_process_sees_one_gpu_and_computes_on_it(gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIN, raising=False)
    for device in gpus:
        seen = seen_with(device)
        assert seen["gpus"] == 1
        assert "GPU:0" in str(seen["device"])


def test_a_process_without_a_gpu_computes_on_the_cpu(gpus: list[str]) -> None:
    seen = seen_with("-1")
    assert seen["gpus"] == 0
    assert "CPU:0" in str(seen["device"])
