"""The geometry of a style: its views, five face points and what strokes over it must know. Knows no identity.

All numbers are in the units of the style's own art.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Point = tuple[float, float]
HairTable = dict[
    tuple[str, bool] | str, tuple[str, ...]
]  # (length, curly) or "bun" -> the art's names for it


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a style's figure is.

    `bust` and `closeup` are viewBoxes (x, y, side). `points` are eyes, nose and mouth corners, left to right
    in the picture.
    """

    bust: tuple[float, float, float]
    closeup: tuple[float, float, float]
    points: tuple[Point, Point, Point, Point, Point]


@dataclass(frozen=True, slots=True)
class StrokeFrame(Frame):
    """The frame of a smooth style, which takes the strokes of strokes.py.

    `hat` is (centre x, rim y, half width, height). `outline` is the width of its black outlines, 0 for none.
    `unit` is a hundredth of the face's width, for strokes; `eye` half an eye's width.
    """

    hat: tuple[float, float, float, float]
    ears: tuple[Point, ...]
    outline: float
    unit: float
    eye: float


def place(path: str, frame: StrokeFrame) -> str:
    """A path in hat units (x -1..1 over the head, y 0 at the rim, -1 at the top) in the units of the art."""
    center, rim, width, height = frame.hat

    def to_art(match: re.Match[str]) -> str:
        x, y = (float(v) for v in match.group().split(","))
        return f"{center + x * width:.2f},{rim + y * height:.2f}"

    return re.sub(r"-?[\d.]+,-?[\d.]+", to_art, path)


def darker(color: str, factor: float) -> str:
    """`#rrggbb` times `factor`; factors above 1 lighten towards white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    if factor <= 1:
        mixed = [round(p * factor) for p in parts]
    else:
        mixed = [round(p + (255 - p) * (factor - 1)) for p in parts]
    return "#" + "".join(f"{p:02x}" for p in mixed)
