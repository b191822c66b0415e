"""The pictures of docs/matting.md: original, alpha, on magenta, on black, a row a way of cutting out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matting_truth import Case
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from faceavatar.matting import over

Bytes = NDArray[np.uint8]
TILE, LABEL = 240, 16
SHOWN = {"drawn": (0, 5, 8), "hair": (0, 2)}  # cases, fixed beforehand


def row(image: Bytes, cut: Bytes) -> Bytes:
    """Original, alpha, on magenta, on black, each of TILE pixels a side."""
    alpha = np.asarray(cut[..., 3] / 255, np.float32)
    parts = [image, np.repeat(cut[..., 3:], 3, axis=2)]
    parts += [over(cut[..., :3], alpha, color) for color in ("#ff00ff", "#000000")]
    small = [Image.fromarray(part).resize((TILE, TILE), Image.Resampling.LANCZOS) for part in parts]
    return np.concatenate([np.asarray(part) for part in small], axis=1)


def labelled(rows: Mapping[str, Bytes]) -> Image.Image:
    """Rows under each other, each beneath its name."""
    width, height = 4 * TILE, len(rows) * (TILE + LABEL)
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, picture) in enumerate(rows.items()):
        y = index * (TILE + LABEL)
        pen.text((4, y + 2), name, fill="black")
        sheet.paste(Image.fromarray(picture), (0, y + LABEL))
    return sheet


def write_pictures(
    folder: Path, kind: str, cases: Sequence[Case], cuts: Mapping[str, Sequence[Bytes]]
) -> None:
    """FOLDER/matting-KIND-N.jpg for a few cases: ours, and rembg's best two where they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in cuts if not name.endswith(("post-processed", "plain"))]
    for number, index in enumerate(i for i in SHOWN[kind] if i < len(cases)):
        rows = {"the truth": row(cases[index].image, _truth(cases[index]))}
        rows |= {name: row(cases[index].image, cuts[name][index]) for name in wanted}
        labelled(rows).save(folder / f"matting-{kind}-{number}.jpg", quality=82, optimize=True)


def _truth(case: Case) -> Bytes:
    return np.dstack([np.rint(case.foreground), np.rint(case.alpha * 255)]).astype(np.uint8)
