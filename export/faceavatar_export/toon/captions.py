"""Words for a picture: many wordings of one scene, the default prompt among them.

A caption names some of what is drawn and leaves the rest to the seed. What it names about the person (gender,
beard, glasses, hair) outweighs the photo; `sample` says which of those it named, so that training can hide
them from the face embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import Identity, Scene

DEFAULT_PROMPT = (
    "SFW Content, black plain background, joyous dating profile, VECTOR CARTOON ILLUSTRATION, half-body shot "
    "portrait enjoyable pleasing pleasurable nice {gender_word}, looking at camera, Relaxed, Charming, "
    "Cordial, Gracious, 5 o clock shadow, 3d bitmoji avatar render, pixar, high def textures 8k, highly "
    "detailed, 3d render, award winning, no background elements"
)

_STYLE_WORDS = {
    "vector": (
        "vector cartoon", "flat vector cartoon", "vector cartoon illustration", "flat vector avatar",
        "bitmoji avatar", "flat design illustration", "vector art", "cartoon avatar", "flat cartoon",
    ),
    "storybook": (
        "storybook", "storybook illustration", "pixar-like toon", "toon", "animated movie character",
        "children's book style", "disney style", "storybook toon", "pixar character",
    ),
    "ink": (
        "comic ink", "comic book", "ink drawing", "comic style", "hand-drawn ink", "comic",
        "black ink outlines", "comic ink drawing",
    ),
    "pixel": (
        "pixel art", "pixelated", "8-bit", "pixel art portrait", "retro game", "8 bit pixel art",
        "16-bit sprite",
    ),
}  # fmt: skip
_EXPRESSION_WORDS = {
    "smile": ("smiling", "happy", "with a smile", "smile", "cheerful", "friendly smile", "joyful", "joyous"),
    "laugh": ("laughing", "laughing out loud", "with a big grin", "big laugh", "grinning", "overjoyed"),
    "neutral": (
        "serious",
        "neutral expression",
        "calm",
        "neutral",
        "with a serious face",
        "straight face",
        "composed",
    ),
    "sad": ("sad", "unhappy", "with a sad face", "crying inside", "melancholic", "gloomy", "sad expression"),
    "surprised": ("surprised", "shocked", "astonished", "with a surprised look", "amazed", "surprise"),
    "angry": ("angry", "furious", "with an angry face", "mad", "annoyed", "angry expression"),
    "wink": ("winking", "wink", "with a wink", "winks at you", "one eye closed"),
}
_GARMENT_WORDS = {
    "t-shirt": ("t-shirt", "tee", "tshirt", "shirt", "top"),
    "hoodie": ("hoodie", "hooded sweatshirt", "sweatshirt"),
    "jacket": ("jacket", "blazer", "suit", "suit jacket"),
    "collar": ("collared shirt", "polo shirt", "sweater with a collar", "collared sweater"),
}
_ANY_GARMENT = ("clothes", "outfit", "clothing", "top", "shirt")
_COLOR_WORDS = {
    "gray": ("gray", "grey"),
    "teal": ("teal", "turquoise"),
    "navy blue": ("navy blue", "navy", "dark blue"),
}
_BACKGROUND = (
    "{c} background", "{c} plain background", "plain {c} background", "on a {c} background",
    "solid {c} background", "with a {c} background", "{c} backdrop", "background is {c}",
    "against a {c} wall", "in front of a {c} background",
)  # fmt: skip
_GRADIENT = (
    "{c} to {d} gradient background", "gradient background from {c} to {d}",
    "{c} and {d} gradient background", "background fading from {c} to {d}",
)  # fmt: skip
_FRAMING_WORDS = {
    "bust": (
        "half-body shot",
        "half-body portrait",
        "head and shoulders",
        "bust portrait",
        "upper body",
        "portrait",
    ),
    "close-up": ("close-up", "close-up portrait", "headshot", "face close up", "closeup of the face"),
}
_MAN = ("man", "man", "man", "male", "guy", "gentleman", "boy")
_WOMAN = ("woman", "woman", "woman", "female", "lady", "girl")
_PERSON = ("person", "person", "character", "someone", "face", "human")
_WEAR = ("wearing a {g}", "in a {g}", "{g}", "dressed in a {g}", "with a {g}", "wears a {g}")
_HAIR_LENGTH_WORDS = {
    "bald": ("bald", "no hair", "shaved head"),
    "short": ("short {c} hair", "{c} short hair", "cropped {c} hair"),
    "medium": ("medium {c} hair", "shoulder-length {c} hair", "{c} bob"),
    "long": ("long {c} hair", "{c} long hair", "flowing {c} hair"),
}
_NOISE = (
    "highly detailed", "award winning", "high quality", "8k", "looking at camera", "masterpiece",
    "best quality", "nice", "charming", "relaxed", "beautiful", "SFW content", "3d render",
    "no background elements", "cute", "profile picture", "trending", "high def textures", "dating profile",
    "centered", "detailed face", "professional", "social media avatar",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and what it names: keys of identity or scene fields."""

    text: str
    named: frozenset[str]


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _color(rng: np.random.Generator, color: str, names: dict[str, str]) -> str:
    name = colors.nearest_name(color, names)
    return _pick(rng, _COLOR_WORDS.get(name, (name,)))


