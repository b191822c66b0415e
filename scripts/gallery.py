"""Makes the pictures that README.md and docs/toon-pack.md show, with the shipped pack.

    python scripts/gallery.py

Writes docs/images/readme.png, two photos in every style, and docs/images/gallery.jpg: the public-domain
photos, six styles, four prompts each. Seeds are fixed and nothing is picked by hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import load_image

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "tests" / "fixtures" / "photos"
OUT = ROOT / "docs" / "images"
PEOPLE = {"astronaut": "woman", "macron": "man", "ardern": "woman", "obama": "man"}
STYLES = {
    "vector": "flat vector cartoon",
    "storybook": "storybook illustration",
    "ink": "comic ink drawing",
    "pixel": "pixel art",
    "voxel": "voxel art",
    "line": "line drawing",
}
PROMPTS = (
    "{s} of a {w}, smiling, light blue background",
    "{s} of a {w}, laughing, wearing a red beanie and a yellow t-shirt, teal background",
    "{s} of a {w}, surprised, in a purple hoodie, orange and white striped background",
    "{s} of an old {w} with a crown, serious, navy blue jacket, half-body shot, pink background",
)
TILE, SEED = 160, 7
Picture = NDArray[np.uint8]


def face_box(engine: AvatarEngine, path: Path) -> tuple[float, float, float, float]:
    """Where the face is in a photo: (x, y, width, height)."""
    face = engine.look(path).face
    assert face is not None  # it is None for handed-in embeddings alone
    return face.bbox


def square_photo(path: Path, face: tuple[float, float, float, float], side: int) -> Picture:
    """The head and shoulders of a photo, (side, side, 3)."""
    picture, (x, y, w, h) = load_image(path), face
    reach = int(min(2.4 * h, *picture.shape[:2]))
    left = int(np.clip(x + w / 2 - reach / 2, 0, picture.shape[1] - reach))
    top = int(np.clip(y + h / 2 - reach * 0.46, 0, picture.shape[0] - reach))
    part = Image.fromarray(picture[top : top + reach, left : left + reach])
    return np.asarray(part.resize((side, side), Image.Resampling.LANCZOS))


def small(picture: Picture, side: int = TILE) -> Picture:
    """The picture (side, side, 3)."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def block(engine: AvatarEngine, name: str) -> Picture:
    """A photo beside its 24 avatars: a row a prompt, a column a style."""
    path = PHOTOS / f"{name}.jpg"
    rows = []
    for prompt in PROMPTS:
        requests = [
            AvatarRequest(image=path, prompt=prompt.format(s=words, w=PEOPLE[name]), seed=SEED)
            for words in STYLES.values()
        ]
        rows.append(np.concatenate([small(engine.generate(r).images[0]) for r in requests], axis=1))
    photo = np.full((len(rows) * TILE, 2 * TILE, 3), 255, np.uint8)
    photo[: 2 * TILE] = square_photo(path, face_box(engine, path), 2 * TILE)
    return np.concatenate([photo, np.concatenate(rows)], axis=1)


def header() -> Picture:
    """The styles' names over their columns."""
    strip = Image.new("RGB", ((2 + len(STYLES)) * TILE, 16), "white")
    pen = ImageDraw.Draw(strip)
    for column, name in enumerate(STYLES):
        pen.text(((2 + column) * TILE + 4, 2), name, fill="black")
    return np.asarray(strip)


def readme_row(engine: AvatarEngine, name: str) -> Picture:
    """One photo, the default prompt, and the six styles."""
    path = PHOTOS / f"{name}.jpg"
    word: str = PEOPLE[name]
    tiles = [square_photo(path, face_box(engine, path), TILE)]
    default = AvatarRequest(image=path, gender="woman" if word == "woman" else "man", seed=SEED)
    tiles.append(small(engine.generate(default).images[0]))
    for words in STYLES.values():
        request = AvatarRequest(image=path, prompt=PROMPTS[0].format(s=words, w=word), seed=SEED)
        tiles.append(small(engine.generate(request).images[0]))
    return np.concatenate(tiles, axis=1)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    engine = AvatarEngine.load("toon", provider="cpu")
    rows = [readme_row(engine, name) for name in ("ardern", "obama")]
    Image.fromarray(np.concatenate(rows)).save(OUT / "readme.png", optimize=True)
    blocks = [header(), *(block(engine, name) for name in PEOPLE)]
    Image.fromarray(np.concatenate(blocks)).save(OUT / "gallery.jpg", quality=85)


if __name__ == "__main__":
    main()
