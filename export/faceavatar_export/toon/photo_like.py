"""Heads that look a little like photographs, with known labels, for the face encoder to learn from.

No photograph is used. A head is a shaded ellipsoid in the "head" alignment (eyes, nose and mouth stand where
`faceavatar.face.align` puts them), and what a camera may add is drawn at random: light, colour casts, blur,
noise, cut borders, backgrounds in the colours of skin and hair. Realism matters less than variety.
"""

from __future__ import annotations

import cv2
import numpy as np

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import Identity
from faceavatar_export.toon.photo_canvas import EYES, SIZE, Canvas, blob, blobs, noise
from faceavatar_export.toon.photo_hair import (
    Floats,
    Shape,
    ellipse,
    fill,
    hair_layers,
    line,
    outline,
    sample_shape,
)
from faceavatar_export.toon.photo_worn import glasses, hat

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _any_color(rng: np.random.Generator, person: Identity) -> Floats:
    """A colour of the world around a head, now and then that of its skin or hair."""
    kind = rng.random()
    if kind < 0.12:
        rgb = colors.hex_to_rgb(person.skin) * rng.uniform(0.7, 1.2)
    elif kind < 0.24:
        rgb = colors.hex_to_rgb(person.hair_color) * rng.uniform(0.7, 1.3)
    elif kind < 0.75:
        rgb = np.full(3, rng.uniform(0, 255)) + rng.normal(0, 14, 3)
    else:
        rgb = rng.uniform(0, 255, 3)
    return np.clip(rgb, 0, 255).astype(np.float32)


def backdrop(rng: np.random.Generator, person: Identity) -> Floats:
    """What lies behind a head, float32 (128, 128, 3): plain, gradient, blurred, striped, boxes, grain."""
    first, second = _any_color(rng, person), _any_color(rng, person)
    kind = rng.random()
    if kind < 0.25:
        t = np.zeros((SIZE, SIZE), np.float32)
    elif kind < 0.45:
        angle = rng.uniform(0, 2 * np.pi)
        t = np.clip(((_X - 64) * np.cos(angle) + (_Y - 64) * np.sin(angle)) / 120 + 0.5, 0, 1)
    elif kind < 0.7:
        t = np.clip(noise(rng, int(rng.integers(2, 9))) * 1.8 - 0.4, 0, 1)
    else:
        period, angle = rng.uniform(6, 60), rng.choice((0.0, np.pi / 2, rng.uniform(0, np.pi)))
        wave = np.sin((_X * np.cos(angle) + _Y * np.sin(angle)) * 2 * np.pi / period + rng.uniform(0, 6))
        t = np.asarray(wave > rng.uniform(-0.8, 0.8), np.float32)
    rgb = first + (second - first) * t[..., None]
    rgb = rgb + (noise(rng, int(rng.integers(3, 64)), 3) - 0.5) * rng.choice(
        (0, 15, 40, 110), p=(0.3, 0.3, 0.25, 0.15)
    )
    for _ in range(int(rng.integers(0, 4))):
        box = cv2.boxPoints(
            (tuple(rng.uniform(0, 128, 2)), tuple(rng.uniform(4, 70, 2)), rng.uniform(0, 180))
        )
        rgb += (_any_color(rng, person) - rgb) * fill(np.asarray(box, np.float64))[..., None]
    if rng.random() < 0.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.7, 6))
    return np.ascontiguousarray(np.clip(rgb, 0, 255), np.float32)


def _light(rng: np.random.Generator, shape: Shape) -> Floats:
    """Brightness of the head's surface (128, 128) under one lamp and the sky, about 1 on the cheeks."""
    u = (_X - shape.cx) / (shape.rx * 1.2)
    v = (_Y - 70) / ((shape.chin - shape.crown) * 0.6)
    z = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    strength = rng.uniform(0.1, 0.75)
    lamp = rng.normal(0, 0.6) * u + rng.normal(-0.25, 0.4) * v + rng.uniform(0.4, 1.0) * z
    return np.asarray(np.clip(1 + strength * (lamp - 0.55), 0.35, 1.45), np.float32)


