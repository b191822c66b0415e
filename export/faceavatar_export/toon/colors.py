"""Colours as people name them, and as CIE L*a*b* numbers. Knows nothing of faces or pictures."""

from __future__ import annotations

from functools import cache

import numpy as np

SKIN_TONES = ("#ffe3cf", "#f6cfae", "#eab68c", "#d29a6c", "#b57a4b", "#8d5a36", "#5f3b28", "#3d261b")

HAIR_COLORS = {
    "black": "#1c1614",
    "dark brown": "#3a2619",
    "brown": "#633f26",
    "light brown": "#8f6640",
    "blond": "#d2ab66",
    "platinum blond": "#eadbb8",
    "red": "#9c3c1f",
    "ginger": "#c9682f",
    "gray": "#8e8c8a",
    "white": "#e6e4e1",
    "pink": "#e573a8",
    "blue": "#3f6fd0",
    "green": "#3f9d63",
}

CLOTH_COLORS = {
    "red": "#c8262c",
    "orange": "#f2822b",
    "yellow": "#f5cf3a",
    "green": "#2f9e4f",
    "teal": "#1fa3a0",
    "blue": "#3577d8",
    "navy blue": "#1d2f5f",
    "purple": "#7d3fb5",
    "pink": "#f07fb0",
    "white": "#f2f2f0",
    "gray": "#8c8f94",
    "black": "#1f2023",
    "brown": "#7a5236",
}

BACKGROUND_COLORS = {
    "black": "#000000",
    "white": "#ffffff",
    "gray": "#909398",
    "red": "#cf3434",
    "orange": "#f39a3d",
    "yellow": "#f8dc5c",
    "green": "#49b069",
    "teal": "#35b0ab",
    "blue": "#3f86e0",
    "light blue": "#a9d6f5",
    "navy blue": "#17264f",
    "purple": "#8450c0",
    "pink": "#f5a3c7",
    "beige": "#ead9bd",
    "brown": "#7d573c",
}

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def hex_to_rgb(color: str) -> np.ndarray:
    """`#rrggbb` -> (3,) float64 in 0..255."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def rgb_to_hex(rgb: np.ndarray) -> str:
    """(3,) in 0..255 -> `#rrggbb`."""
    r, g, b = np.clip(np.rint(rgb), 0, 255).astype(int)
    return f"#{r:02x}{g:02x}{b:02x}"


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) sRGB in 0..255 -> (..., 3) CIE L*a*b*, D65 (IEC 61966-2-1, CIE 15:2004)."""
    c = np.asarray(rgb, dtype=np.float64) / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """(..., 3) CIE L*a*b*, D65 -> (..., 3) sRGB clipped to 0..255."""
    lab = np.asarray(lab, dtype=np.float64)
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f**3 > 216 / 24389, f**3, (116 * f - 16) / (24389 / 27)) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_RGB_TO_XYZ).T, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(rgb, 0, 1) * 255)


def jitter(color: str, rng: np.random.Generator, amount: float) -> str:
    """The colour moved by a normal deviate of `amount` L*a*b* units on each axis."""
    return rgb_to_hex(lab_to_rgb(rgb_to_lab(hex_to_rgb(color)) + rng.normal(0, amount, 3)))


@cache
def _palette(items: tuple[tuple[str, str], ...]) -> tuple[list[str], np.ndarray]:
    return [name for name, _ in items], rgb_to_lab(np.stack([hex_to_rgb(color) for _, color in items]))


def nearest_name(color: str, names: dict[str, str]) -> str:
    """The name in `names` (name -> `#rrggbb`) whose colour lies nearest in L*a*b*."""
    keys, labs = _palette(tuple(names.items()))
    return keys[int(np.argmin(((labs - rgb_to_lab(hex_to_rgb(color))) ** 2).sum(axis=1)))]


def ciede2000(lab1: np.ndarray, lab2: np.ndarray) -> np.ndarray:
    """CIEDE2000 colour difference of (..., 3) L*a*b* arrays (Sharma, Wu and Dalal 2005, equations 2-22)."""
    l1, a1, b1 = np.moveaxis(np.asarray(lab1, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(lab2, np.float64), -1, 0)
    c_mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(c_mean**7 / (c_mean**7 + 25.0**7)))
    a1p, a2p = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1p, b1), np.hypot(a2p, b2)
    h1 = np.degrees(np.arctan2(b1, a1p)) % 360
    h2 = np.degrees(np.arctan2(b2, a2p)) % 360
    grey = c1 * c2 == 0
    dh = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    hsum = np.where(np.abs(h1 - h2) > 180, h1 + h2 + np.where(h1 + h2 < 360, 360, -360), h1 + h2)
    h = np.where(grey, h1 + h2, hsum / 2)
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rc = 2 * np.sqrt(cm**7 / (cm**7 + 25.0**7))
    rt = -np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2)))) * rc
    dl, dc = (l2 - l1) / sl, (c2 - c1) / sc
    dhh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2) / sh
    return np.asarray(np.sqrt(dl**2 + dc**2 + dhh**2 + rt * dc * dhh))
