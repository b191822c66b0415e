"""Scores a pack with the engine itself: are prompts obeyed, is the person kept, are the pictures good?

`python -m faceavatar_export.toon.score PACK CLASSIFIER.onnx PHOTO... --out FOLDER` writes scores.json,
scores.md and sheets of what was judged. `--quick` asks a quarter of the questions and leaves the curves out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from faceavatar import AvatarEngine
from faceavatar.image import load_image
from faceavatar_export.toon.scores.judge import Judge, Picture
from faceavatar_export.toon.scores.likeness import (
    Kept,
    PhotoScore,
    consistency,
    drawn_references,
    photo_score,
)
from faceavatar_export.toon.scores.obedience import Obedience, obedience
from faceavatar_export.toon.scores.quality import Quality, against, curves, quality

TILE = 160
MATTERS = ("female", "hair_length", "hair_color", "beard", "glasses", "old")


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a score is held against; `most` for those that must stay below."""

    name: str
    bound: float
    most: bool = False

    def met(self, value: float) -> bool:
        """Whether the value is on the right side."""
        return value <= self.bound if self.most else value >= self.bound


THRESHOLDS = (
    Threshold("obedience", 0.95),
    Threshold("worst attribute", 0.85),
    Threshold("drawn gender kept", 0.95),
    Threshold("drawn glasses kept", 0.95),
    Threshold("drawn beard kept", 0.95),
    Threshold("drawn hair length kept", 0.95),
    Threshold("photos: worst skin, CIEDE2000", 12.0, most=True),
    Threshold("photos: worst hair, CIEDE2000", 18.0, most=True),
    Threshold("broken pictures", 0.02, most=True),
)


@dataclass(frozen=True, slots=True)
class Scores:
    """All that is measured of a pack."""

    obeyed: Obedience
    kept: Kept
    photos: list[PhotoScore]
    alike: float
    quality: Quality
    curves: dict[str, float]
    providers: dict[str, tuple[float, float]]

    def held(self) -> dict[str, float]:
        """The value of each threshold."""
        share = {key: kept / max(1, of) for key, (kept, _, of) in self.kept.counts.items()}
        hair = [p.hair_ciede2000 for p in self.photos if p.hair_ciede2000 is not None]
        return {
            "obedience": self.obeyed.share,
            "worst attribute": min(self.obeyed.shares().values()),
            "drawn gender kept": share["female"],
            "drawn glasses kept": share["glasses"],
            "drawn beard kept": share["beard"],
            "drawn hair length kept": share["hair_length"],
            "photos: worst skin, CIEDE2000": max(p.skin_ciede2000 for p in self.photos),
            "photos: worst hair, CIEDE2000": max(hair, default=0.0),
            "broken pictures": self.quality.broken,
        }


def measure(pack: str, judge: Judge, photos: Sequence[Path], quick: bool) -> Scores:
    """Asks everything of a pack on the CPU provider."""
    engine = AvatarEngine.load(pack, provider="cpu")
    size = 1 if quick else 4
    obeyed = obedience(engine, judge, 50 * size)
    providers: dict[str, tuple[float, float]] = {}
    if not quick and find_spec("openvino"):
        providers["openvino"] = against(engine, AvatarEngine.load(pack, provider="openvino"), judge, 24)
    return Scores(
        obeyed,
        drawn_references(engine, judge, 30 * size),
        [photo_score(engine, judge, photo) for photo in photos],
        consistency(engine, judge, 3 * size),
        quality(judge, obeyed.pictures),
        {} if quick else curves(engine, judge, 40),
        providers,
    )


def to_json(scores: Scores) -> dict[str, object]:
    """The numbers without the pictures."""
    return {
        "held": {key: round(value, 4) for key, value in scores.held().items()},
        "obedience": {key: [a, b, c] for key, (a, b, c) in scores.obeyed.counts.items()},
        "ceiling": round(scores.obeyed.ceiling, 4),
        "drawn": {key: [a, b, c] for key, (a, b, c) in scores.kept.counts.items()},
        "drawn_not_found": scores.kept.not_found,
        "photos": [
            {
                "photo": p.photo,
                "skin_ciede2000": round(p.skin_ciede2000, 1),
                "hair_ciede2000": None if p.hair_ciede2000 is None else round(p.hair_ciede2000, 1),
                **{key: p.seen[key] for key in MATTERS},
            }
            for p in scores.photos
        ],
        "consistency": round(scores.alike, 4),
        "frechet": round(scores.quality.frechet, 2),
        "frechet_of_drawings": round(scores.quality.floor, 2),
        "broken": round(scores.quality.broken, 4),
        "broken_drawings": round(scores.quality.broken_drawings, 4),
        "curves": {key: round(value, 4) for key, value in scores.curves.items()},
        "providers": {key: [round(a, 1), round(b, 4)] for key, (a, b) in scores.providers.items()},
    }


