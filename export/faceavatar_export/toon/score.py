"""Scores a pack with the engine itself: are prompts obeyed, and do avatars keep the looks of the photo?

`python -m faceavatar_export.toon.score PACK CLASSIFIER.onnx PHOTO... --out FOLDER` writes scores.json,
scores.md and sheets. The classifier was trained on drawings alone (classifier.py); plain backgrounds and skin
are measured in pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import onnxruntime as ort
from PIL import Image

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import read

SEEDS = 4
CLASSIFIER_SIZE = 128
BACKGROUND_DELTA = 12.0
THUMB = 192
LOOKS_PROMPT = "flat vector cartoon of a {w}, smiling, light blue background"


class PromptScore(TypedDict):
    """How many of `of` pictures obeyed a prompt."""

    prompt: str
    photo: str
    obeyed: int
    of: int


class PhotoScore(TypedDict):
    """What was seen in most avatars of a photo; skin_ciede2000 is against the skin that the encoder read."""

    photo: str
    skin_ciede2000: float
    gender: str
    hair_length: str
    hair_color: str
    beard: str
    glasses: str
    background: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A prompt and what must be seen: attribute -> the names that count as obeyed."""

    prompt: str
    expected: dict[str, tuple[str, ...]]


WISHES = (
    Wish("vector cartoon of a {w}, smiling, blue background", {"background": ("blue",)}),
    Wish("portrait of a {w}, plain yellow background, flat vector cartoon", {"background": ("yellow",)}),
    Wish("a {w} on a white background, storybook illustration", {"background": ("white",)}),
    Wish("vector cartoon avatar, {w}, solid green background, happy", {"background": ("green",)}),
    Wish("laughing {w}, vector cartoon, orange background", {"expression": ("laugh",)}),
    Wish("a sad {w}, vector cartoon, gray background", {"expression": ("sad",)}),
    Wish("surprised {w}, storybook illustration, pink background", {"expression": ("surprised",)}),
    Wish("angry {w}, flat vector cartoon, red background", {"expression": ("angry",)}),
    Wish("{w} wearing a red t-shirt, vector cartoon, white background", {"garment_color": ("red",)}),
    Wish(
        "{w} in a green hoodie, vector cartoon, smiling",
        {"garment_color": ("green",), "garment": ("hoodie",)},
    ),
    Wish(
        "{w} wearing a navy blue jacket, vector cartoon",
        {"garment_color": ("navy blue",), "garment": ("jacket",)},
    ),
    Wish(
        "smiling {w} in a yellow t-shirt, storybook toon, light blue background",
        {"garment_color": ("yellow",)},
    ),
    Wish("pixel art portrait of a {w}, purple background", {"style": ("pixel",)}),
    Wish("comic ink drawing of a {w}, smiling, white background", {"style": ("ink",)}),
    Wish("storybook illustration of a {w}, smiling, teal background", {"style": ("storybook",)}),
    Wish("flat vector cartoon of a {w}, smiling, black background", {"style": ("vector",)}),
)


