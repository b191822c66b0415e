"""What a face encoder's graph reads right: held-out drawings as the detector finds them, heads, photographs.

`python -m faceavatar_export.toon.check_face_encoder face_encoder.onnx PACK [PHOTO...] [--count N]
[--crops crops.npz]` prints a table of each. PACK gives the detector. `--crops` keeps the aligned drawings,
since finding faces in them takes minutes. Knows no engine, and judges no photograph: a person must.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from faceavatar.errors import NoFaceFound
from faceavatar.face.align import align
from faceavatar.face.detect import FaceDetector
from faceavatar.image import load_image
from faceavatar_export.toon import colors, draw, face_data, styles
from faceavatar_export.toon.identity import (
    STYLES,
    Identity,
    Scene,
    read,
    sample_identity,
    sample_scene,
)

SEED, SIZE = 4242, 512
HOPELESS = 20  # drawings with fewer than three faces found: the style is taken to have none
ATTRIBUTES = ("female", "old", "glasses", "beard", "hair_length", "curly", "skin", "hair_color")
NEAR = {"skin": 12.0, "hair_color": 18.0}  # CIEDE2000 within which a colour counts as kept
_SLOTS = {"female": 17, "old": 18, "glasses": 15, "beard": 13, "hair_length": 7, "curly": 11}
Bytes = NDArray[np.uint8]
Heads = tuple[Bytes, NDArray[np.float32], int]  # (N, 128, 128, 3), (N, 24), found by the detector


class Reader:
    """A face encoder's graph: aligned heads in, identities out."""

    def __init__(self, graph: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, heads: Bytes) -> NDArray[np.float32]:
        """uint8 (N, 128, 128, 3) -> (N, 24)."""
        pixels = np.asarray(heads).transpose(0, 3, 1, 2).astype(np.float32)
        (embeds,) = self._session.run(None, {"aligned_face": (pixels - 127.5) / 127.5})
        return np.asarray(embeds)


def right(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> dict[str, bool | None]:
    """Attribute -> whether two embeddings say the same; None where the picture cannot tell it."""
    one, other = read(wanted), read(got)
    out: dict[str, bool | None] = {}
    for name in ATTRIBUTES:
        if name in NEAR:
            hairless = name == "hair_color" and not np.any(wanted[4:7])
            labs = [colors.rgb_to_lab(colors.hex_to_rgb(getattr(who, name))) for who in (one, other)]
            out[name] = None if hairless else bool(colors.ciede2000(*labs) <= NEAR[name])
        else:
            told = wanted[_SLOTS[name]] != 0
            out[name] = bool(getattr(one, name) == getattr(other, name)) if told else None
    return out


def portraits(style: str, count: int, seed: int = SEED) -> list[tuple[Identity, Scene]]:
    """People never trained on, in scenes of all kinds."""
    people = [draw.sample(seed, i * len(draw.STYLE_ORDER))[0] for i in range(count)]
    return [(who, sample_scene(np.random.default_rng((seed, i, 3)), style)) for i, who in enumerate(people)]


def drawn_heads(detector: FaceDetector, style: str, count: int) -> Heads:
    """Drawings as the detector aligns them; where it finds hardly any of the first twenty, as face_data."""
    heads, wanted = list[Bytes](), list[NDArray[np.float32]]()
    people = portraits(style, count)
    for k, (who, scene) in enumerate(people):
        if k == HOPELESS and len(heads) < 3:
            heads.clear()
            break
        picture = styles.composite(styles.draw_rgba(who, scene, SIZE), styles.background(scene, SIZE))
        try:
            heads.append(align(picture, detector.detect(picture).faces[0].landmarks, "head", 128))
        except NoFaceFound:
            continue
        wanted.append(face_data.told(who, scene))
    if heads:
        return np.stack(heads), np.stack(wanted), len(heads)
    rng = np.random.default_rng(SEED)
    made = [face_data.drawn(who, scene, rng)[0] for who, scene in people]
    return np.stack(made), np.stack([face_data.told(*pair) for pair in people]), 0


def photo_like_heads(count: int) -> Heads:
    """Photo-like heads of people as they are sampled, none of them trained on."""
    rng = np.random.default_rng((SEED, 1))
    made = [face_data.photo(sample_identity(rng), rng) for _ in range(count)]
    return np.stack([shown[0] for _, shown in made]), np.stack([seen for seen, _ in made]), count


def all_heads(pack: Path, count: int, kept: Path | None) -> dict[str, Heads]:
    """Style or "photo-like" -> heads (N, 128, 128, 3), embeddings (N, 24), how many the detector found."""
    if kept is not None and kept.exists():
        data = np.load(kept)
        names = [name.removesuffix(".heads") for name in data.files if name.endswith(".heads")]
        return {n: (data[f"{n}.heads"], data[f"{n}.wanted"], int(data[f"{n}.found"])) for n in names}
    detector = FaceDetector(pack / "face_detection_yunet.onnx")
    sets = {style: drawn_heads(detector, style, count) for style in STYLES}
    sets["photo-like"] = photo_like_heads(5 * count)
    if kept is not None:
        parts = {
            f"{name}.{part}": value
            for name, row in sets.items()
            for part, value in zip(("heads", "wanted", "found"), row, strict=True)
        }
        # numpy's stub takes any keyword for its own allow_pickle, a bool; ours all have a dot in them.
        np.savez_compressed(kept, **parts)  # type: ignore[arg-type]
    return sets


def drawings_table(reader: Reader, sets: dict[str, Heads]) -> dict[str, dict[str, float]]:
    """Style -> attribute -> share that is read right, of those that the picture tells."""
    table: dict[str, dict[str, float]] = {}
    for style, (heads, wanted, found) in sets.items():
        rows = [right(w, g) for w, g in zip(wanted, reader(heads), strict=True)]
        row: dict[str, float] = {"found": float(found)}
        for name in ATTRIBUTES:
            told = [r[name] is True for r in rows if r[name] is not None]
            row[name] = float(np.mean(told)) if told else float("nan")
        clear = [r["female"] is True for r, w in zip(rows, wanted, strict=True) if w[16] < 0]
        row["female, eyes seen"] = float(np.mean(clear))
        table[style] = row
    return table


def photos_table(reader: Reader, pack: Path, photos: Sequence[Path]) -> dict[str, dict[str, object]]:
    """Photo -> what is read in it, and the raw switches."""
    detector = FaceDetector(pack / "face_detection_yunet.onnx")
    table: dict[str, dict[str, object]] = {}
    for photo in photos:
        picture = load_image(photo)
        head = align(picture, detector.detect(picture).faces[0].landmarks, "head", 128)
        embeds = reader(head[None])[0]
        table[photo.name] = {**asdict(read(embeds)), "switches": [round(float(v), 2) for v in embeds[7:19]]}
    return table


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=100, help="of drawings a style")
    parser.add_argument("--crops", type=Path)
    args = parser.parse_args()
    reader = Reader(args.graph)
    table = drawings_table(reader, all_heads(args.pack, args.count, args.crops))
    names = list(next(iter(table.values())))
    print("| |" + "|".join(names) + "|\n|" + "---|" * (len(names) + 1))
    for style, row in table.items():
        cells = [f"{row[n]:.0f}" if n == "found" else f"{row[n]:.3f}" for n in names]
        print(f"| {style} |" + "|".join(cells) + "|")
    for name, seen in photos_table(reader, args.pack, args.photos).items():
        print(name, json.dumps(seen))


if __name__ == "__main__":
    main()
