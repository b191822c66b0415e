"""Our own strokes over smooth styles: hats, lashes, earrings, wrinkles, garments for art that has none.

Pixel and voxel art have blocks of their own instead (pixel.py, voxel.py).
"""

from __future__ import annotations

from faceavatar_export.toon.art.frame import Point, StrokeFrame, darker, place
from faceavatar_export.toon.identity import GOLD, Identity

INK = "#15110f"


def _shape(path: str, fill: str, frame: StrokeFrame) -> str:
    line = f' stroke="{INK}" stroke-width="{frame.outline}" stroke-linejoin="round"' if frame.outline else ""
    return f'<path d="{path}" fill="{fill}"{line}/>'


def hat(kind: str, color: str, frame: StrokeFrame) -> str:
    """A beanie with a turned-up band and a pompom, a cap with its brim to the right, or a crown."""
    if kind == "beanie":
        dome = place("M-1.04,0.1 C-1.1,-1.28 1.1,-1.28 1.04,0.1 Z", frame)
        band = place("M-1.1,-0.16 Q0,-0.34 1.1,-0.16 L1.1,0.2 Q0,0.02 -1.1,0.2 Z", frame)
        pompom = place(
            "M-0.2,-1.02 C-0.2,-1.36 0.2,-1.36 0.2,-1.02 C0.2,-0.72 -0.2,-0.72 -0.2,-1.02 Z", frame
        )
        pale = darker(color, 1.35)
        return _shape(pompom, pale, frame) + _shape(dome, color, frame) + _shape(band, pale, frame)
    if kind == "cap":
        dome = place("M-1.04,0.08 C-1.08,-1.26 1.08,-1.26 1.04,0.08 Z", frame)
        brim = place("M-1.04,0.1 Q0.2,-0.3 1.06,-0.12 Q1.75,-0.02 1.7,0.16 Q0.4,0.02 -1.04,0.1 Z", frame)
        return _shape(dome, color, frame) + _shape(brim, darker(color, 0.68), frame)
    if kind == "crown":
        rim = place(
            "M-0.92,0.1 L-1.06,-0.95 L-0.52,-0.42 L0,-1.15 L0.52,-0.42 L1.06,-0.95 L0.92,0.1 "
            "Q0,-0.06 -0.92,0.1 Z",
            frame,
        )
        jewels = "".join(
            _dot(place(f"{x},{y}", frame), 3.4 * frame.unit, fill)
            for x, y, fill in ((-0.5, -0.16, "#d23b4b"), (0, -0.3, "#3b7fd2"), (0.5, -0.16, "#d23b4b"))
        )
        return _shape(rim, color, frame) + jewels
    return ""


def _dot(center: str, radius: float, fill: str) -> str:
    x, y = center.split(",")
    return f'<circle cx="{x}" cy="{y}" r="{radius:.2f}" fill="{fill}"/>'


def marks(identity: Identity, frame: StrokeFrame, rosy: bool = False) -> str:
    """What tells age and gender: wrinkles; on women lashes, earrings on free ears, cheeks if `rosy`."""
    over = wrinkles(frame, identity.skin) if identity.old else ""
    if identity.female:
        over += blush(frame) if rosy else ""
        over += lashes(frame) if identity.glasses != "sunglasses" else ""
        over += earrings(frame) if identity.hair_length in ("bald", "short") or identity.bun else ""
    return over


def lashes(frame: StrokeFrame) -> str:
    """Two strokes at the outer corner of each eye, up and outwards."""
    u, r, lines = frame.unit, frame.eye, []
    (lx, ly), (rx, ry) = frame.points[:2]
    for x, y, side in ((lx, ly, -1), (rx, ry, 1)):
        for dx, dy in ((0.95, -0.45), (0.62, -0.8)):
            x0, y0 = x + side * dx * r, y + dy * r
            lines.append(f"M{x0:.1f} {y0:.1f}l{side * (dx * 7 + 1) * u:.1f} {dy * 7 * u:.1f}")
    return f'<path d="{"".join(lines)}" stroke="{INK}" stroke-width="{3 * u:.2f}" stroke-linecap="round"/>'