def _skin_field(rng: np.random.Generator, person: Identity, shape: Shape, light: Floats) -> Floats:
    base = colors.hex_to_rgb(person.skin).astype(np.float32)
    red = blobs((52, 79, 6, 5), (76, 79, 6, 5), (64, 75, 6, 5)) * np.float32(rng.uniform(0, 0.12))
    tone = base * (1 + red[..., None] * np.array([0.6, -0.5, -0.4], np.float32))
    tone = tone * (light * (1 + (noise(rng, 20) - 0.5) * rng.uniform(0, 0.12)))[..., None]
    at = shape.cx - 64
    if person.hair_length == "bald" and rng.random() < 0.6:
        scalp = blobs(
            (64 + at + float(rng.normal(0, 6)), shape.crown + 9, rng.uniform(4, 10), rng.uniform(3, 6))
        )
        tone = tone + (scalp * np.float32(rng.uniform(10, 70)))[..., None]
    gloss = blobs((64 + at, 52, 9, 4), (52 + at, 74, 4, 3), (76 + at, 74, 4, 3))
    return np.asarray(tone + (gloss * rng.uniform(0, 40) * (rng.random() < 0.5))[..., None], np.float32)


def _body(c: Canvas, rng: np.random.Generator, person: Identity, shape: Shape, skin: Floats) -> None:
    """Neck and clothes."""
    half, top = rng.uniform(12, 16) if person.female else rng.uniform(14, 19), rng.uniform(98, 111)
    x = shape.cx * 0.5 + 32
    neck = np.array([[x - half, 88], [x + half, 88], [x + half + 3, top + 26], [x - half - 3, top + 26]])
    shadow = rng.uniform(0.55, 0.95)
    c.paint(fill(neck), skin * shadow, "skin")
    wide, low = rng.uniform(38, 75), rng.uniform(8, 22)
    left = [[x - half, top], [x - half - 12, top + low * 0.4], [x - wide, top + low], [x - wide - 10, 140]]
    dip = rng.uniform(0, 22) if rng.random() < 0.6 else 0
    right = [[2 * x - px, py] for px, py in left[::-1]]
    cloth = _any_color(rng, person)
    if rng.random() < 0.3:
        cloth = np.full(3, rng.uniform(10, 50), np.float32)
    stripes = (noise(rng, int(rng.integers(4, 64)), 3) - 0.5) * rng.choice((10, 30, 120), p=(0.6, 0.25, 0.15))
    c.paint(fill(np.array([*left, *right, [x, top + dip]])), np.clip(cloth + stripes, 0, 255))
    if rng.random() < 0.35:  # shirt and tie
        open_at = rng.uniform(8, 16)
        c.paint(
            fill(np.array([[x - open_at, top], [x + open_at, top], [x, top + 40]])), _any_color(rng, person)
        )
        if rng.random() < 0.6:
            c.paint(
                fill(np.array([[x - 3, top + 4], [x + 3, top + 4], [x + 4, 140], [x - 4, 140]])),
                _any_color(rng, person),
            )


def _eyes(c: Canvas, rng: np.random.Generator, person: Identity) -> None:
    iris = rng.choice(np.array([[60, 38, 25], [35, 25, 20], [90, 120, 150], [90, 110, 70]]), axis=0)
    hair = colors.hex_to_rgb(person.hair_color)
    brow = np.minimum(hair * rng.uniform(0.4, 0.9), 130)
    thick = rng.uniform(0.5, 1.1) if person.female else rng.uniform(0.9, 1.7)
    lift, open_eye = rng.uniform(3.6, 7), rng.uniform(0.8, 1.9)
    socket = rng.uniform(0.45, 0.95)
    for (x, y), side in zip(EYES, (-1, 1), strict=True):
        c.shade(blob(x, y - 1, 5.5, 3.5), socket)
        c.paint(fill(ellipse(x, y, 3.6, open_eye)), np.full(3, rng.uniform(150, 235)))
        c.paint(fill(ellipse(x, y, 1.6, min(1.7, open_eye))), iris)
        lid = np.array([[x - 4 * side, y + 0.2], [x, y - open_eye - 0.3], [x + 4.2 * side, y]])
        dark = rng.uniform(0.5, 1) if person.female else rng.uniform(0.2, 0.7)
        c.paint(line(lid, 0.9 if person.female else 0.6) * np.float32(dark), np.array([25, 18, 16]))
        arch = rng.uniform(0, 2)
        curve = np.array([[x - 5 * side, y - lift + 1], [x, y - lift - arch], [x + 6 * side, y - lift + 1]])
        c.paint(line(curve, thick) * np.float32(rng.uniform(0.5, 1)), brow)


