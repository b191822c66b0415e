"""Words for a picture: many wordings of one scene, the default prompt among them.

A caption names some of what is drawn and leaves the rest to the seed. What it names about the person (gender,
age, beard, glasses, hair) outweighs the photo; `sample` says what it named, so that training can hide it from
the face embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faceavatar_export.toon import colors
from faceavatar_export.toon import wordings as w
from faceavatar_export.toon.identity import Identity, Scene

DEFAULT_PROMPT = (
    "SFW Content, black plain background, joyous dating profile, VECTOR CARTOON ILLUSTRATION, half-body shot "
    "portrait enjoyable pleasing pleasurable nice {gender_word}, looking at camera, Relaxed, Charming, "
    "Cordial, Gracious, 5 o clock shadow, 3d bitmoji avatar render, pixar, high def textures 8k, highly "
    "detailed, 3d render, award winning, no background elements"
)
DEFAULT_NAMES = frozenset({"style", "expression", "background", "pattern", "framing"})


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and what it names.

    Names are style, expression, garment, garment_color, headwear, headwear_color, background, pattern,
    framing, female, old, hair (its length), curly, hair_color, beard and glasses. `default` marks the default
    prompt.
    """

    text: str
    named: frozenset[str]
    default: bool = False


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _color(rng: np.random.Generator, color: str, names: dict[str, str]) -> str:
    name = colors.nearest_name(color, names)
    return _pick(rng, w.COLOR.get(name, (name,)))


def _hair(identity: Identity, rng: np.random.Generator, named: set[str]) -> str:
    """` with short curly red hair`: length, kind and colour, any of them left out; a bun where there is one.

    Colour without length matters: most people write "with red hair", and must not be read as asking for none.
    """
    if identity.hair_length == "bald":
        named.add("hair")
        template = _pick(rng, w.HAIR_LENGTH["bald"])
        return ", bald" if template == "bald" else " with " + template
    template = _pick(rng, w.HAIR)
    has_length = rng.random() < 0.6
    if has_length:
        named.add("hair")
        template = " with " + _pick(rng, w.HAIR_LENGTH[identity.hair_length])
    kind = color = ""
    if rng.random() < 0.4:
        named.add("curly")
        kind = _pick(rng, w.CURLY if identity.curly else w.STRAIGHT)
    if rng.random() < 0.7 or not (has_length or kind):
        named.add("hair_color")
        color = " " + _color(rng, identity.hair_color, colors.HAIR_COLORS)
    text = template.format(k=kind, c=color)
    if identity.bun and rng.random() < 0.6:
        named.add("curly")
        text += _pick(rng, w.BUN)
    return text


def _subject(identity: Identity, rng: np.random.Generator, named: set[str]) -> str:
    if rng.random() < 0.75:
        named.add("female")
        word = _pick(rng, w.WOMAN if identity.female else w.MAN)
        if identity.old and rng.random() < 0.15:
            named.add("old")
            word = _pick(rng, w.OLD_WOMAN if identity.female else w.OLD_MAN)
    else:
        word = _pick(rng, w.PERSON)
    if "old" not in named and rng.random() < (0.45 if identity.old else 0.12):
        named.add("old")
        word = _pick(rng, w.OLD if identity.old else w.YOUNG) + word
    if rng.random() < 0.3:
        word += _hair(identity, rng, named)
    if not identity.female and rng.random() < 0.22:
        named.add("beard")
        word += _pick(rng, w.BEARD[identity.beard])
    if rng.random() < 0.17:
        named.add("glasses")
        word += _pick(rng, w.GLASSES[identity.glasses])
    return word


def _background(scene: Scene, rng: np.random.Generator, held_out: bool, named: set[str]) -> str:
    named.add("pattern")
    if not held_out and scene.pattern != "plain" and rng.random() < 0.12:
        return _pick(rng, w.PATTERN_ALONE[scene.pattern])
    named.add("background")
    top = _color(rng, scene.background, colors.BACKGROUND_COLORS)
    end = _color(rng, scene.background_end, colors.BACKGROUND_COLORS)
    return _pick(rng, (w.HELD_OUT_PATTERN if held_out else w.PATTERN)[scene.pattern]).format(c=top, d=end)


def _garment(scene: Scene, rng: np.random.Generator, held_out: bool, named: set[str]) -> str:
    named.add("garment_color")
    if rng.random() < 0.78:
        named.add("garment")
        word = _pick(rng, w.GARMENT[scene.garment])
    else:
        word = _pick(rng, w.ANY_GARMENT)
    garment = _color(rng, scene.garment_color, colors.CLOTH_COLORS) + " " + word
    if word in w.PLURAL:
        return _pick(rng, w.HELD_OUT_WEAR_PLURAL if held_out else w.WEAR_PLURAL).format(g=garment)
    return _pick(rng, w.HELD_OUT_WEAR if held_out else w.WEAR).format(g=garment)