def _subject(identity: Identity, rng: np.random.Generator, named: set[str]) -> str:
    if rng.random() < 0.75:
        named.add("female")
        word = _pick(rng, _WOMAN if identity.female else _MAN)
    else:
        word = _pick(rng, _PERSON)
    if rng.random() < 0.2:
        named.add("hair")
        template = _pick(rng, _HAIR_LENGTH_WORDS[identity.hair_length])
        word += " with " + template.format(c=_color(rng, identity.hair_color, colors.HAIR_COLORS))
    if not identity.female and rng.random() < 0.2:
        named.add("beard")
        word += {"none": ", clean-shaven", "full": " with a beard", "moustache": " with a moustache"}[
            identity.beard
        ]
    if rng.random() < 0.15:
        named.add("glasses")
        word += {"none": ", no glasses", "glasses": " with glasses", "sunglasses": " with sunglasses"}[
            identity.glasses
        ]
    return word


def _background(scene: Scene, rng: np.random.Generator) -> str:
    top = _color(rng, scene.background, colors.BACKGROUND_COLORS)
    if scene.background_end == scene.background:
        return _pick(rng, _BACKGROUND).format(c=top)
    return _pick(rng, _GRADIENT).format(c=top, d=_color(rng, scene.background_end, colors.BACKGROUND_COLORS))


def _garment(scene: Scene, rng: np.random.Generator) -> str:
    words = _GARMENT_WORDS[scene.garment] if rng.random() < 0.75 else _ANY_GARMENT
    garment = _color(rng, scene.garment_color, colors.CLOTH_COLORS) + " " + _pick(rng, words)
    return _pick(rng, _WEAR).format(g=garment)


def is_default_scene(scene: Scene) -> bool:
    """Whether the default prompt describes the scene: a smiling vector bust on black."""
    return (
        scene.style == "vector"
        and scene.expression in ("smile", "laugh")
        and scene.background == scene.background_end == "#000000"
        and scene.framing == "bust"
    )


def sample(identity: Identity, scene: Scene, rng: np.random.Generator) -> Caption:
    """One wording of one picture."""
    if is_default_scene(scene) and rng.random() < 0.6:
        word = ("woman" if identity.female else "man") if rng.random() < 0.9 else "person"
        return Caption(
            DEFAULT_PROMPT.format(gender_word=word), frozenset({"female"} if word != "person" else ())
        )
    named: set[str] = set()
    subject = _subject(identity, rng, named)
    parts: list[str] = []
    if rng.random() < 0.85:
        named.add("style")
        parts.append(_pick(rng, _STYLE_WORDS[scene.style]))
    if rng.random() < 0.85:
        named.add("expression")
        parts.append(_pick(rng, _EXPRESSION_WORDS[scene.expression]))
    if rng.random() < 0.85:
        named.add("background")
        parts.append(_background(scene, rng))
    if rng.random() < 0.75:
        named.add("garment")
        parts.append(_garment(scene, rng))
    if scene.framing == "close-up" or rng.random() < 0.3:
        named.add("framing")
        parts.append(_pick(rng, _FRAMING_WORDS[scene.framing]))
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        parts.append(_pick(rng, _NOISE))
    return Caption(_join(subject, parts, rng), frozenset(named))


def _join(subject: str, parts: list[str], rng: np.random.Generator) -> str:
    order = [parts[i] for i in rng.permutation(len(parts))]
    mode = rng.random()
    article = "an " if subject[0] in "aeiou" else "a "
    if mode < 0.4:
        text = ", ".join([*order[:1], article + subject, *order[1:]])
    elif mode < 0.7:
        text = ", ".join([subject, *order])
    elif mode < 0.9:
        text = article + subject + " " + " ".join(order)
    else:
        text = (
            _pick(rng, ("portrait of ", "avatar of ", "a picture of "))
            + article
            + subject
            + ", "
            + ", ".join(order)
        )
    return text.upper() if rng.random() < 0.02 else text
