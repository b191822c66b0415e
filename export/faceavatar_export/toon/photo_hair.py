"""Outlines, hair and beards of the photo-like heads: where hair lies, and how strands catch the light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import Identity

SIZE = 128
Floats = NDArray[np.float32]
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Shape:
    """A head's outline in pixels: middle column, half width, rows of skull and chin, shape of the jaw."""

    cx: float
    rx: float
    crown: float
    chin: float
    jaw: float


@dataclass(frozen=True, slots=True)
class Layers:
    """Masks (128, 128) of hair behind the body and before the face and of the beard; their colours."""

    back: Floats
    front: Floats
    beard: Floats
    moustache: Floats
    color: Floats
    beard_tone: float


def fill(points: NDArray[np.floating]) -> Floats:
    """A polygon (N, 2) as an antialiased mask."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(mask.astype(np.float32) / 255, np.float32)


def line(points: NDArray[np.floating], width: float) -> Floats:
    """A polyline (N, 2) `width` pixels thick, also below one pixel, as a mask."""
    mask = np.zeros((SIZE * 2, SIZE * 2), np.uint8)
    whole = max(1, round(width * 2))
    cv2.polylines(mask, [np.rint(points * 32).astype(np.int32)], False, 255, whole, cv2.LINE_AA, 4)
    small = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) * np.float32(min(1.0, width * 2 / whole) / 255)


def ellipse(x: float, y: float, rx: float, ry: float, square: float = 1.0) -> NDArray[np.float64]:
    """Points (48, 2) of an ellipse; `square` below 1 makes it a rounded box."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    co, si = np.cos(t), np.sin(t)
    return np.column_stack(
        [x + rx * np.sign(co) * np.abs(co) ** square, y + ry * np.sign(si) * np.abs(si) ** square]
    )


def sample_shape(female: bool, rng: np.random.Generator) -> Shape:
    """Random proportions; the middle column wanders, as it does when a head turns."""
    return Shape(
        cx=64 + float(np.clip(rng.normal(0, 2.5), -7, 7)),
        rx=rng.uniform(17.5, 22.5) + (0.0 if female else 0.8),
        crown=rng.uniform(36, 44),
        chin=rng.uniform(96, 104) + (0.0 if female else 1.0),
        jaw=rng.uniform(0.75, 1.0) if female else rng.uniform(0.55, 0.9),
    )


