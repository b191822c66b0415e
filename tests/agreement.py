"""Exports a checkpoint for a test, and holds the pack to diffusers picture by picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar import AvatarEngine
from faceavatar_export.diffusion.checkpoint import AS_IT_IS, Reading, open_checkpoint
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.face_adapter import read_face_adapter
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import (
    LARGEST_DIFFERENCE,
    Case,
    compare,
    engine_pictures,
    make_face,
    reference_pictures,
)

CROP = {"sdxl": 256}


@dataclass(frozen=True)
class Exported:
    """A pack that was exported, and what it was made of."""

    pack: Path
    source: Path
    adapter: Path | None
    clip: Path | None
    report: dict[str, Any]
    reading: Reading = AS_IT_IS


def export(
    source: Path, out: Path, adapter: Path | None = None, clip: Path | None = None, **more: Any
) -> Exported:
    options = Options(
        str(source),
        out,
        out.name,
        "CC0-1.0",
        face_adapter=adapter,
        image_encoder=clip,
        proof_sizes=((256, 256), (264, 328)),
        **more,
    )
    return Exported(out, source, adapter, clip, export_pack(options, lambda words: None), options.reading)


def assert_proved(made: Exported) -> None:
    """The proof that the export ran by itself: two sizes, batches 1 and 2, no bound missed, none flat."""
    rows = [row for row in made.report["pipeline"] if row["strength"] is None]
    assert made.report["misses"] == []
    assert sorted((row["height"], row["width"], row["batch"]) for row in rows) == [
        (256, 256, 1),
        (256, 256, 2),
        (264, 328, 1),
        (264, 328, 2),
    ]
    for row in rows:
        assert row["max_difference"] <= LARGEST_DIFFERENCE
        assert row["spread"] > 10


def assert_agree(made: Exported, cases: list[Case]) -> list[NDArray[np.uint8]]:
    """Further cases drawn by both engines; gives the pack's pictures, uint8 (B, H, W, 3) a case."""
    from transformers import CLIPVisionModelWithProjection

    adapter = None if made.adapter is None else read_face_adapter(made.adapter)
    encoder = None
    if made.clip is not None:
        encoder = CLIPVisionModelWithProjection.from_pretrained(made.clip).eval()
    checkpoint, engine = (
        open_checkpoint(made.source, reading=made.reading),
        AvatarEngine.load(made.pack, provider="cpu"),
    )
    face = make_face(adapter, CROP.get(checkpoint.family, 224))
    expected = reference_pictures(checkpoint, adapter, encoder, face, cases, engine._schedule)
    pictures = engine_pictures(engine, face, cases)
    for row in compare(cases, pictures, expected):
        assert row["max_difference"] <= LARGEST_DIFFERENCE, row
    return pictures
