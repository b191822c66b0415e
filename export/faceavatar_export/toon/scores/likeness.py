"""Is the person kept? Drawn references, photographs, one person across prompts against different ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.errors import NoFaceFound
from faceavatar_export.toon import colors, draw
from faceavatar_export.toon.attributes import names_of
from faceavatar_export.toon.identity import Identity, Scene, read
from faceavatar_export.toon.scores.judge import Judge, Picture, cheeks_of, color_distance, hair_of
from faceavatar_export.toon.scores.obedience import SEED, portrait

KEPT = ("female", "glasses", "beard", "hair_length")
NEUTRAL = "flat vector cartoon, smiling, light blue background"
EIGHT = (
    "flat vector cartoon, smiling, light blue background",
    "vector cartoon, laughing, orange background, wearing a green hoodie",
    "vector cartoon avatar, serious, white background, close-up",
    "storybook illustration, smiling, wearing a red t-shirt, teal background",
    "storybook, sad, gray background, half body",
    "comic ink, angry, yellow background",
    "line drawing, smiling, beige background, navy blue jacket",
    "voxel art, surprised, green background",
)
IDENTITY = ("female", "old", "hair_length", "curly", "hair_color", "beard", "glasses")


@dataclass(frozen=True, slots=True)
class Kept:
    """attribute -> (kept in the avatar, read right by the encoder, of how many), and the styles not found."""

    counts: dict[str, tuple[int, int, int]]
    not_found: int


def drawn_references(engine: AvatarEngine, judge: Judge, count: int) -> Kept:
    """Avatars of drawn people in the vector style, asked for without a word on the person."""
    counts, missing = {key: [0, 0, 0] for key in KEPT}, 0
    for index in range(count):
        person, _ = draw.sample(SEED + 2, index * len(draw.STYLE_ORDER))
        style = ("vector", "storybook", "ink")[index % 3]
        reference = portrait(person, style)
        try:
            told = read(engine.look(reference).embeds[0])
        except NoFaceFound:
            missing += 1
            continue
        picture = engine.generate(AvatarRequest(image=reference, prompt=NEUTRAL, seed=index)).images[0]
        (seen,), _ = judge.look([picture])
        for key, row in counts.items():
            if key == "female" and person.glasses == "sunglasses":
                continue  # eyes that nobody sees tell nothing
            wanted = getattr(person, key)
            as_judged = {True: "woman", False: "man"}.get(wanted, wanted)
            row[0] += seen[key] == as_judged
            row[1] += getattr(told, key) == wanted
            row[2] += 1
    return Kept({key: (a, b, c) for key, (a, b, c) in counts.items()}, missing)


@dataclass(frozen=True, slots=True)
class PhotoScore:
    """A photo's avatars: colour distances (medians), what most of them show, what the encoder read."""

    photo: str
    skin_ciede2000: float
    hair_ciede2000: float | None
    seen: dict[str, str]
    told: Identity
    pictures: list[Picture]


def photo_score(engine: AvatarEngine, judge: Judge, photo: Path, seeds: int = 4) -> PhotoScore:
    """Avatars on light blue, where black hair shows, asked for by the gender word that the encoder read."""
    told = read(engine.look(photo).embeds[0])
    word: Literal["woman", "man"] = "woman" if told.female else "man"
    prompt = f"flat vector cartoon of a {word}, smiling, light blue background"
    plain = list(engine.generate(AvatarRequest(image=photo, prompt=prompt, batch=seeds, seed=7)).images)
    default = engine.generate(AvatarRequest(image=photo, gender=word, batch=seeds, seed=7)).images
    looks, _ = judge.look(plain)
    seen = {key: _majority([look[key] for look in looks]) for key in judge.names}
    skin = float(np.median([color_distance(cheeks_of(p), told.skin) for p in default]))
    hair = None
    if told.hair_length != "bald":
        hair = float(np.median([color_distance(hair_of(p), told.hair_color) for p in plain]))
    return PhotoScore(photo.name, skin, hair, seen, told, [*default[:2], *plain[:2]])


def _majority(names: list[str]) -> str:
    return max(sorted(set(names)), key=names.count)


def consistency(engine: AvatarEngine, judge: Judge, people: int) -> float:
    """The chance that two avatars of one person look more alike than two of different persons (0.5: none).

    Pictures of different prompts of EIGHT are alike by the share of identity attributes that the judge sees
    the same. The area under the ROC curve over all such pairs.
    """
    seen: list[list[dict[str, str]]] = []
    for index in range(people):
        person, _ = draw.sample(SEED + 3, index * len(draw.STYLE_ORDER))
        reference = portrait(person)
        pictures = [
            engine.generate(AvatarRequest(image=reference, prompt=prompt, seed=11 * index + k)).images[0]
            for k, prompt in enumerate(EIGHT)
        ]
        seen.append(judge.look(pictures)[0])
    same: list[float] = []
    different: list[float] = []
    for i, one in enumerate(seen):
        for j, other in enumerate(seen):
            for a in range(len(EIGHT)):
                for b in range(a + 1, len(EIGHT)):
                    alike = float(np.mean([one[a][key] == other[b][key] for key in IDENTITY]))
                    (same if i == j else different).append(alike)
    return area_under_curve(same, different)


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that a positive exceeds a negative, ties counted half (Mann and Whitney 1947)."""
    a, b = np.asarray(positive)[:, None], np.asarray(negative)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def expected(person: Identity) -> dict[str, str]:
    """What the judge should see of a person in a plain vector bust."""
    scene = Scene(
        "vector", "smile", "t-shirt", "#8c8f94", "none", "#000000", "#a9d6f5", "#a9d6f5", "plain", "bust", 0
    )
    return names_of(person, scene)


def hair_name(color: str) -> str:
    """The name of a hair colour."""
    return colors.nearest_name(color, colors.HAIR_COLORS)
