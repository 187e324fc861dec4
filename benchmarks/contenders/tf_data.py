"""``tf.data`` decodes in parallel and ahead, ``model.predict`` takes its batches: what TensorFlow's guides advise."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagesize

from contenders import Measured, Task, keras_network
from model.preprocess import SIDE, WHITE


def measure(task: Task, batch: int) -> Measured:
    """Score all pictures in one call of ``predict``."""
    network = keras_network.load(task.artifact)
    files = task.files
    network.predict(_pictures(files[: batch + 1], batch), verbose=0)  # a whole batch and one that is not
    started = time.perf_counter()
    scores = network.predict(_pictures(files, batch), verbose=0)[:, 0]
    return Measured(time.perf_counter() - started, scores.tolist())


def _pictures(files: Sequence[Path], batch: int) -> Any:
    import tensorflow as tf

    # As our own decoding does it: all pictures here have one size, or this would have to be found for each.
    least = min(imagesize.get(files[0]))
    ratio = max(ratio for ratio in (1, 2, 4, 8) if ratio == 1 or least // ratio >= SIDE)

    def read(path: Any) -> Any:
        # By default it decodes less exactly, no faster, and scores move by 0.005.
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        return tf.image.resize(pixels, (SIDE, SIDE)) / WHITE

    paths = tf.data.Dataset.from_tensor_slices([str(path) for path in files])
    return paths.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch).prefetch(tf.data.AUTOTUNE)