def to_markdown(scores: Scores) -> str:
    """The tables of docs/toon-pack.md."""
    held = scores.held()
    lines = ["| score | wanted | measured | |", "|---|---|---|---|"]
    for t in THRESHOLDS:
        sign, mark = ("<=" if t.most else ">="), ("met" if t.met(held[t.name]) else "missed")
        lines.append(f"| {t.name} | {sign} {t.bound:g} | {held[t.name]:.3g} | {mark} |")
    lines += ["", "| attribute | obeyed | drawings of the same scenes | named |", "|---|---|---|---|"]
    for key, (a, b, c) in scores.obeyed.counts.items():
        lines.append(f"| {key.replace('_', ' ')} | {a / b:.0%} | {c / b:.0%} | {b} |")
    total = sum(n for _, n, _ in scores.obeyed.counts.values())
    lines.append(f"| **all** | **{scores.obeyed.share:.1%}** | {scores.obeyed.ceiling:.1%} | {total} |")
    lines += [
        "",
        "| of drawn references | kept in the avatar | read by the encoder | of |",
        "|---|---|---|---|",
    ]
    for key, (a, b, c) in scores.kept.counts.items():
        lines.append(f"| {key.replace('_', ' ')} | {a / max(1, c):.0%} | {b / max(1, c):.0%} | {c} |")
    keys = ("photo", "skin", "hair", *MATTERS)
    lines += ["", "| " + " | ".join(k.replace("_", " ") for k in keys) + " |", "|" + "---|" * len(keys)]
    for p in scores.photos:
        hair = "-" if p.hair_ciede2000 is None else f"{p.hair_ciede2000:.1f}"
        cells = [p.photo, f"{p.skin_ciede2000:.1f}", hair, *(p.seen[key] for key in MATTERS)]
        lines.append("| " + " | ".join(cells) + " |")
    if scores.curves:
        lines += ["", "| " + " | ".join(scores.curves) + " |", "|" + "---|" * len(scores.curves)]
        lines.append("| " + " | ".join(f"{v:.0%}" for v in scores.curves.values()) + " |")
    return "\n".join(lines) + "\n"


def sheet(pictures: Sequence[Picture], texts: Sequence[str], columns: int) -> Image.Image:
    """Tiles with the beginning of their prompts under them."""
    rows = -(-len(pictures) // columns)
    out = Image.new("RGB", (columns * TILE, rows * (TILE + 12)), "white")
    pen = ImageDraw.Draw(out)
    for i, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x, y = i % columns * TILE, i // columns * (TILE + 12)
        out.paste(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
        pen.text((x + 1, y + TILE), text[: TILE // 6], fill="black")
    return out


def write_sheets(scores: Scores, photos: Sequence[Path], out: Path) -> None:
    """prompts.png and photos.png"""
    sheet(scores.obeyed.pictures, scores.obeyed.prompts, 10).save(out / "prompts.png")
    tiles, texts = [], []
    for photo, score in zip(photos, scores.photos, strict=True):
        tiles += [load_image(photo), *score.pictures]
        texts += [photo.name, "default prompt", "default prompt", "light blue", "light blue"]
    sheet([np.asarray(t) for t in tiles], texts, 5).save(out / "photos.png")


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack")
    parser.add_argument("classifier", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("scores"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    scores = measure(args.pack, Judge(args.classifier), args.photos, args.quick)
    (args.out / "scores.json").write_text(json.dumps(to_json(scores), indent=1) + "\n")
    (args.out / "scores.md").write_text(to_markdown(scores))
    write_sheets(scores, args.photos, args.out)
    print(to_markdown(scores))


if __name__ == "__main__":
    main()
