"""What the classifier learns from: the drawn set's latents, and more of pictures that no drawn set has.

Moved: shifted, scaled and often mirrored, so that places are not learnt by heart; hats, half-bodies and the
old are taken more often than they are drawn. Soft: once through the codec, as every avatar is. Broken: by
breakage.py, for a classifier that knows a broken avatar when it sees one. All go through the codec's encoder
once; a batch draws from each. Knows no network but the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import breakage
from faceavatar_export.toon.attributes import NAMES, UNSEEN, truth
from faceavatar_export.toon.autoencoder import INPUT_SIZE, Autoencoder
from faceavatar_export.toon.draw import HELD_OUT, load_scenes
from faceavatar_export.toon.identity import Identity, Scene

Person = tuple[Identity, Scene]
LATENT_NOISE = 0.3  # of a batch's latents, at most
SHIFT, SCALE = 7.0, 0.03  # pixels of 256, and share, that a moved picture is off by, at most
CHUNK = 48  # pictures encoded at once
# Of each kind: how many are made, and its share of a batch. "drawn" are the set's own.
COUNTS = {"moved": 24_000, "soft": 1_500, "broken": 2_500}
SHARES = {"drawn": 0.48, "moved": 0.34, "soft": 0.09, "broken": 0.09}


@dataclass(frozen=True, slots=True)
class Examples:
    """latents float16 (N, 64, 8, 8) and classes int64 (N, 17)."""

    latents: NDArray[np.float16]
    classes: NDArray[np.int64]


def prepare(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, S, S, 3) with S a multiple of 256 -> (B, 3, 256, 256) in -1..1."""
    image = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(image, pictures.shape[1] // INPUT_SIZE)


def move(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (S, S, 3), a little shifted and scaled, its border continued; mirrored three times of four."""
    side = picture.shape[0]
    scale, reach = 1 + rng.uniform(-SCALE, SCALE), SHIFT * side / INPUT_SIZE
    place = (1 - scale) * side / 2 + rng.uniform(-reach, reach, 2)
    matrix = np.array([[scale, 0, place[0]], [0, scale, place[1]]])
    out = cv2.warpAffine(picture, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out[:, ::-1] if rng.random() < 0.75 else out, np.uint8)


def rarity(person: Person) -> float:
    """How often a picture is moved: more for what few drawings show."""
    identity, scene = person
    hat, framed = scene.headwear != "none", scene.framing != "bust"
    return 1.0 + hat + framed + 0.5 * identity.old + 0.5 * (scene.pattern != "plain")


@torch.inference_mode()
def _encode(codec: Autoencoder, pictures: NDArray[np.uint8], soften: bool) -> NDArray[np.float16]:
    with torch.autocast("cpu", torch.bfloat16):
        image = prepare(pictures)
        if soften:
            image = F.avg_pool2d(codec.decoder(codec.encode(image)).float().clamp(-1, 1), 2)
        return np.asarray(codec.encode(image).float().numpy().astype(np.float16))


def make(
    kind: str,
    codec: Autoencoder,
    pictures: NDArray[np.uint8],
    people: Sequence[Person],
    rows: NDArray[np.int64],
    rng: np.random.Generator,
) -> Examples:
    """Examples of a kind of COUNTS from `rows` of a drawn set's pictures."""
    latents, classes = [], []
    for part in np.array_split(np.sort(rows), -(-len(rows) // CHUNK)):
        raw = np.array(pictures[part])
        for j, i in enumerate(part):
            if kind == "broken":
                raw[j] = breakage.break_picture(raw[j], people[i][0], people[i][1], rng)
                classes.append([*[UNSEEN] * (len(NAMES) - 1), 1])
            else:
                classes.append(truth(*people[i]))
            raw[j] = move(raw[j], rng)
        latents.append(_encode(codec, raw, soften=kind == "soft"))
    return Examples(np.concatenate(latents), np.array(classes))


def training_set(data: Path, codec: Autoencoder, counts: dict[str, int]) -> dict[str, Examples]:
    """Examples of every kind of SHARES, from all but the last HELD_OUT pictures of DATA."""
    pictures, people = np.load(data / "pictures.npy", mmap_mode="r"), load_scenes(data)[:-HELD_OUT]
    classes = np.array([truth(*person) for person in people])
    rng = np.random.default_rng(40)
    weights = np.array([rarity(person) for person in people])
    sets = {"drawn": Examples(np.load(data / "latents.npy")[: len(people)], classes)}
    for kind, count in counts.items():
        rows = rng.choice(len(people), count, p=weights / weights.sum())
        sets[kind] = make(kind, codec, pictures, people, rows, rng)
    return sets


def held_out_set(data: Path, codec: Autoencoder) -> list[Examples]:
    """The held-out drawings' latents, and a quarter of them broken."""
    pictures, people = (
        np.load(data / "pictures.npy", mmap_mode="r")[-HELD_OUT:],
        load_scenes(data)[-HELD_OUT:],
    )
    whole = Examples(np.load(data / "latents.npy")[-HELD_OUT:], np.array([truth(*p) for p in people]))
    rows = np.arange(0, len(people), 4)
    return [whole, make("broken", codec, pictures, people, rows, np.random.default_rng(41))]


def draw_batch(sets: dict[str, Examples], rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Noisy latents (about count, 64, 8, 8) and classes (about count, 17), of each kind by its share."""
    latents, classes = [], []
    for kind, examples in sets.items():
        rows = rng.integers(0, len(examples.latents), round(count * SHARES[kind]))
        latents.append(examples.latents[rows].astype(np.float32))
        classes.append(examples.classes[rows])
    clean = np.concatenate(latents)
    strength = rng.uniform(0, LATENT_NOISE, (len(clean), 1, 1, 1)).astype(np.float32)
    noisy = clean + strength * rng.standard_normal(clean.shape, np.float32)
    return torch.from_numpy(noisy), torch.from_numpy(np.concatenate(classes))