def _nose_and_mouth(c: Canvas, rng: np.random.Generator, person: Identity) -> None:
    side = rng.choice((-1, 1))
    c.shade(blob(64 + 3.2 * side, 73, 1.8, 5), rng.uniform(0.75, 1))
    c.shade(blob(64, 79, 4, 1.6), rng.uniform(0.55, 0.9))
    for x in (62.2, 65.8):
        c.shade(blob(x, 78, 0.9, 0.7), rng.uniform(0.3, 0.8))
    if rng.random() < 0.4:
        for sign in (-1, 1):
            fold = np.array([[64 + 5 * sign, 77], [64 + 9 * sign, 82], [64 + 9.5 * sign, 87]])
            c.shade(line(fold, 0.7), rng.uniform(0.6, 0.95))
    skin, wide, thick = colors.hex_to_rgb(person.skin), rng.uniform(5.5, 8.5), rng.uniform(0.9, 2.2)
    made_up = person.female and rng.random() < 0.6
    lip = skin * np.array([0.9, 0.6, 0.6]) * rng.uniform(0.75, 1.05)
    if made_up:
        lip = lip * 0.5 + np.array([rng.uniform(130, 210), rng.uniform(20, 70), rng.uniform(40, 90)]) * 0.5
    smile = rng.uniform(-0.5, 2.5)
    lips = ellipse(64, 86, wide, thick * 1.4)
    lips[:, 1] -= smile * ((lips[:, 0] - 64) / wide) ** 2
    c.paint(fill(lips), lip)
    if rng.random() < 0.5:
        lips[:, 1] = 86 + (lips[:, 1] - 86) * 0.55
        inner = np.full(3, rng.uniform(170, 245)) if rng.random() < 0.8 else np.array([60, 20, 20])
        c.paint(fill((lips - [64, 0]) * [0.8, 1] + [64, 0]), inner)
    else:
        c.shade(line(np.array([[64 - wide, 86 - smile], [64, 86], [64 + wide, 86 - smile]]), 0.5), 0.5)
    c.shade(blob(64, 91, 4, 1.5), rng.uniform(0.75, 1))


def _folds(c: Canvas, rng: np.random.Generator, deep: float) -> None:
    """From the nose past the mouth, as smiles and years leave them."""
    for sign in (-1, 1):
        wide, low = rng.uniform(8.5, 11), rng.uniform(86, 91)
        fold = np.array([[64 + 5 * sign, 76.5], [64 + (wide - 0.8) * sign, 81], [64 + wide * sign, low]])
        c.shade(cv2.GaussianBlur(line(fold, rng.uniform(0.7, 1.5)), (0, 0), rng.uniform(0.3, 0.8)), deep)


def _age(c: Canvas, rng: np.random.Generator, person: Identity, shape: Shape) -> None:
    """Folds, bags, hoods, crow's feet, lines on forehead and neck, jowls, blotches, each seen or not.

    The young laugh too: one or two of these, fainter, say nothing.
    """
    signs = rng.random(7) < (0.75 if person.old else 0.12)
    deep = float(rng.uniform(0.45, 0.85) if person.old else rng.uniform(0.7, 0.97))
    if signs[0] or rng.random() < 0.3:
        _folds(c, rng, deep)
    for (x, y), sign in zip(EYES, (-1, 1), strict=True):
        if signs[1]:
            bag = np.array([[x - 4, y + 3], [x, y + rng.uniform(4.2, 5.6)], [x + 4, y + 3]])
            c.shade(line(bag, rng.uniform(0.5, 1.1)), deep)
            c.shade(blob(x, y + 4, 4, 2), 1 - (1 - deep) * 0.4)
        for k in (-1.5, 0.0, 1.5) if signs[2] else ():
            foot = np.array([[x + 5.5 * sign, y + 0.4 * k], [x + rng.uniform(8, 11) * sign, y + 1.6 * k]])
            c.shade(line(foot, 0.5), deep)
        if signs[3]:
            hood = np.array([[x - 4 * sign, y - 2.4], [x + 5 * sign, y - 0.6], [x + 6 * sign, y + 0.8]])
            c.shade(line(hood, rng.uniform(0.5, 1.0)), deep)
        if signs[4]:
            jowl = np.array([[64 + 9.5 * sign, 88], [64 + 12 * sign, 93], [64 + 14.5 * sign, 94.5]])
            c.shade(cv2.GaussianBlur(line(jowl, rng.uniform(0.8, 2)), (0, 0), 0.7), deep)
            cheek = np.array([[64 + 13 * sign, 76], [64 + 15 * sign, 84], [64 + 13.5 * sign, 90]])
            c.shade(cv2.GaussianBlur(line(cheek, 1.0), (0, 0), 0.7), deep * 0.5 + 0.5)
    for k in range(int(rng.integers(1, 5)) if signs[5] else 0):
        y = 56.5 - 2.6 * k + rng.normal(0, 0.3)
        c.shade(line(np.array([[54, y + 1], [64, y], [74, y + 1]]), rng.uniform(0.5, 0.9)), deep)
    if signs[6]:
        for k in (0, 1):
            cord = np.array(
                [[shape.cx - 9, 106 + 4 * k], [shape.cx, 108 + 4 * k], [shape.cx + 9, 106 + 4 * k]]
            )
            c.shade(line(cord, 0.8), deep)
        c.rgb *= 1 + (noise(rng, 40) - 0.5)[..., None] * c.skin[..., None] * np.float32(0.22 * person.old)


