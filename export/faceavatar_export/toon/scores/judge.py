"""What is seen in pictures: by the classifier trained on drawings, and by measuring pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from faceavatar_export.toon import colors

SIZE = 256  # of the classifier's input
Picture = NDArray[np.uint8]


class Judge:
    """The classifier as a graph. `names`: attribute -> its classes; `accuracy`: on drawings it never saw."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        meta = self._session.get_modelmeta().custom_metadata_map
        self.names: dict[str, list[str]] = json.loads(meta["names"])
        self.accuracy: dict[str, float] = json.loads(meta["accuracy"])

    def look(self, pictures: Sequence[Picture]) -> tuple[list[dict[str, str]], NDArray[np.float32]]:
        """uint8 (H, W, 3) pictures -> what is seen in each, attribute -> name; and features (B, 256)."""
        shape = (SIZE, SIZE)
        small = [np.asarray(Image.fromarray(p).resize(shape, Image.Resampling.BOX)) for p in pictures]
        image = np.stack(small).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        features, *logits = self._session.run(["features", *self.names], {"image": image})
        said = [x.argmax(1) for x in logits]
        seen = [
            {key: self.names[key][x[i]] for key, x in zip(self.names, said, strict=True)}
            for i in range(len(pictures))
        ]
        return seen, features


def background_of(picture: Picture) -> NDArray[np.float64]:
    """Median L*a*b* of the two upper corners."""
    h, w = picture.shape[0] // 12, picture.shape[1] // 12
    corners = np.concatenate([picture[:h, :w].reshape(-1, 3), picture[:h, -w:].reshape(-1, 3)])
    return np.asarray(colors.rgb_to_lab(np.median(corners, axis=0)))


def _patches(picture: Picture, boxes: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float64]:
    """Median L*a*b* of boxes (x, y, width, height) in the units of the vector art's bust, 280 a side."""
    unit = picture.shape[0] / 280
    parts = [
        picture[int(y * unit) : int((y + h) * unit), int(x * unit) : int((x + w) * unit)].reshape(-1, 3)
        for x, y, w, h in boxes
    ]
    return np.asarray(colors.rgb_to_lab(np.median(np.concatenate(parts), axis=0)))


def cheeks_of(picture: Picture) -> NDArray[np.float64]:
    """Median L*a*b* of both cheeks of an avatar in the vector style, bust framing."""
    return _patches(picture, ((100, 127, 10, 10), (170, 127, 10, 10)))


def hair_of(picture: Picture) -> NDArray[np.float64]:
    """Median L*a*b* of the hair over the middle of the forehead of a vector bust that has any."""
    return _patches(picture, ((115, 34, 50, 9),))


def color_distance(lab: NDArray[np.float64], color: str) -> float:
    """CIEDE2000 between L*a*b* numbers and a `#rrggbb`."""
    return float(colors.ciede2000(lab, colors.rgb_to_lab(colors.hex_to_rgb(color))))


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Between Gaussians fitted to features (N, D) and (M, D): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Heusel et al. 2017 (arXiv:1706.08500), with the judge's own features in place of Inception's.
    """
    mean1, mean2 = one.mean(0), other.mean(0)
    cov1, cov2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # tr((C1 C2)^(1/2)) is the sum of the roots of the eigenvalues of the symmetric R C2 R with R = C1^(1/2).
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = float(np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.maximum(inner, 0)).sum())
    return float(((mean1 - mean2) ** 2).sum()) + trace
