"""What becomes of an image that there is no memory for."""

import subprocess
import sys

DECODE = """
import resource
import cv2
import numpy as np
from model.preprocess import configure_cv2, decode

configure_cv2()
content = cv2.imencode(".{kind}", np.zeros((3000, 3000, 3), np.uint8))[1].tobytes()
decode(content, "card", max_pixels=10**9)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10 * 2**20,) * 2)
try:
    decode(content, "card", max_pixels=10**9)
except MemoryError as error:
    print(error)
"""


def test_an_image_that_there_is_no_memory_for_is_not_called_damaged() -> None:
    for kind in ("jpg", "png"):
        done = subprocess.run(
            [sys.executable, "-c", DECODE.format(kind=kind)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout.startswith("no memory to decode"), done.stderr