def _camera(c: Canvas, rng: np.random.Generator) -> Canvas:
    """Cut borders repeated outwards, a slightly wrong alignment, exposure, cast, blur, grain and JPEG."""
    x0, y0 = (int(rng.integers(1, high)) if rng.random() < 0.4 else 0 for high in (34, 40))
    x1, y1 = (int(rng.integers(low, 127)) if rng.random() < 0.35 else 127 for low in (94, 104))
    rows, cols = np.clip(np.arange(SIZE), y0, y1), np.clip(np.arange(SIZE), x0, x1)
    turn, scale = np.radians(rng.normal(0, 3.5)), rng.uniform(0.9, 1.1)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([64, 74.0])
    matrix = np.column_stack([linear, centre + rng.normal(0, 1.5, 2) - linear @ centre])
    stack = np.dstack([c.rgb, c.hair, c.skin])[np.ix_(rows, cols)]
    if rng.random() < 0.5:
        stack = stack[:, ::-1]
    halves = (np.ascontiguousarray(stack[..., :3]), np.ascontiguousarray(stack[..., 3:]))
    rgb, masks = (cv2.warpAffine(h, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE) for h in halves)
    rgb = cv2.pow(np.clip(rgb / 255, 0, 1), rng.uniform(0.75, 1.25)) * 255
    rgb = rgb * (rng.uniform(0.75, 1.2) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    if rng.random() < 0.6:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.4))
    rgb = np.clip(
        rgb + rng.standard_normal(rgb.shape, np.float32) * np.float32(rng.uniform(0, 6)), 0, 255
    ).astype(np.uint8)
    if rng.random() < 0.5:
        jpeg = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))])[1]
        rgb = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED), np.uint8)
    return Canvas(rgb.astype(np.float32), *(np.asarray(m, np.float32) for m in cv2.split(masks)))


def draw(person: Identity, rng: np.random.Generator, headwear: str = "none") -> Canvas:
    """One head of `person`, everything else at random; the canvas' `rgb` holds whole numbers 0..255.

    headwear: one of photo_worn.HEADWEAR; it covers what hair it covers.
    """
    shape = sample_shape(person.female, rng)
    light = _light(rng, shape)
    skin = _skin_field(rng, person, shape, light)
    hair = hair_layers(person, shape, light, rng)
    c = Canvas(backdrop(rng, person))
    c.paint(hair.back, hair.color * 0.75, "hair")
    _body(c, rng, person, shape, skin)
    for side in (-1, 1):
        c.paint(
            fill(ellipse(shape.cx + side * (shape.rx + 0.3), 71, rng.uniform(1.5, 3.2), 6.5)),
            skin * 0.88,
            "skin",
        )
    c.paint(fill(outline(shape)), skin, "skin")
    _eyes(c, rng, person)
    c.paint(hair.beard, hair.color * hair.beard_tone, "hair" if person.beard != "none" else "skin")
    _nose_and_mouth(c, rng, person)
    _age(c, rng, person, shape)
    if person.beard != "none":
        c.paint(hair.moustache, hair.color * hair.beard_tone, "hair")
    c.shade(cv2.GaussianBlur(hair.front, (0, 0), 3) * (1 - hair.front), rng.uniform(0.7, 1))
    c.paint(hair.front, hair.color, "hair")
    glasses(c, rng, person, shape)
    hat(c, rng, headwear, shape, _any_color(rng, person))
    return _camera(c, rng)
