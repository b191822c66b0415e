"""Figures as a pack draws them, cut out of plain backgrounds by their colour: alpha that no net has guessed.

`python -m faceavatar_export.toon.keyed_figures PACK FOLDER --count N` writes FOLDER/pictures.npy, uint8
(N, 512, 512, 4) with straight alpha, and FOLDER/scenes.jsonl, what they were to show. The pack draws drawn
people before a plain colour; what is connected with the border and of that colour is background, and in the
pixels between, alpha says how far the colour has gone from it to the figure's. Pictures in which that is
doubtful are drawn anew.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar_export.toon import captions, colors
from faceavatar_export.toon.draw import sample, save_scenes
from faceavatar_export.toon.identity import Identity, Scene, embed

PLAIN = 20.0  # of 255: a background that strays further from its colour is not plain
NEAR, FAR = 30.0, 70.0  # distances from the colour: background for sure, figure for sure
BAND = 5  # pixels that an edge of the pack's is wide, at most
DOUBT = 0.02  # of the figure may have the background's colour
BATCH = 4


def key(image: np.ndarray) -> np.ndarray | None:
    """uint8 (H, W, 3) -> straight uint8 (H, W, 4), or None where the colour does not tell."""
    size = image.shape[0]
    corner = size // 16
    samples = np.concatenate([image[:corner, :corner], image[:corner, -corner:]]).reshape(-1, 3)
    middle = np.median(samples, axis=0)
    if np.percentile(np.abs(samples - middle), 99) > PLAIN:
        return None
    outside = _from_border(np.linalg.norm(image - middle, axis=2) < NEAR)
    if not 0.1 < outside.mean() < 0.8:
        return None
    back = _around(image, outside)
    away = np.linalg.norm(image - back, axis=2)
    outside = _from_border(away < NEAR)
    inside = cv2.erode((~outside).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=BAND) > 0
    doubtful = ~outside & (away < FAR)
    # A figure in the background's own colours, or with holes that show it.
    if doubtful[inside].sum() > DOUBT * inside.sum() or not inside.any():
        return None
    figure = _nearest(image, inside & (away >= FAR))
    line = figure - back
    alpha = ((image - back) * line).sum(axis=2) / np.maximum((line**2).sum(axis=2), 1.0)
    alpha = np.where(outside & (away < NEAR / 2), 0.0, np.where(inside, 1.0, np.clip(alpha, 0, 1)))
    color = np.where(inside[..., None], image, figure)
    return np.dstack([color, np.rint(alpha * 255)]).astype(np.uint8)


def _from_border(near: np.ndarray) -> np.ndarray:
    """Where the background's colour goes on from the left, upper or right border."""
    labels = cv2.connectedComponents(near.astype(np.uint8), connectivity=4)[1]
    rim = np.concatenate([labels[0], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(rim[rim > 0]))


def _around(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The colour of `where` that lies around each pixel, float32 (H, W, 3): no background is quite plain."""
    weight = where.astype(np.float32)
    total = cv2.GaussianBlur(image * weight[..., None], (0, 0), 16)
    share = cv2.GaussianBlur(weight, (0, 0), 16)[..., None]
    middle = np.median(image[where], axis=0)
    return np.asarray((total + 1e-3 * middle) / (share + 1e-3), np.float32)


def _nearest(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Each pixel's nearest colour among those of `where`, a little smoothed, float64 (H, W, 3)."""
    _, labels = cv2.distanceTransformWithLabels(
        (~where).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colors_of = np.zeros((int(labels.max()) + 1, 3))
    colors_of[labels[where]] = image[where]
    return np.asarray(colors_of[labels])


def make(engine: AvatarEngine, seed: int, start: int) -> list[tuple[np.ndarray, Identity, Scene]]:
    """The figures that a few requests give, as uint8 (512, 512, 4), and what was asked for."""
    found: list[tuple[np.ndarray, Identity, Scene]] = []
    for index in range(start, start + BATCH):
        identity, scene = sample(seed, index)
        rng = np.random.default_rng((seed, index, 2))
        names = [n for n in colors.BACKGROUND_COLORS if n not in ("black", "white")]
        plain = colors.BACKGROUND_COLORS[names[rng.integers(len(names))]]
        scene = replace(scene, pattern="plain", background=plain, background_end=plain)
        caption = captions.sample(identity, scene, rng)
        if "background" not in caption.named:
            continue
        request = AvatarRequest(image=np.zeros((64, 64, 3), np.uint8), prompt=caption.text, seed=index)
        (image,) = engine.generate(request, face_embeds=embed(identity)).images
        rgba = key(image)
        found += [] if rgba is None else [(rgba, identity, scene)]
    return found


def write(pack: str, folder: Path, count: int, seed: int) -> None:
    """Draws until there are `count` figures. Raises ValueError where hardly a picture can be keyed."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = AvatarEngine.load(pack, provider="cpu")
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", "w+", np.uint8, (count, *engine.pack.manifest.sizes.native[0], 4)
    )
    people: list[tuple[Identity, Scene]] = []
    tried = 0
    while (kept := len(people)) < count:
        for rgba, identity, scene in make(engine, seed, tried)[: count - kept]:
            pictures[len(people)] = rgba
            people.append((identity, scene))
        tried += BATCH
        if tried % 100 == 0:
            print(f"{kept}/{count} of {tried}", flush=True)
        if tried > 200 and kept < tried / 50:
            raise ValueError(
                f"{kept} of {tried} pictures could be keyed; does {pack} draw plain backgrounds?"
            )
    pictures.flush()
    save_scenes(folder, people)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", help="a pack's name or folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=81)
    args = parser.parse_args()
    write(args.pack, args.folder, args.count, args.seed)


if __name__ == "__main__":
    main()
