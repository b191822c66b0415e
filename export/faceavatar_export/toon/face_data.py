"""Aligned heads with known identities, for the face encoder: drawn avatars and photo-like heads, as arrays.

A set is a folder of pictures.npy (uint8 (N, 128, 128, 3)), masks.npy (uint8 (N, 64, 64, 2): hair, bare skin),
embeddings.npy ((N, 24) float32, identity.embed, with switches of 0 where the picture does not tell them) and
kinds.npy (uint8: 0 photo-like, 1 drawn with masks, 2 drawn in colours too alike to tell hair, skin and
clothes apart, or shaded as voxel art is: no masks).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.face.align import TEMPLATES, align, similarity
from faceavatar_export.toon import colors, photo_like, styles
from faceavatar_export.toon.identity import (
    EMBEDDING_SIZE,
    Identity,
    Scene,
    embed,
    sample_identity,
    sample_scene,
)
from faceavatar_export.toon.photo_worn import HEADWEAR

PHOTO, DRAWN, DRAWN_UNCLEAR = 0, 1, 2
# The pack's detector finds no face in pixel and voxel art; some of it is learnt for detectors that do.
STYLE_SHARES = {"vector": 0.24, "storybook": 0.22, "ink": 0.20, "line": 0.20, "pixel": 0.07, "voxel": 0.07}
SIZE, MASK_SIZE = 128, 64
Bytes = NDArray[np.uint8]
# How far from styles.landmarks the detector puts the aligned head, measured on 60 drawings a style: mean and
# deviation of the scale's logarithm, the turn in radians, and the shift right and down in pixels of the crop.
Stray = tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
STRAYS: dict[str, Stray] = {
    "vector": ((-0.16, -0.01, 0.3, 1.1), (0.09, 0.05, 1.3, 1.6)),
    "storybook": ((-0.21, -0.02, 0.2, 1.6), (0.08, 0.045, 1.9, 2.6)),
    "ink": ((-0.13, -0.05, -0.7, 1.7), (0.085, 0.05, 2.0, 2.3)),
    "line": ((-0.09, -0.05, -1.0, 1.2), (0.07, 0.045, 2.0, 1.75)),
}
LENGTHS, CURLY, BUN = slice(7, 11), 11, 12  # slots of the embedding
UNMEASURED: Stray = ((0.0, 0.0, 0.0, 0.0), (0.06, 0.05, 0.9, 0.9))


def _labels(rgba: Bytes, identity: Identity, scene: Scene) -> tuple[Bytes, bool]:
    """Hair and skin of a drawing (H, W, 3), found by their flat colours; and whether that can be trusted."""
    hair, skin, cloth = (
        colors.hex_to_rgb(c) for c in (identity.hair_color, identity.skin, scene.garment_color)
    )
    masks = np.zeros((*rgba.shape[:2], 3), np.uint8)
    for k, rgb in enumerate((hair, skin)):
        near = np.abs(rgba[..., :3].astype(np.float64) - rgb).sum(-1) < 24
        masks[..., k] = np.where(near & (rgba[..., 3] > 240), 255, 0)
    apart = min(np.abs(a - b).sum() for a, b in ((hair, skin), (hair, cloth), (skin, cloth)))
    return masks, bool(apart > 70 and scene.style != "voxel")


def found_at(points: NDArray[np.float64], style: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Landmarks (5, 2) that align a drawing as the detector's might, given its true ones."""
    mean, deviation = (np.array(v) for v in STRAYS.get(style, UNMEASURED))
    # One in five strays half as far again: other drawings than these are met too.
    log_scale, turn, *shift = rng.normal(mean, deviation * (1.5 if rng.random() < 0.2 else 1.0))
    template = TEMPLATES["head"] * (SIZE / 112)
    middle = template.mean(0)
    linear = np.exp(log_scale) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # What lies at `template` in the crop that is wanted lies at `before` in the true one.
    before = (template - middle - shift) @ np.linalg.inv(linear).T + middle
    true = similarity(points, template)
    return np.asarray((before - true[:, 2]) @ np.linalg.inv(true[:, :2]).T)


