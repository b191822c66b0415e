"""Finds faces and their five landmarks: the ladder of scales, and YuNet through OpenCV's own runtime.

Knows when to look again and which sight counts; other nets come from rooms of their own. Does not know what a
face is used for, nor where the picture came from.
Source: Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import NoFaceFound

LADDER = (640, 320, 1024)
PADDED_LADDER = (640, 320)
PADDING = 0.5  # a close crop has no context around the face; black borders give it some
SCORE_THRESHOLD = 0.6
# A close crop is seen at 640 too, but poorly: on crops of four photos the landmarks were then up to 0.17 of
# the distance of the eyes off, and 0.05 at a rung that was sure. Whole faces score above this at once.
SURE = 0.9
SAME_FACE = 0.3  # overlap (intersection over union) from which two rungs are taken to see one face
NMS_THRESHOLD = 0.3
TOP_K = 200

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One face in pixels of the picture given.

    bbox: (x, y, width, height). landmarks: (5, 2) float32, x then y: the eye, nose tip and mouth corners,
    left before right *as seen in the picture*. score: 0..1.
    """

    bbox: Box
    landmarks: NDArray[np.float32]
    score: float

    @property
    def area(self) -> float:
        return self.bbox[2] * self.bbox[3]


@dataclass(frozen=True)
class Detection:
    """faces: largest first, never empty. attempt: the rung that saw the largest best: "640", "padded 640"."""

    faces: tuple[Face, ...]
    attempt: str


class DetectorNet(Protocol):
    """A net that the ladder asks. threshold: the score from which it says face; sure: from which it is."""

    threshold: float
    sure: float

    def look(self, image: NDArray[np.uint8], side: int, padding: float) -> list[Face]:
        """The faces in uint8 RGB (H, W, 3), in its pixels, seen with its longer side brought to `side`.

        padding: black borders on every side, as a part of the longer side; they are within `side`.
        """


class FaceDetector:
    """The ladder over a net, for pictures of any size; safe to share between threads.

    net: YuNet's file, or another net.
    """

    def __init__(self, net: Path | DetectorNet) -> None:
        self._net = YuNet(net) if isinstance(net, Path) else net

    def detect(self, image: NDArray[np.uint8]) -> Detection:
        """Find the faces in a uint8 RGB (H, W, 3) picture, largest first.

        The ladder ends at the rung that is sure of the largest face; of a face that none is sure of, the best
        sight counts. Raises NoFaceFound when no rung finds one.
        """
        seen: list[tuple[Face, str]] = []
        tried: list[str] = []
        for attempt, side, padding in _rungs():
            threshold = self._net.sure if seen else self._net.threshold
            for face in self._net.look(image, side, padding):
                _note(seen, face, attempt, threshold)
            seen.sort(key=lambda sight: (-sight[0].area, sight[0].bbox))
            if seen and seen[0][0].score >= self._net.sure:
                break
            tried.append(attempt)
        if seen:
            return Detection(tuple(face for face, _ in seen), seen[0][1])
        height, width = image.shape[:2]
        raise NoFaceFound(
            f"no face in the {width}x{height} picture (tried {', '.join(tried)} px); use a picture of one "
            "person looking at the camera, in which the face is at least 5 % of the width and not cut off"
        )


class YuNet:
    """A DetectorNet. Its net keeps the size of its input as state, so looks are taken one by one."""

    threshold, sure = SCORE_THRESHOLD, SURE

    def __init__(self, model: Path) -> None:
        self._net = _quietly_open(model)
        self._lock = threading.Lock()

    def look(self, image: NDArray[np.uint8], side: int, padding: float) -> list[Face]:
        picture, scale = _scaled(image, round(side / (1 + 2 * padding)))
        margin = round(round(padding * max(image.shape[:2])) * scale)
        if margin:
            padded = cv2.copyMakeBorder(picture, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
            picture = np.asarray(padded, np.uint8)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)  # YuNet was trained on OpenCV's channel order
        with self._lock:
            self._net.setInputSize((picture.shape[1], picture.shape[0]))
            _, rows = self._net.detect(bgr)
        found = [] if rows is None else np.asarray(rows, np.float32)
        return [_face(row, float(margin), scale) for row in found]


def _note(seen: list[tuple[Face, str]], face: Face, attempt: str, threshold: float) -> None:
    """Add a face to those seen, or let it take the place of a poorer sight of the same one.

    A new one has to reach the threshold: beside a face that is known, a wrong scale sees one in half of it.
    """
    for index, (known, rung) in enumerate(seen):
        if _overlap(known.bbox, face.bbox) > SAME_FACE:
            if rung != attempt and face.score > known.score:
                seen[index] = face, attempt
            return
    if face.score >= threshold:
        seen.append((face, attempt))


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def _quietly_open(model: Path) -> cv2.FaceDetectorYN:
    # OpenCV 5 warns on stderr that its new graph engine ignores the target, which is the CPU either way.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return cv2.FaceDetectorYN.create(str(model), "", (320, 320), SCORE_THRESHOLD, NMS_THRESHOLD, TOP_K)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _rungs() -> Iterator[tuple[str, int, float]]:
    """Yield (name, side, padding)."""
    for side in LADDER:
        yield str(side), side, 0.0
    for side in PADDED_LADDER:
        yield f"padded {side}", side, PADDING


def _scaled(image: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale == 1.0:
        return image, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8), scale


def _face(row: NDArray[np.float32], offset: float, scale: float) -> Face:
    x, y, width, height = (float(value) for value in row[:4])
    bbox = ((x - offset) / scale, (y - offset) / scale, width / scale, height / scale)
    landmarks = ((row[4:14].reshape(5, 2) - offset) / scale).astype(np.float32)
    landmarks.setflags(write=False)
    return Face(bbox, landmarks, float(row[14]))
