"""Convert the shipped models for OpenVINO, so that an image can do without TensorFlow.

    python convert.py CACHE

Puts them where a worker looks for them, below the folder CACHE, and stops with an error if a score changes.
"""

import sys
from pathlib import Path

from core.manifest import SHIPPED
from model.predictor import load_predictor

cache = Path(sys.argv[1])
for folder in sorted(path.parent for path in SHIPPED.glob("*/manifest.json")):
    # In float32, which every CPU has; a worker takes the same file for bf16 and compares the scores again.
    predictor = load_predictor(folder, engine="openvino", precision="float32", cache=cache)
    print(f"{predictor.manifest.name}: converted, on {predictor.engine} {predictor.precision}")
for compiled in cache.rglob("*.blob"):
    compiled.unlink()  # for the CPU of this machine only
