"""Makes the pictures that README.md and docs/toon-pack.md show, with the shipped pack.

    python scripts/gallery.py

Writes docs/images/readme.png and docs/images/gallery.jpg: a row a public-domain photo, a column a style.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import load_image

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "tests" / "fixtures" / "photos"
OUT = ROOT / "docs" / "images"
PEOPLE = {"astronaut": "woman", "macron": "man", "ardern": "woman", "obama": "man"}
STYLES = (
    None,
    "flat vector cartoon of a {w}, laughing, wearing a yellow t-shirt, teal background",
    "storybook illustration of a {w}, smiling, wearing a red t-shirt, light blue background",
    "comic ink drawing of a {w}, smiling, orange background",
    "pixel art portrait of a {w}, smiling, purple background",
)
TILE = 256


def square_photo(path: Path, face: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """The head and shoulders of a photo, (256, 256, 3)."""
    picture, (x, y, w, h) = load_image(path), face
    side = int(min(2.4 * h, *picture.shape[:2]))
    left = int(np.clip(x + w / 2 - side / 2, 0, picture.shape[1] - side))
    top = int(np.clip(y + h / 2 - side * 0.46, 0, picture.shape[0] - side))
    part = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(part.resize((TILE, TILE), Image.Resampling.LANCZOS))


def row(engine: AvatarEngine, name: str, seed: int) -> list[NDArray[np.uint8]]:
    """One photo and its avatar in every style."""
    photo = PHOTOS / f"{name}.jpg"
    tiles = [square_photo(photo, engine.look(photo).face.bbox)]
    for style in STYLES:
        prompt = style.format(w=PEOPLE[name]) if style else None
        request = AvatarRequest(
            image=photo, prompt=prompt, gender="woman" if PEOPLE[name] == "woman" else "man", seed=seed
        )
        picture = Image.fromarray(engine.generate(request).images[0])
        tiles.append(np.asarray(picture.resize((TILE, TILE), Image.Resampling.LANCZOS)))
    return tiles


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    engine = AvatarEngine.load("toon", provider="cpu")
    rows = {name: np.concatenate(row(engine, name, seed=7), axis=1) for name in PEOPLE}
    Image.fromarray(rows["ardern"]).save(OUT / "readme.png", optimize=True)
    Image.fromarray(np.concatenate(list(rows.values()))).save(OUT / "gallery.jpg", quality=90)


if __name__ == "__main__":
    main()
