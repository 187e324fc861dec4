"""Faces in an image: where they are, and what the network that scores gets to see of each.

What is found, and what is cut out around it, decide scores: whoever changes a constant here, or the weights, gives
``core.manifest.DETECTOR`` another number.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from core.verdicts import Face
from model.mtcnn import OUTPUT, PROPOSE, REFINE, Network
from model.preprocess import cut

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

#: Longer side of what is searched, in pixels: a larger image is reduced first, which bounds the time for it.
MAX_SIDE = 1600
#: Smallest face in that, by the longer side of its box, in pixels. The scoring network gets its square at three times
#: the size: in training, no more of the detail was lost.
MIN_FACE = 40
#: How sure the last network must be, in [0, 1]. With 0.7, the wheels of a motorcycle are faces; with 0.9, four times as
#: many portraits have none.
MIN_CONFIDENCE = 0.8
#: Faces of an image that are scored, the largest ones.
MOST_FACES = 64
#: Side of the square that is scored, in longer sides of the face. Training draws it from 1 to 2.2, around boxes of the
#: same networks. Here scores are on average within 0.01 of those of portraits as they are, and neighbours mostly out.
MARGIN = 1.8

#: What the first two networks must give a square for it to be looked at further, as the paper has it.
_MIN_PROPOSED, _MIN_REFINED = 0.6, 0.7
#: Squares that the second and the third network look at, at most.
_MOST_PROPOSED, _MOST_REFINED = 256, 96
#: Side of the squares that the first network looks at, and how far apart they are, in pixels.
_WINDOW, _STRIDE = 12, 2
#: Each step of the pyramid has half as many pixels.
_STEP = 0.709
#: Around the image: the middle of what the networks take.
_OUTSIDE = (128, 128, 128)


class FaceDetector:
    """Finds faces; safe to use from many threads."""

    def __init__(self, threads: int) -> None:
        """Load the networks.

        Args:
            threads: that will look for faces at once.

        Raises:
            ModelError: a package is not installed, or has other weights.
        """
        self._propose, self._refine, self._output = (
            Network(shape, threads=threads) for shape in (PROPOSE, REFINE, OUTPUT)
        )

    def find(self, image: Pixels) -> list[Face]:
        """Find the faces of an image.

        Args:
            image: RGB, uint8 of shape (height, width, 3), as it is shown.

        Returns:
            At most ``MOST_FACES``, the largest first.
        """
        frame, scale = _reduced(image)
        proposed = list(self._look_everywhere(frame))
        if not proposed:
            return []
        boxes, scores = (np.concatenate(part) for part in zip(*proposed, strict=True))
        boxes, scores = _distinct(boxes, scores, 0.7, most=_MOST_PROPOSED)
        boxes, scores = _look_again(frame, boxes, self._refine, REFINE.side, _MIN_REFINED)
        boxes, scores = _distinct(boxes, scores, 0.7, most=_MOST_REFINED)
        boxes, scores = _look_again(frame, boxes, self._output, OUTPUT.side, MIN_CONFIDENCE)
        boxes, scores = _distinct(boxes, scores, 0.7, most=_MOST_REFINED, is_nested_same=True)
        height, width = image.shape[:2]
        inside = np.rint(boxes / scale).clip(0, (width, height, width, height)).astype(int)
        faces = (
            Face(left, top, right - left, bottom - top, score)
            for (left, top, right, bottom), score in zip(inside.tolist(), scores.tolist(), strict=True)
        )
        large = [face for face in faces if min(face.width, face.height) > 0 and _longer(face) * scale >= MIN_FACE]
        return sorted(large, key=lambda face: (-face.width * face.height, face.x, face.y))[:MOST_FACES]

    def _look_everywhere(self, image: Pixels) -> Iterator[tuple[Floats, Floats]]:
        """Yield boxes that may be faces, and how likely they are, for each size of faces, the smallest first."""
        height, width = image.shape[:2]
        scale = _WINDOW / MIN_FACE
        smaller = image
        while min(height, width) * scale >= _WINDOW:
            size = round(width * scale), round(height * scale)
            smaller = cv2.resize(smaller, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            offsets, scores = self._propose.run(smaller[None])
            _, rows, columns = np.nonzero(scores > _MIN_PROPOSED)
            if len(rows):
                corners = np.stack([columns, rows], axis=1) * float(_STRIDE)
                boxes = np.concatenate([corners, corners + _WINDOW], axis=1) + offsets[0, rows, columns] * _WINDOW
                boxes *= np.array([width / size[0], height / size[1]] * 2)
                yield _distinct(boxes, scores[0, rows, columns].astype(float), 0.5, most=_MOST_PROPOSED)
            scale *= _STEP


def cut_face(image: Pixels, face: Face, preset: str) -> Pixels:
    """Return what the scoring network sees of a face: a square of ``MARGIN`` times its size, moved into the image.

    Args:
        image: as ``model.preprocess.decode_whole`` returns it.
        face: in it.
        preset: of the network, see ``model.preprocess``.

    Returns:
        uint8 of shape (224, 224, 3).
    """
    left, top, side = square_around(face, image.shape[1], image.shape[0])
    return cut(image, left, top, side, preset)


def square_around(face: Face, width: int, height: int) -> tuple[int, int, int]:
    """Return left edge, upper edge and side of the square that is scored, in pixels.

    It is moved into the image where it would reach beyond, and no larger than the image's shorter side.

    Args:
        face: in the image.
        width: of the image, in pixels.
        height: of the image, in pixels.
    """
    side = min(round(MARGIN * _longer(face)), width, height)
    left = round(face.x + (face.width - side) / 2)
    top = round(face.y + (face.height - side) / 2)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


def _longer(face: Face) -> int:
    return max(face.width, face.height)


def _reduced(image: Pixels) -> tuple[Pixels, float]:
    """Return the image, no larger than ``MAX_SIDE``, and its size in parts of what it was."""
    height, width = image.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return image, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), scale


def _look_again(image: Pixels, boxes: Floats, network: Network, side: int, least: float) -> tuple[Floats, Floats]:
    """Return the boxes, as squares and moved to where a network sees the face, that it finds likely enough."""
    if not len(boxes):
        return boxes, np.empty(0)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    corners = (boxes[:, :2] + boxes[:, 2:] - sides) / 2
    squares = np.concatenate([corners, corners + sides], axis=1)
    offsets, scores = network.run(np.stack([_patch(image, square, side) for square in squares]))
    likely = scores >= least
    return (squares + offsets * sides)[likely], scores[likely].astype(float)


def _patch(image: Pixels, square: Floats, side: int) -> Pixels:
    """Return a square of the image in another size; what lies outside the image is grey."""
    height, width = image.shape[:2]
    left, top, right, bottom = np.rint(square).astype(int).tolist()
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inside.size:
        return np.full((side, side, 3), _OUTSIDE, np.uint8)
    beyond = max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0)
    if any(beyond):
        inside = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_CONSTANT, value=_OUTSIDE).astype(np.uint8, copy=False)
    method = cv2.INTER_AREA if len(inside) >= side else cv2.INTER_LINEAR
    return cv2.resize(inside, (side, side), interpolation=method).astype(np.uint8, copy=False)


def _distinct(
    boxes: Floats, scores: Floats, most_shared: float, *, most: int, is_nested_same: bool = False
) -> tuple[Floats, Floats]:
    """Return the likeliest boxes, and of those that share too much of their areas only the likeliest.

    Args:
        boxes: left, top, right and bottom, of shape (n, 4).
        scores: of shape (n,).
        most_shared: share of both boxes' areas together, or of the smaller one's.
        most: how many to return at most.
        is_nested_same: whether the smaller one's area counts.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        widths = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        heights = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        shared = widths.clip(0) * heights.clip(0)
        whole = np.minimum(areas[best], areas[rest]) if is_nested_same else areas[best] + areas[rest] - shared
        order = rest[shared <= most_shared * whole]
    return boxes[kept], scores[kept]