def earrings(frame: StrokeFrame) -> str:
    """A golden disc under each ear that is seen."""
    line = f' stroke="{INK}" stroke-width="{frame.outline * 0.6:.2f}"' if frame.outline else ""
    return "".join(
        f'<circle cx="{x}" cy="{y}" r="{4.6 * frame.unit:.2f}" fill="{GOLD}"{line}/>' for x, y in frame.ears
    )


def blush(frame: StrokeFrame) -> str:
    """Rosy cheeks."""
    u, cheeks = frame.unit, []
    (lx, ly), (rx, ry) = frame.points[:2]
    for x, y in ((lx - 7 * u, ly + 22 * u), (rx + 7 * u, ry + 22 * u)):
        cheeks.append(f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{9 * u:.1f}" ry="{6 * u:.1f}"/>')
    return f'<g fill="#ff4f6d" opacity="0.28">{"".join(cheeks)}</g>'


def wrinkles(frame: StrokeFrame, skin: str) -> str:
    """Lines beside the mouth, under the eyes and on the forehead, in a darker skin colour."""
    u, parts = frame.unit, []
    (lx, ly), (rx, ry), (_, ny), (ml, my), (mr, _) = frame.points
    for x, y, side, corner in ((lx, ly, -1, ml), (rx, ry, 1, mr)):
        parts.append(f"M{x - 8 * u:.1f} {y + 12 * u:.1f}q{8 * u:.1f} {5 * u:.1f} {16 * u:.1f} 0")
        start, end = corner + side * 1 * u, corner + side * 9 * u
        parts.append(f"M{start:.1f} {ny + 1 * u:.1f}Q{end:.1f} {ny + 7 * u:.1f} {end:.1f} {my + 5 * u:.1f}")
    middle, brow = (lx + rx) / 2, min(ly, ry) - 30 * u
    for k in (0, 1):
        w = (18 - 5 * k) * u
        parts.append(f"M{middle - w:.1f} {brow - 8 * k * u:.1f}q{w:.1f} {-3 * u:.1f} {2 * w:.1f} 0")
    color = darker(skin, 0.62)
    return (
        f'<path d="{"".join(parts)}" fill="none" stroke="{color}" stroke-width="{2.6 * u:.2f}" '
        'stroke-linecap="round"/>'
    )


def garment(kind: str, color: str, left: Point, low: Point, right: Point, frame: StrokeFrame) -> str:
    """A hood, lapels or a collar around the neckline that runs from `left` over `low` to `right`."""
    (lx, ly), (cx, cy), (rx, ry) = left, low, right
    w, d = (rx - lx) / 2, cy - min(ly, ry)
    if kind == "hoodie":
        band = f"M{lx - 0.25 * w},{ly - 0.3 * d} Q{cx},{cy + 1.5 * d} {rx + 0.25 * w},{ry - 0.3 * d} "
        band += f"L{rx - 0.05 * w},{ry - 0.35 * d} Q{cx},{cy + 0.5 * d} {lx + 0.05 * w},{ly - 0.35 * d} Z"
        cords = "".join(
            f'<path d="M{cx + s * 0.25 * w:.1f} {cy + 0.15 * d:.1f}v{0.9 * d:.1f}" stroke="#f4f1ea" '
            f'stroke-width="{5 * frame.unit:.1f}" stroke-linecap="round"/>'
            for s in (-1, 1)
        )
        return _shape(band, darker(color, 0.75), frame) + cords
    if kind == "jacket":
        shirt = f"M{lx},{ly} Q{cx},{cy + 0.7 * d} {rx},{ry} L{cx},{cy + 2.2 * d} Z"
        lapels = "".join(
            _shape(
                f"M{x},{y} L{cx},{cy + 2.2 * d} L{x + s * 0.45 * w},{cy + 1.2 * d} L{x + s * 0.3 * w},{y} Z",
                darker(color, 0.7),
                frame,
            )
            for x, y, s in ((lx, ly, -1), (rx, ry, 1))
        )
        return _shape(shirt, "#f4f1ea", frame) + lapels
    if kind == "collar":
        return "".join(
            _shape(
                f"M{x},{y - 0.25 * d} L{cx},{cy + 0.1 * d} L{cx + s * 0.55 * w},{cy + 0.95 * d} "
                f"L{x + s * 0.12 * w},{y} Z",
                "#f4f1ea",
                frame,
            )
            for x, y, s in ((lx, ly, -1), (rx, ry, 1))
        )
    return ""