def outline(shape: Shape, grow: float = 0.0) -> NDArray[np.float64]:
    """Points (64, 2) of the skull and jaw, clockwise from the right cheekbone, `grow` pixels outwards."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    co, si = np.cos(t), np.sin(t)
    power = np.where(si > 0, shape.jaw, 0.9)
    x = shape.cx + (shape.rx + grow) * np.sign(co) * np.abs(co) ** power
    return np.column_stack([x, 70 + si * np.where(si > 0, shape.chin + grow - 70, 70 + grow - shape.crown)])


@cache
def _textures(curly: bool) -> tuple[Floats, ...]:
    """Sixteen fields (256, 256) of strands (running down) or curls, mean 0, deviation 1."""
    rng, found = np.random.default_rng(7 + curly), []
    for _ in range(16):
        noise: NDArray[np.floating] = rng.standard_normal((256, 256)).astype(np.float32)
        if curly:
            noise = np.abs(cv2.GaussianBlur(noise, (0, 0), rng.uniform(1.2, 3)))
        else:
            across, along = rng.uniform(0.6, 2), rng.uniform(8, 25)
            noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along), np.float32)
        found.append(np.asarray((noise - noise.mean()) / noise.std(), np.float32))
    return tuple(found)


def _color_field(person: Identity, shape: Shape, light: Floats, rng: np.random.Generator) -> Floats:
    """Hair colour (128, 128, 3): strands fan out from a parting and hang below the temples, and shine."""
    texture = _textures(person.curly)[int(rng.integers(16))]
    px, py = np.float32(shape.cx + rng.normal(0, 6)), np.float32(shape.crown + rng.uniform(8, 30))
    angle = np.arctan2(_X - px, np.maximum(py - _Y, np.float32(0.5))) * 22
    u = angle + np.where(py < _Y, (_X - px) * 0.7, 0)
    v = np.hypot(_X - px, _Y - py)
    if person.curly:
        u, v = _X, _Y
    off = rng.uniform(0, 256, 2)
    at = [np.asarray((w + o) % 255, np.float32) for w, o in zip((u, v), off, strict=True)]
    strands = cv2.remap(texture, at[0], at[1], cv2.INTER_LINEAR)
    base = colors.hex_to_rgb(person.hair_color).astype(np.float32)
    second = (base * rng.uniform(0.6, 1.3) + rng.normal(0, 6, 3)).astype(np.float32)
    mix = np.clip(0.5 + strands * rng.uniform(0.1, 0.5), 0, 1)[..., None]
    rgb = base * (1 - mix * 0.5) + second * mix * 0.5
    middle, width = rng.uniform(22, 36), rng.uniform(2, 5)
    ring = (np.hypot(_X - shape.cx, _Y - 72) - np.float32(middle)) / np.float32(width)
    gloss = np.exp(-(ring**2))
    gloss = gloss * np.clip(0.5 + 0.5 * strands, 0, 1.5) * rng.uniform(0, 45) * (rng.random() < 0.6)
    tone = (0.75 + 0.25 * light) * (1 + strands * rng.uniform(0.03, 0.22)) * rng.uniform(0.85, 1.1)
    return np.asarray(np.clip(rgb * tone[..., None] + gloss[..., None], 2, 255), np.float32)


def _rough(points: NDArray[np.float64], curly: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """The outline with the bumps of curls or the small unevenness of combed hair, resampled to 160 points."""
    at = np.linspace(0, len(points), 160, endpoint=False)
    closed = np.vstack([points, points[:1]])
    dense = np.column_stack([np.interp(at, np.arange(len(closed)), closed[:, k]) for k in (0, 1)])
    t = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    size = rng.uniform(0.7, 2.2) if curly else rng.uniform(0.1, 0.8)
    waves = sum(np.sin(t * rng.integers(5, 34) + rng.uniform(0, 6)) for _ in range(4)) * size / 2
    away = dense - dense.mean(0)
    return np.asarray(dense + away / np.linalg.norm(away, axis=1, keepdims=True) * np.asarray(waves)[:, None])


def _opening(shape: Shape, person: Identity, rng: np.random.Generator) -> Floats:
    """The bare part of the face, below a hairline that may recede, part at a side, or be a fringe."""
    inner = shape.rx * rng.uniform(0.78, 1.0)
    kind = rng.random()
    fringe = kind < (0.35 if person.female else 0.2) and not person.bun
    middle = rng.uniform(55, 61.5) if fringe else rng.uniform(45, 54)
    corner = middle + (rng.uniform(-2, 3) if fringe else rng.uniform(-2, 9))
    peak = rng.uniform(-0.6, 0.6)
    x = np.linspace(-1, 1, 15)
    y = middle + (corner - middle) * x**2 + rng.uniform(-3.5, 3.5) * (x - peak) * (rng.random() < 0.6)
    if not fringe and kind > 0.85:  # receding temples
        y -= 5 * np.exp(-(((np.abs(x) - 0.6) / 0.25) ** 2))
    top = np.column_stack([shape.cx + inner * x, y])
    side = [
        [shape.cx + inner * 1.02, 74],
        [shape.cx + inner * rng.uniform(0.85, 1.05), 92],
        [shape.cx + 12, 106],
    ]
    other = [[2 * shape.cx - px, py] for px, py in side[::-1]]
    return fill(np.vstack([top, side, other]))


def _long_outline(shape: Shape, end: float, rng: np.random.Generator) -> NDArray[np.float64]:
    grow = rng.uniform(1.5, 6)
    cap = outline(shape, grow)
    cap = cap[cap[:, 1] <= 72]
    cap = cap[np.argsort(cap[:, 0])]
    flare = rng.uniform(-4, 14) if end > 108 else rng.uniform(-6, 8)
    reach = shape.rx + grow
    uneven = rng.uniform(-4, 4)
    left = [[shape.cx - reach - flare * 0.5, (72 + end) / 2], [shape.cx - reach - flare, end + uneven]]
    right = [[shape.cx + reach + flare, end - uneven], [shape.cx + reach + flare * 0.5, (72 + end) / 2]]
    return np.vstack([left[::-1], cap, right[::-1]])


def _side_gap(shape: Shape, long_hair: bool, rng: np.random.Generator) -> Floats:
    """Where neck and chest show between the hair that falls before the shoulders."""
    half = shape.rx * rng.uniform(0.35, 0.95)
    low = half * rng.uniform(0.5, 1.6)
    gap = fill(
        np.array([[shape.cx - half, 88], [shape.cx + half, 88], [shape.cx + low, 140], [shape.cx - low, 140]])
    )
    choice = rng.random() if long_hair else 1.0
    if choice < 0.15:
        gap = np.maximum(gap, ((shape.cx < _X) & (_Y > 98)).astype(np.float32))
    elif choice < 0.3:
        gap = np.maximum(gap, ((shape.cx > _X) & (_Y > 98)).astype(np.float32))
    elif choice < 0.4:
        gap = np.maximum(gap, (_Y > 104).astype(np.float32))
    return gap


def _head_hair(person: Identity, shape: Shape, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(back, front) masks of the hair on the head."""
    none = np.zeros((SIZE, SIZE), np.float32)
    if person.hair_length == "bald":
        if rng.random() < 0.65:
            return none, none
        ring = fill(outline(shape, rng.uniform(0.5, 2.5))) * (
            1 - fill(outline(shape, -rng.uniform(1.5, 3.5)))
        )
        return none, np.asarray(ring * ((rng.uniform(54, 62) < _Y) & (_Y < 74)), np.float32)
    opening = _opening(shape, person, rng)
    if person.hair_length == "short" or person.bun:
        flat = person.bun or rng.random() < 0.3
        volume = rng.uniform(0.3, 2) if flat else rng.uniform(1, 11 if person.female else 7)
        skull = outline(shape, volume * rng.uniform(0.3, 1))
        skull[:, 1] -= np.where(skull[:, 1] < 60, volume * 0.6, 0)
        low = rng.uniform(60, 76) + (rng.uniform(0, 8) if person.female else 0)
        cut = np.clip((low - _Y) / rng.uniform(1, 6) + 0.5, 0, 1)
        front = fill(_rough(skull, person.curly, rng)) * cut * (1 - opening)
        back = none
        if person.bun:
            at = (shape.cx + rng.normal(0, 4), shape.crown - rng.uniform(0, 9))
            back = fill(_rough(ellipse(*at, rng.uniform(6, 12), rng.uniform(6, 11)), person.curly, rng))
        return back, np.asarray(front, np.float32)
    long_hair = person.hair_length == "long"
    end = rng.uniform(116, 150) if long_hair else rng.uniform(86, 106)
    if person.curly and not long_hair and rng.random() < 0.5:
        whole = fill(
            _rough(ellipse(shape.cx, rng.uniform(58, 66), shape.rx + rng.uniform(6, 16), 34), True, rng)
        )
    else:
        whole = fill(_rough(_long_outline(shape, end, rng), person.curly, rng))
    hidden = np.maximum(opening, _side_gap(shape, long_hair, rng))
    return whole, np.asarray(whole * (1 - hidden), np.float32)