def drawn(identity: Identity, scene: Scene, rng: np.random.Generator | None) -> tuple[Bytes, Bytes, int]:
    """An aligned drawing, its masks and its kind; with `rng` also the disturbances of training."""
    size = 208 if scene.framing == "half-body" else 160
    rgba = styles.draw_rgba(identity, scene, size)
    points = styles.landmarks(scene, size)
    behind = styles.background(scene, size)
    if rng is not None:
        if rng.random() < 0.25:
            behind = cv2.resize(photo_like.backdrop(rng, identity), (size, size))
        points = found_at(points, scene.style, rng)
    masks, clear = _labels(rgba, identity, scene)
    picture = align(styles.composite(rgba, behind), points, "head", SIZE)
    masks = align(masks, points, "head", SIZE)
    if rng is not None and rng.random() < 0.4:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.0)), np.uint8)
    return picture, masks[..., :2], DRAWN if clear else DRAWN_UNCLEAR


def told(identity: Identity, scene: Scene) -> NDArray[np.float32]:
    """The embedding (24,) that a drawing shows: hats hide much, comic ink draws long hair only once."""
    seen = embed(identity)
    long_hair = identity.hair_length == "long"
    hat = scene.headwear != "none"
    if (scene.style == "ink" and long_hair) or (hat and not long_hair):
        seen[CURLY] = 0
    if hat and identity.bun:
        seen[BUN] = 0
    if hat and identity.hair_length == "bald":
        seen[LENGTHS] = 0  # what a hat covers may as well be short hair, and mostly is
    return seen


def photo(
    identity: Identity, rng: np.random.Generator
) -> tuple[NDArray[np.float32], tuple[Bytes, Bytes, int]]:
    """What a photo-like head shows of `identity` (24,); the aligned head, its masks and its kind."""
    headwear = str(rng.choice(HEADWEAR, p=(0.86, 0.06, 0.08)))
    canvas = photo_like.draw(identity, rng, headwear)
    masks = np.rint(np.dstack([canvas.hair, canvas.skin]) * 255).astype(np.uint8)
    seen = embed(identity)
    if headwear != "none":
        seen[BUN] = 0
        if identity.hair_length != "long":
            seen[CURLY] = 0
        if identity.hair_length == "bald" or identity.bun:
            seen[LENGTHS] = 0
    return seen, (canvas.rgb.astype(np.uint8), masks, PHOTO)


def sample_person(rng: np.random.Generator) -> Identity:
    """An identity in which the rarer traits (bald, bun, moustache, sunglasses) are met more often."""
    person = sample_identity(rng)
    if rng.random() > 0.35:
        return person
    trait = rng.integers(6)
    if trait == 0:
        return replace(person, hair_length="bald", curly=False, bun=False)
    if trait == 1:
        return replace(person, female=True, hair_length="medium", bun=True, beard="none")
    if trait == 2 and not person.female:
        return replace(person, beard="moustache")
    if trait == 3:
        return replace(person, glasses="sunglasses")
    if trait == 4:
        return replace(person, glasses="glasses")
    return replace(person, hair_length="short", bun=False)


def example(seed: int, index: int, drawn_share: float) -> tuple[NDArray[np.float32], Bytes, Bytes, int]:
    """Example `index` of a set: embedding (24,), picture (128, 128, 3), masks (128, 128, 2), kind."""
    rng = np.random.default_rng((seed, index))
    identity = sample_person(rng)
    if rng.random() >= drawn_share:
        seen, shown = photo(identity, rng)
        return seen, *shown
    scene = sample_scene(rng, str(rng.choice(list(STYLE_SHARES), p=list(STYLE_SHARES.values()))))
    return told(identity, scene), *drawn(identity, scene, rng)


def make_set(folder: Path, count: int, seed: int, drawn_share: float) -> None:
    """Draws a set into `folder`, unless it is there already (set.json is written last)."""
    wanted = json.dumps({"count": count, "seed": seed, "drawn_share": drawn_share})
    done = folder / "set.json"
    if done.exists() and done.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (count, SIZE, SIZE, 3))
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (count, MASK_SIZE, MASK_SIZE, 2))
    embeddings, kinds = np.zeros((count, EMBEDDING_SIZE), np.float32), np.zeros(count, np.uint8)
    for i in range(count):
        embeddings[i], pictures[i], mask, kinds[i] = example(seed, i, drawn_share)
        masks[i] = cv2.resize(mask, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
        if (i + 1) % 1000 == 0:
            print(f"{folder.name}: {i + 1}/{count}", flush=True)
    np.save(folder / "embeddings.npy", embeddings)
    np.save(folder / "kinds.npy", kinds)
    done.write_text(wanted)
