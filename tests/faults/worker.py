"""The real worker with an engine that sleeps, and a decoder that can kill: it starts without TensorFlow or OpenVINO.

Only what stands at its edges is replaced: the engine, by that of ``benchmarks/simulated.py``, and OpenCV's decoder.

    python -m tests.faults.worker start --gpus none --slots 1
"""

import os
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np

import worker.process
from benchmarks.simulated import RATE, SimulatedPredictor
from worker.cli import main

#: Decoding an image that ends with these bytes kills the process, as a fault in a native decoder would.
POISON = b"POISON"
#: Environment variable: a file that says how the next image to be decoded ends its process, ``kill`` or ``error``.
HUNGER = "FAULTS_HUNGER"
#: Another one: ``simulated``, or anything else for the real engine, whose images then take as long to be decoded.
ENGINE = "FAULTS_ENGINE"

SIMULATED = "simulated"
THREADS = 2  # that decode

_decode = cv2.imdecode


def decode(data: Any, *rest: Any) -> Any:
    """Decode, unless the image or the file says otherwise."""
    if bytes(data[-len(POISON) :]) == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ[ENGINE] != SIMULATED:
        time.sleep(THREADS / float(os.environ[RATE]))
    order = Path(os.environ[HUNGER])
    if order.exists():
        taken = order.with_suffix(f".{os.getpid()}")
        try:
            order.rename(taken)
        except FileNotFoundError:  # another process or thread was faster
            return _decode(data, *rest)
        if taken.read_text() == "kill":  # as the kernel does
            os.kill(os.getpid(), signal.SIGKILL)
        np.empty(2**46, np.uint8)  # 64 TiB: MemoryError
    return _decode(data, *rest)


if __name__ == "__main__":
    cv2.imdecode = decode
    if os.environ[ENGINE] == SIMULATED:
        # Fails if the worker no longer has this name: nothing is simulated by halves.
        patch.object(worker.process, "load_predictor", SimulatedPredictor).start()
    main()