def _beard(person: Identity, shape: Shape, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(beard, moustache) masks; a shaven man may show a shadow of a beard."""
    grain = 1 + 0.25 * _textures(True)[int(rng.integers(16))][:SIZE, :SIZE]
    jaw = fill(outline(shape, rng.uniform(-0.5, 2.5)))
    top = rng.uniform(78, 84)
    left = [[64 - 11, top], [shape.cx - shape.rx, top - 9]]
    right = [[shape.cx + shape.rx, top - 9], [64 + 11, top]]
    high = [[shape.cx - 40, 0], [shape.cx + 40, 0]]
    area = jaw * (1 - fill(np.array([*high, *right, [64, top + 4], *left])))
    if rng.random() < 0.3 and person.beard == "full":
        area = area * (np.abs(_X - shape.cx) < rng.uniform(9, 15))  # a goatee
    wide, droop, soft = rng.uniform(7, 10.5), rng.uniform(0, 3), rng.uniform(0.4, 1.6)
    lip = np.array([[64 - wide, 85 + droop], [60, 80], [64, 80.5], [68, 80], [64 + wide, 86], [64, 84]])
    soft_area = np.float32(cv2.GaussianBlur(area, (0, 0), soft)) * grain
    soft_lip = np.float32(cv2.GaussianBlur(fill(lip), (0, 0), soft)) * grain
    none = np.zeros((SIZE, SIZE), np.float32)
    if person.beard == "none":
        shadow = 0.0 if person.female else float(rng.choice((0, 0.1, 0.22)))
        return np.asarray(np.clip(soft_area, 0, 1) * shadow, np.float32), none
    density = rng.uniform(0.7, 1)
    moustache = np.asarray(np.clip(soft_lip * density * 1.1, 0, 1), np.float32)
    if person.beard == "moustache":
        return none, moustache
    return np.asarray(np.clip(soft_area * density, 0, 1), np.float32), (
        moustache if rng.random() < 0.9 else none
    )


def hair_layers(person: Identity, shape: Shape, light: Floats, rng: np.random.Generator) -> Layers:
    """All hair of one head, cut and combed at random within what the identity says."""
    back, front = _head_hair(person, shape, rng)
    beard, moustache = _beard(person, shape, rng)
    return Layers(
        back, front, beard, moustache, _color_field(person, shape, light, rng), rng.uniform(0.7, 1.05)
    )
