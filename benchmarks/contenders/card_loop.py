"""The loop of the published model's card: one picture at a time, decoded, scored, next. BGR and bilinear, as there."""

import time

import cv2
import numpy as np

from contenders import Measured, Task, keras_network


def measure(task: Task) -> Measured:
    """Score one picture after the other."""
    network = keras_network.load(task.artifact)

    def score(path: str) -> float:
        image = cv2.imread(path)
        image = cv2.resize(image, (224, 224))
        image = image / 255.0
        image = np.expand_dims(image, axis=0)
        return float(network.predict(image, verbose=0)[0][0])  # the card's prints a bar for each, which takes longer

    files = [str(path) for path in task.files]
    score(files[0])
    started = time.perf_counter()
    scores = [score(path) for path in files]
    return Measured(time.perf_counter() - started, scores)
