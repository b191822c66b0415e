"""Aligned heads with known identities, for the face encoder: drawn avatars and photo-like heads, as arrays.

A set is a folder of pictures.npy (uint8 (N, 128, 128, 3)), masks.npy (uint8 (N, 64, 64, 2): hair, bare skin),
embeddings.npy ((N, 24) float32, identity.embed) and kinds.npy (uint8: 0 photo-like, 1 drawn with masks, 2
drawn in colours too alike to tell hair, skin and clothes apart, or tinted as pixel art is: no masks).
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from faceavatar.face.align import align
from faceavatar_export.toon import colors, photo_like, styles
from faceavatar_export.toon.identity import (
    EMBEDDING_SIZE,
    Identity,
    Scene,
    embed,
    sample_identity,
    sample_scene,
)

PHOTO, DRAWN, DRAWN_UNCLEAR = 0, 1, 2
STYLES = ("vector", "storybook", "ink", "line")  # in which the pack's detector finds faces
SIZE, MASK_SIZE = 128, 64
Bytes = NDArray[np.uint8]


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
    return masks, bool(apart > 70)


def drawn(identity: Identity, scene: Scene, rng: np.random.Generator | None) -> tuple[Bytes, Bytes, int]:
    """An aligned drawing, its masks and its kind; with `rng` also the disturbances of training."""
    size = 128
    rgba = styles.draw_rgba(identity, scene, size)
    points = styles.landmarks(scene, size)
    behind = styles.background(scene, size)
    if rng is not None:
        if rng.random() < 0.35:
            behind = photo_like.backdrop(rng, identity)
        reach = points[1, 0] - points[0, 0]
        middle = points.mean(0)
        turn, scale = np.radians(rng.normal(0, 3)), rng.uniform(0.9, 1.1)
        linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = (points - middle) @ linear + middle + rng.normal(0, 0.05, 2) * reach
        points = points + rng.normal(0, 0.04, points.shape) * reach
    masks, clear = _labels(rgba, identity, scene)
    picture = align(styles.composite(rgba, behind), points, "head", SIZE)
    masks = align(masks, points, "head", SIZE)
    if rng is not None and rng.random() < 0.4:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.0)), np.uint8)
    return picture, masks[..., :2], DRAWN if clear else DRAWN_UNCLEAR


def photo(identity: Identity, rng: np.random.Generator) -> tuple[Bytes, Bytes, int]:
    """An aligned photo-like head, its masks and its kind."""
    canvas = photo_like.draw(identity, rng)
    masks = np.rint(np.dstack([canvas.hair, canvas.skin]) * 255).astype(np.uint8)
    return canvas.rgb.astype(np.uint8), masks, PHOTO


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


def example(seed: int, index: int, drawn_share: float) -> tuple[Identity, Bytes, Bytes, int]:
    """Training example `index` of a set: identity, picture (128, 128, 3), masks (128, 128, 2), kind."""
    rng = np.random.default_rng((seed, index))
    if rng.random() < drawn_share:
        identity = sample_person(rng) if rng.random() < 0.5 else sample_identity(rng)
        scene = sample_scene(rng, str(rng.choice(STYLES)))
        if scene.framing == "half-body":  # no more than a bust, seen from further away
            scene = replace(scene, framing="bust")
        return identity, *drawn(identity, scene, rng)
    identity = sample_person(rng)
    return identity, *photo(identity, rng)


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
    with (folder / "people.jsonl").open("w") as people:
        for i in range(count):
            identity, pictures[i], mask, kinds[i] = example(seed, i, drawn_share)
            masks[i] = cv2.resize(mask, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
            embeddings[i] = embed(identity)
            people.write(json.dumps(asdict(identity)) + "\n")
            if (i + 1) % 2000 == 0:
                print(f"{i + 1}/{count}", flush=True)
    np.save(folder / "embeddings.npy", embeddings)
    np.save(folder / "kinds.npy", kinds)
    done.write_text(wanted)
