"""InsightFace's own detector and recogniser, run by its package on the engine's sessions.

The package scales, pads, decodes and normalises; the graphs run in the provider that the engine uses, and a
fall back is refused there. Knows no pack. Sources: Guo et al., "Sample and Computation Redistribution for
Efficient Face Detection" (SCRFD), 2021; Deng et al., "ArcFace", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Session, TensorSpec, open_session
from faceavatar.errors import MissingExtra, NumericalError, SignatureMismatch
from faceavatar.face.detect import Face

# insightface's own defaults, held here so that a new version of it moves no face.
THRESHOLD, NMS_THRESHOLD = 0.5, 0.4
SCRFD_WIDTHS = (1, 1, 1, 4, 4, 4, 10, 10, 10)  # scores, boxes and landmarks at three strides
ARCFACE_SIDE = 112
Tensors = Mapping[str, TensorSpec]


class Scrfd:
    """A DetectorNet. It is sure from its threshold on: a face that insightface finds at 640 is taken."""

    threshold = sure = THRESHOLD

    def __init__(self, model: Path, provider: str, threads: int | None = None) -> None:
        """Raises MissingExtra without the package, SignatureMismatch for a graph that is no such detector."""
        package = model_zoo()
        session = open_session(model, provider, threads)
        problem = scrfd_problem(session.inputs, session.outputs)
        if problem is not None:
            raise SignatureMismatch(f"{model.name}: {problem}")
        self._net = package.SCRFD(session=_Runner(session))
        self._net.det_thresh, self._net.nms_thresh = THRESHOLD, NMS_THRESHOLD

    def look(self, image: NDArray[np.uint8], side: int, padding: float) -> list[Face]:
        border = round(padding * max(image.shape[:2]))
        if border:
            padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_CONSTANT)
            image = np.asarray(padded, np.uint8)
        height, width = image.shape[:2]
        if min(height, width) * side < max(height, width):
            return []  # a line of less than a pixel, which the package cannot scale
        boxes, landmarks = self._net.detect(_bgr(image), input_size=(side, side))
        return [_face(box, points, border) for box, points in zip(boxes, landmarks, strict=True)]


class ArcFace:
    """Crops of uint8 RGB (112, 112, 3) to embeddings (1, E), which are not brought to length 1."""

    def __init__(self, model: Path, provider: str, threads: int | None = None) -> None:
        """Raises MissingExtra without the package, SignatureMismatch for a graph that is no recogniser."""
        package = model_zoo()
        session = open_session(model, provider, threads)
        problem = arcface_problem(session.inputs, session.outputs)
        if problem is not None:
            raise SignatureMismatch(f"{model.name}: {problem}")
        self._net = package.ArcFaceONNX(model_file=str(model), session=_Runner(session))

    def embed(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raises NumericalError for NaN or infinite values."""
        embeds = np.asarray(self._net.get_feat(_bgr(crop)), np.float32)
        if not np.isfinite(embeds).all():
            raise NumericalError("face_encoder")
        return embeds


def scrfd_problem(inputs: Tensors, outputs: Tensors) -> str | None:
    """Why a graph with these inputs and outputs is no SCRFD with landmarks and free sides, or None."""
    taken, given = _shapes(inputs), _shapes(outputs)
    widths = tuple(shape[-1] for shape in given if shape)
    if [len(shape) for shape in taken] != [4] or widths != SCRFD_WIDTHS:
        return (
            "a detector has nine outputs, scores, boxes and landmarks at three strides, this graph has "
            f"{len(given)} or others; take SCRFD with landmarks (det_10g.onnx, scrfd_10g_bnkps.onnx)"
        )
    height, width = taken[0][2:]
    if isinstance(height, int) or isinstance(width, int):
        return f"the detector takes {width}x{height} only, which the ladder of scales cannot use"
    return None


def arcface_problem(inputs: Tensors, outputs: Tensors) -> str | None:
    """Why a graph with these inputs and outputs is no ArcFace recogniser, or None."""
    taken, given = _shapes(inputs), _shapes(outputs)
    right = len(taken) == len(given) == 1 and taken[0][1:] == (3, ARCFACE_SIDE, ARCFACE_SIDE)
    if right and len(given[0]) == 2 and isinstance(given[0][1], int):
        return None
    wanted = f"(B, 3, {ARCFACE_SIDE}, {ARCFACE_SIDE})"
    return f"a recogniser takes one {wanted} and gives one (B, E), this graph does not"


def _shapes(tensors: Tensors) -> list[tuple[int | str, ...]]:
    return [spec.shape for spec in tensors.values()]


def model_zoo() -> Any:
    """insightface.model_zoo. Raises MissingExtra where it, or what it needs, is not installed."""
    try:
        from insightface import model_zoo
    except ImportError as error:
        raise MissingExtra("insightface", getattr(error, "name", None) or "insightface") from error
    return model_zoo


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int | str, ...]


class _Runner:
    """A Session in the manner of onnxruntime's, which the package expects."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_inputs(self) -> list[_Tensor]:
        return [_Tensor(name, spec.shape) for name, spec in self._session.inputs.items()]

    def get_outputs(self) -> list[_Tensor]:
        return [_Tensor(name, spec.shape) for name, spec in self._session.outputs.items()]

    def get_providers(self) -> list[str]:
        return [self._session.provider]

    def run(self, names: Sequence[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        outputs = self._session.run(feeds)
        return [outputs[name] for name in names]


def _bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the package expects of its callers; it turns the channels for its nets itself."""
    return np.ascontiguousarray(image[..., ::-1])


def _face(row: NDArray[np.float32], points: NDArray[np.float32], border: int) -> Face:
    left, top, right, bottom, score = (float(value) for value in row)
    landmarks = np.asarray(points, np.float32) - np.float32(border)
    landmarks.setflags(write=False)
    return Face((left - border, top - border, right - left, bottom - top), landmarks, score)