def _headwear(scene: Scene, rng: np.random.Generator, held_out: bool, named: set[str]) -> str:
    named.add("headwear")
    if scene.headwear == "none":
        return _pick(rng, w.NO_HAT)
    color = ""
    if scene.headwear == "crown":
        color = _pick(rng, w.GOLDEN)
    elif rng.random() < 0.75:
        named.add("headwear_color")
        color = _color(rng, scene.headwear_color, colors.CLOTH_COLORS) + " "
    hat = color + _pick(rng, w.HEADWEAR[scene.headwear])
    return _pick(rng, w.HELD_OUT_WEAR if held_out else w.WEAR).format(g=hat)


def is_default_scene(scene: Scene) -> bool:
    """Whether the default prompt describes the scene: a smiling bareheaded vector bust on plain black."""
    return (
        scene.style == "vector"
        and scene.expression in ("smile", "laugh")
        and scene.pattern == "plain"
        and scene.background == "#000000"
        and scene.framing == "bust"
        and scene.headwear == "none"
    )


def default_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that the default prompt describes, with the garment and the variant of the one given."""
    return replace(
        scene,
        style="vector",
        expression="smile" if rng.random() < 0.6 else "laugh",
        headwear="none",
        background="#000000",
        background_end="#000000",
        pattern="plain",
        framing="bust",
    )


def default_caption(identity: Identity, rng: np.random.Generator) -> Caption:
    """The default prompt with the person's gender word, or with `person` now and then."""
    word = ("woman" if identity.female else "man") if rng.random() < 0.9 else "person"
    named = DEFAULT_NAMES | ({"female"} if word != "person" else set())
    return Caption(DEFAULT_PROMPT.format(gender_word=word), named, default=True)


def sample(identity: Identity, scene: Scene, rng: np.random.Generator, held_out: bool = False) -> Caption:
    """One wording of one picture; with `held_out` one of those that are kept for scores."""
    if not held_out and is_default_scene(scene) and rng.random() < 0.6:
        return default_caption(identity, rng)
    named: set[str] = set()
    subject = _subject(identity, rng, named)
    parts: list[str] = []
    if rng.random() < 0.85:
        named.add("style")
        parts.append(_pick(rng, w.STYLE[scene.style]))
    if rng.random() < 0.85:
        named.add("expression")
        parts.append(_pick(rng, w.EXPRESSION[scene.expression]))
    if rng.random() < 0.85:
        parts.append(_background(scene, rng, held_out, named))
    if rng.random() < 0.72:
        parts.append(_garment(scene, rng, held_out, named))
    if rng.random() < (0.08 if scene.headwear == "none" else 0.85):
        parts.append(_headwear(scene, rng, held_out, named))
    if rng.random() < (0.3 if scene.framing == "bust" else 0.9):
        named.add("framing")
        parts.append(_pick(rng, w.FRAMING[scene.framing]))
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        parts.append(_pick(rng, w.NOISE))
    text = _join_held_out(subject, parts, rng) if held_out else _join(subject, parts, rng)
    return Caption(text, frozenset(named))


def _article(subject: str) -> str:
    return ("an " if subject[0] in "aeiou" else "a ") + subject


def _join(subject: str, parts: list[str], rng: np.random.Generator) -> str:
    order = [parts[i] for i in rng.permutation(len(parts))]
    mode = rng.random()
    if mode < 0.35:
        pieces = [*order[:1], _article(subject), *order[1:]]
    elif mode < 0.6:
        pieces = [subject, *order]
    elif mode < 0.75:
        pieces = [_article(subject), *order]
    elif mode < 0.9:
        pieces = [*order, subject]
    else:
        pieces = [_pick(rng, w.OPENINGS) + _article(subject), *order]
    # Most people keep to one kind of joint; some mix them.
    joint = _pick(rng, w.JOINTS) if rng.random() < 0.7 else None
    text: str = pieces[0]
    for piece in pieces[1:]:
        text += (joint or _pick(rng, w.JOINTS)) + piece
    return text.upper() if rng.random() < 0.02 else text


def _join_held_out(subject: str, parts: list[str], rng: np.random.Generator) -> str:
    """Openings and joints that `_join` never uses, the subject in the middle or at the end."""
    order = [parts[i] for i in rng.permutation(len(parts))]
    place = int(rng.integers(0, len(order) + 1))
    pieces = [*order[:place], _article(subject), *order[place:]]
    text: str = _pick(rng, w.HELD_OUT_OPENINGS) + pieces[0]
    for piece in pieces[1:]:
        text += _pick(rng, w.HELD_OUT_JOINS) + piece
    return text
