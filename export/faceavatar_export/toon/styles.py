"""Draws an identity in a scene: one room of options a style (art/), DiceBear's art, resvg's pixels.

Every style shows the same ideas (skin, hair, beard, glasses, gender, age, expression, clothing, headwear);
where the art lacks one, strokes of our own are laid over it.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Protocol

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image

from faceavatar_export.toon import backdrop, colors
from faceavatar_export.toon.art import ink, line, pixel, storybook, vector, voxel
from faceavatar_export.toon.art.frame import Frame, HairTable
from faceavatar_export.toon.identity import Identity, Scene


class Room(Protocol):
    """What each module of art/ holds: DiceBear's name of the art, its geometry, its hair and its options."""

    ART: str
    HAIR: HairTable

    @property
    def FRAME(self) -> Frame: ...

    def options(self, identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
        """DiceBear's options, and SVG shapes to lay over the art; `hair` is one of the names in HAIR."""


ROOMS: dict[str, Room] = {
    "vector": vector,
    "storybook": storybook,
    "ink": ink,
    "pixel": pixel,
    "voxel": voxel,
    "line": line,
}
ART = {name: room.ART for name, room in ROOMS.items()}
HEADROOM = 0.0625  # of the side lies free above a half-body's bust: a cell of pixel art
HALF_BODY = 0.75  # of the picture's side is the figure's bust in a half-body; below it goes on


@cache
def _style(art: str) -> Style:
    return Style(json.loads(files("dicebear_styles").joinpath(f"{art}.json").read_text("utf-8")))


def _under_hat(identity: Identity, scene: Scene) -> Identity:
    """High hair does not fit under a hat: it lies flat there."""
    if scene.headwear == "none" or identity.hair_length == "bald":
        return identity
    return replace(identity, curly=identity.curly and identity.hair_length == "long", bun=False)


def _hair(identity: Identity, scene: Scene) -> str:
    table = ROOMS[scene.style].HAIR
    worn = _under_hat(identity, scene)
    names = table["bun"] if worn.bun else table[(worn.hair_length, worn.curly)]
    return names[scene.variant % len(names)]


def view(scene: Scene) -> tuple[float, float, float]:
    """The square of the art that fills the picture: x, y, side. A half-body's bust is scaled down later."""
    if scene.style == "voxel" and scene.framing == "half-body":
        return voxel.HALF_BODY
    frame = ROOMS[scene.style].FRAME
    return frame.closeup if scene.framing == "close-up" else frame.bust


def _extended(scene: Scene) -> bool:
    return scene.framing == "half-body" and scene.style != "voxel"


def landmarks(scene: Scene, size: int) -> np.ndarray:
    """Eyes, nose and mouth corners, (5, 2) float64 x, y in pixels of a square picture `size` wide."""
    x, y, side = view(scene)
    points = (np.array(ROOMS[scene.style].FRAME.points, np.float64) - (x, y)) / side
    if _extended(scene):
        points = points * HALF_BODY + ((1 - HALF_BODY) / 2, HEADROOM)
    return np.asarray(points * size)


def to_svg(identity: Identity, scene: Scene, box: tuple[float, ...] | None = None) -> str:
    """The figure without its background, as SVG text framed as the scene asks (a half-body as its bust).

    `box` is another frame in the art's units: x, y, width, height.
    """
    options, overlay = ROOMS[scene.style].options(identity, scene, _hair(identity, scene))
    svg = Avatar(_style(ART[scene.style]), {"seed": "faceavatar", **options}).to_string()
    svg = re.sub(r"<metadata.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace("</svg>", overlay + "</svg>")
    x, y, side = view(scene)
    frame = " ".join(str(number) for number in box or (x, y, side, side))
    return re.sub(r'viewBox="[^"]*"', f'viewBox="{frame}"', svg, count=1)


def _render(svg: str, height: int, width: int) -> np.ndarray:
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, height=height, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def draw_rgba(identity: Identity, scene: Scene, size: int) -> np.ndarray:
    """The figure as uint8 (size, size, 4) with straight alpha."""
    inner = round(size * HALF_BODY) if _extended(scene) else size
    figure = _render(to_svg(identity, scene), inner, inner)
    return _extend(figure, size, round(size * HEADROOM)) if _extended(scene) else figure


def _extend(bust: np.ndarray, size: int, top: int) -> np.ndarray:
    """A bust set smaller into a picture; its last row goes on to the bottom as the body under it."""
    side = bust.shape[0]
    left = (size - side) // 2
    out = np.zeros((size, size, 4), np.uint8)
    out[top : top + side, left : left + side] = bust
    out[top + side :] = out[top + side - 1]
    return out


def draw_figure(identity: Identity, scene: Scene, height: int, width: int) -> np.ndarray:
    """The figure as uint8 (height, width, 4) with straight alpha, in a picture of any aspect ratio.

    It stands on the middle of the lower edge, as large as in a square of the shorter side; hair and hats that
    such a square would cut are whole.
    """
    side = min(height, width)
    left, top = (width - side) // 2, height - side
    if height == width or _extended(scene):  # a half-body is whole in its square
        rgba = np.zeros((height, width, 4), np.uint8)
        rgba[top:, left : left + side] = draw_rgba(identity, scene, side)
        return rgba
    x, y, shown = view(scene)
    unit = shown / side
    svg = to_svg(identity, scene, (x - left * unit, y - top * unit, width * unit, height * unit))
    # Without a size of its own, a picture's aspect ratio would be that of a viewBox in whole units.
    return _render(svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1), height, width)


def draw_canvas(identity: Identity, scene: Scene, height: int, width: int) -> np.ndarray:
    """The same figure before its background, uint8 (height, width, 3)."""
    return composite(draw_figure(identity, scene, height, width), background(scene, height, width))


def background(scene: Scene, height: int, width: int | None = None) -> np.ndarray:
    """The scene's background, float32 (height, width, 3) in 0..255; square without a width."""
    first, second = colors.hex_to_rgb(scene.background), colors.hex_to_rgb(scene.background_end)
    return backdrop.draw(scene.pattern, first, second, height, width or height)


def composite(rgba: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """uint8 RGBA over a 0..255 backdrop -> uint8 (H, W, 3)."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + behind * (1 - alpha)).astype(np.uint8)