class OnnxClassifier:
    """The classifier as a graph: pictures in, the name seen for each attribute out."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        meta = self._session.get_modelmeta().custom_metadata_map
        self.names: dict[str, list[str]] = json.loads(meta["names"])

    def __call__(self, pictures: Sequence[np.ndarray]) -> dict[str, list[str]]:
        """uint8 (H, W, 3) pictures -> attribute -> name seen in each."""
        shape = (CLASSIFIER_SIZE, CLASSIFIER_SIZE)
        small = np.stack(
            [np.asarray(Image.fromarray(p).resize(shape, Image.Resampling.BOX)) for p in pictures]
        )
        image = small.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        logits = self._session.run(list(self.names), {"image": image})
        return {
            key: [self.names[key][i] for i in x.argmax(1)] for key, x in zip(self.names, logits, strict=True)
        }


def background_of(picture: np.ndarray) -> np.ndarray:
    """Median L*a*b* of the two upper corners."""
    h, w = picture.shape[0] // 12, picture.shape[1] // 12
    corners = np.concatenate([picture[:h, :w].reshape(-1, 3), picture[:h, -w:].reshape(-1, 3)])
    return np.asarray(colors.rgb_to_lab(np.median(corners, axis=0)))


def cheeks_of(picture: np.ndarray) -> np.ndarray:
    """Median L*a*b* of both cheeks of an avatar in the vector style, bust framing (art of 280 units)."""
    unit = picture.shape[0] / 280
    patches = [
        picture[int(127 * unit) : int(137 * unit), int(x * unit) : int((x + 10) * unit)] for x in (100, 170)
    ]
    return np.asarray(
        colors.rgb_to_lab(np.median(np.concatenate([p.reshape(-1, 3) for p in patches]), axis=0))
    )


def obeyed(wish: Wish, seen: dict[str, str], picture: np.ndarray) -> bool:
    """Whether all that the wish expects is seen; a background counts by its measured colour."""
    for key, names in wish.expected.items():
        if key == "background":
            target = colors.rgb_to_lab(colors.hex_to_rgb(colors.BACKGROUND_COLORS[names[0]]))
            near = colors.ciede2000(background_of(picture), target) < BACKGROUND_DELTA
            if not near:
                return False
        elif seen[key] not in names:
            return False
    return True


def score_prompts(
    engine: AvatarEngine,
    classifier: OnnxClassifier,
    photos: Sequence[Path],
    out: Path,
    seed: int = 100,
    guidance: float | None = None,
) -> list[PromptScore]:
    """Every wish with SEEDS seeds from `seed`, on the photos in turn; writes a sheet."""
    rows: list[PromptScore] = []
    sheet = []
    for i, wish in enumerate(WISHES):
        photo = photos[i % len(photos)]
        word = "woman" if read(_embedding(engine, photo)).female else "man"
        prompt = wish.prompt.format(w=word)
        request = AvatarRequest(image=photo, prompt=prompt, batch=SEEDS, seed=seed, guidance_scale=guidance)
        result = engine.generate(request)
        seen = classifier(result.images)
        good = [obeyed(wish, {k: v[j] for k, v in seen.items()}, p) for j, p in enumerate(result.images)]
        rows.append({"prompt": prompt, "photo": photo.name, "obeyed": sum(good), "of": SEEDS})
        sheet.append(np.concatenate([_thumb(p) for p in result.images], axis=1))
    half = len(sheet) // 2
    columns = [np.concatenate(sheet[:half]), np.concatenate(sheet[half:])]
    Image.fromarray(np.concatenate(columns, axis=1)).save(out / "prompts.png")
    return rows


def score_photos(
    engine: AvatarEngine, classifier: OnnxClassifier, photos: Sequence[Path], out: Path
) -> list[PhotoScore]:
    """Skin under the default prompt, other looks on light blue, where black hair shows; writes a sheet."""
    rows: list[PhotoScore] = []
    sheet = []
    for photo in photos:
        identity = read(_embedding(engine, photo))
        gender: Literal["woman", "man"] = "woman" if identity.female else "man"
        default = engine.generate(AvatarRequest(image=photo, gender=gender, batch=SEEDS, seed=7)).images
        prompt = LOOKS_PROMPT.format(w=gender)
        plain = engine.generate(AvatarRequest(image=photo, prompt=prompt, batch=SEEDS, seed=7)).images
        skin = colors.rgb_to_lab(colors.hex_to_rgb(identity.skin))
        delta = [float(colors.ciede2000(cheeks_of(p), skin)) for p in default]
        seen = classifier(plain)
        rows.append(
            {
                "photo": photo.name,
                "skin_ciede2000": round(float(np.median(delta)), 1),
                "gender": _majority(seen["female"]),
                "hair_length": _majority(seen["hair_length"]),
                "hair_color": _majority(seen["hair_color"]),
                "beard": _majority(seen["beard"]),
                "glasses": _majority(seen["glasses"]),
                "background": _majority(classifier(default)["background"]),
            }
        )
        source = np.asarray(Image.open(photo).convert("RGB").resize((THUMB, THUMB)))
        tiles = [source, *(_thumb(p) for p in (*default[:3], *plain[:3]))]
        sheet.append(np.concatenate(tiles, axis=1))
    Image.fromarray(np.concatenate(sheet)).save(out / "photos.png")
    return rows


def _embedding(engine: AvatarEngine, photo: Path) -> np.ndarray:
    return np.asarray(engine.look(photo).embeds[0])


def _majority(names: list[str]) -> str:
    return max(set(names), key=names.count)


def _thumb(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((THUMB, THUMB), Image.Resampling.LANCZOS))


def to_markdown(prompts: Sequence[PromptScore], photos: Sequence[PhotoScore]) -> str:
    """Both tables, as docs/toon-pack.md shows them."""
    lines = ["| prompt | photo | obeyed |", "|---|---|---|"]
    lines += [f"| {r['prompt']} | {r['photo']} | {r['obeyed']}/{r['of']} |" for r in prompts]
    keys = list(photos[0])
    lines += ["", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in photos]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack")
    parser.add_argument("classifier", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("scores"))
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--guidance", type=float)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    engine, classifier = AvatarEngine.load(args.pack, provider="cpu"), OnnxClassifier(args.classifier)
    prompts = score_prompts(engine, classifier, args.photos, args.out, args.seed, args.guidance)
    photos = score_photos(engine, classifier, args.photos, args.out)
    total = sum(row["obeyed"] for row in prompts) / sum(row["of"] for row in prompts)
    report = {"obedience": round(total, 3), "prompts": prompts, "photos": photos}
    (args.out / "scores.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "scores.md").write_text(to_markdown(prompts, photos))
    print(json.dumps({"obedience": report["obedience"], "photos": photos}, indent=1))


if __name__ == "__main__":
    main()
