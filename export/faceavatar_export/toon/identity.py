"""Who is drawn and how: identities, scenes, and the numbers a face encoder must find in a picture of them.

Knows no drawing style and no caption; styles.py draws these values, captions.py words them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceavatar_export.toon import colors

HAIR_LENGTHS = ("bald", "short", "medium", "long")
BEARDS = ("none", "full", "moustache")
GLASSES = ("none", "glasses", "sunglasses")
STYLES = ("vector", "storybook", "ink", "pixel", "voxel", "line")
EXPRESSIONS = ("smile", "laugh", "neutral", "sad", "surprised", "angry", "wink")
GARMENTS = ("t-shirt", "hoodie", "jacket", "collar")
FRAMINGS = ("bust", "close-up", "half-body")
HEADWEAR = ("none", "beanie", "cap", "crown")
PATTERNS = ("plain", "gradient", "stripes", "dots", "checks")
EMBEDDING_SIZE = 24
GOLD = "#f2bd2e"  # crowns and earrings are of it


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays with a person from picture to picture. Colours are `#rrggbb`."""

    female: bool
    skin: str
    hair_color: str
    hair_length: str
    curly: bool
    bun: bool
    beard: str
    glasses: str
    old: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt decides. `background_end` is the second colour of a background that is not plain."""

    style: str
    expression: str
    garment: str
    garment_color: str
    headwear: str
    headwear_color: str
    background: str
    background_end: str
    pattern: str
    framing: str
    variant: int


def sample_identity(rng: np.random.Generator) -> Identity:
    """One person, with the habits of hair and beard that make gender presentation visible."""
    female, old = bool(rng.random() < 0.5), bool(rng.random() < 0.2)
    place = rng.random() * (len(colors.SKIN_TONES) - 1)
    low = int(place)
    tones = [colors.rgb_to_lab(colors.hex_to_rgb(c)) for c in colors.SKIN_TONES[low : low + 2]]
    lab = tones[0] + (tones[1] - tones[0]) * (place - low) + rng.normal(0, 1, 3) * (3, 3, 4)
    skin = colors.rgb_to_hex(colors.lab_to_rgb(lab))
    weights = np.array([5, 4, 4, 3, 4, 2, 2, 2, 2.5, 1.5, 0.7, 0.7, 0.7])
    hair = str(rng.choice(list(colors.HAIR_COLORS), p=weights / weights.sum()))
    if old and rng.random() < 0.75:
        hair = str(rng.choice(("gray", "white")))
    lengths = (0.03, 0.25, 0.30, 0.42) if female else (0.16, 0.70, 0.07, 0.07)
    length = str(rng.choice(HAIR_LENGTHS, p=lengths))
    beard = "none" if female else str(rng.choice(BEARDS, p=(0.58, 0.30, 0.12)))
    return Identity(
        female=female,
        skin=skin,
        hair_color=colors.jitter(colors.HAIR_COLORS[hair], rng, 4),
        hair_length=length,
        curly=bool(length != "bald" and rng.random() < 0.35),
        bun=bool(female and length == "medium" and rng.random() < 0.25),
        beard=beard,
        glasses=str(rng.choice(GLASSES, p=(0.65, 0.25, 0.10))),
        old=old,
    )


def sample_scene(rng: np.random.Generator, style: str | None = None) -> Scene:
    """One dress, expression, background and, unless it is given, style."""

    def pick(names: dict[str, str], spread: float) -> str:
        return colors.jitter(names[str(rng.choice(list(names)))], rng, spread)

    pattern = str(rng.choice(PATTERNS, p=(0.72, 0.10, 0.06, 0.06, 0.06)))
    background = "#000000" if rng.random() < 0.2 else pick(colors.BACKGROUND_COLORS, 2.5)
    end = background
    while pattern != "plain" and _distance(background, end) < 25:
        end = pick(colors.BACKGROUND_COLORS, 2.5)
    headwear = str(rng.choice(HEADWEAR, p=(0.79, 0.08, 0.08, 0.05)))
    hat_color = pick(colors.CLOTH_COLORS, 3)
    if headwear == "crown":
        hat_color = colors.jitter(GOLD, rng, 3)
    return Scene(
        style=style or str(rng.choice(STYLES, p=(0.25, 0.25, 0.125, 0.125, 0.125, 0.125))),
        expression=str(rng.choice(EXPRESSIONS, p=(0.28, 0.14, 0.14, 0.12, 0.12, 0.12, 0.08))),
        garment=str(rng.choice(GARMENTS, p=(0.31, 0.23, 0.23, 0.23))),
        garment_color=pick(colors.CLOTH_COLORS, 3),
        headwear=headwear,
        headwear_color=hat_color,
        background=background,
        background_end=end,
        pattern=pattern,
        framing=str(rng.choice(FRAMINGS, p=(0.64, 0.18, 0.18))),
        variant=int(rng.integers(1 << 30)),
    )


def _distance(one: str, other: str) -> float:
    labs = [colors.rgb_to_lab(colors.hex_to_rgb(color)) for color in (one, other)]
    return float(np.linalg.norm(labs[0] - labs[1]))


_SKIN_CENTER, _SKIN_SCALE = np.array([62.0, 14.0, 24.0]), np.array([20.0, 8.0, 10.0])
_HAIR_CENTER, _HAIR_SCALE = np.array([42.0, 9.0, 17.0]), np.array([25.0, 14.0, 17.0])


def embed(identity: Identity) -> np.ndarray:
    """The (24,) float32 face embedding of an identity, the target of the face encoder.

    0 presence; 1-3 skin and 4-6 hair L*a*b*, centred and scaled; 7-10 hair length one-hot; 11 curly; 12 bun;
    13 full beard; 14 moustache; 15 glasses; 16 sunglasses; 17 female; 18 old; the rest zero, for what comes
    later. Switches are -1 and 1; all zeros therefore means "no face", the unconditional input.
    """
    v = np.zeros(EMBEDDING_SIZE, np.float32)
    v[0] = 1
    v[1:4] = (colors.rgb_to_lab(colors.hex_to_rgb(identity.skin)) - _SKIN_CENTER) / _SKIN_SCALE
    if identity.hair_length != "bald" or identity.beard != "none":
        v[4:7] = (colors.rgb_to_lab(colors.hex_to_rgb(identity.hair_color)) - _HAIR_CENTER) / _HAIR_SCALE
    v[7:19] = -1
    v[7 + HAIR_LENGTHS.index(identity.hair_length)] = 1
    switches = (identity.curly, identity.bun, identity.beard == "full", identity.beard == "moustache")
    v[11:15] = np.where(switches, 1, -1)
    v[15:18] = np.where(
        (identity.glasses == "glasses", identity.glasses == "sunglasses", identity.female), 1, -1
    )
    v[18] = 1 if identity.old else -1
    return v


def read(embedding: np.ndarray) -> Identity:
    """The identity nearest to a (24,) embedding: the inverse of `embed`, for scores and for people."""
    e = np.asarray(embedding, np.float64)
    skin = colors.rgb_to_hex(colors.lab_to_rgb(e[1:4] * _SKIN_SCALE + _SKIN_CENTER))
    hair = colors.rgb_to_hex(colors.lab_to_rgb(e[4:7] * _HAIR_SCALE + _HAIR_CENTER))
    length = HAIR_LENGTHS[int(np.argmax(e[7:11]))]
    beard = BEARDS[1 + int(np.argmax(e[13:15]))] if e[13:15].max() > 0 else "none"
    glasses = GLASSES[1 + int(np.argmax(e[15:17]))] if e[15:17].max() > 0 else "none"
    curly, bun, female = bool(e[11] > 0 and length != "bald"), bool(e[12] > 0), bool(e[17] > 0)
    return Identity(female, skin, hair, length, curly, bun, beard, glasses, bool(e[18] > 0))
