"""What a drawing shows, attribute by attribute, in words: the classes that the classifier tells apart.

Knows what a drawing cannot show (under a hat, outside the frame, behind shades), and no picture.
"""

from __future__ import annotations

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import (
    BEARDS,
    EXPRESSIONS,
    FRAMINGS,
    GARMENTS,
    GLASSES,
    HAIR_LENGTHS,
    HEADWEAR,
    PATTERNS,
    STYLES,
    Identity,
    Scene,
)

UNSEEN = -100  # cross_entropy's own mark for "do not count"
NAMES: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "expression": EXPRESSIONS,
    "garment": GARMENTS,
    "garment_color": tuple(colors.CLOTH_COLORS),
    "headwear": HEADWEAR,
    "headwear_color": tuple(colors.CLOTH_COLORS),
    "background": tuple(colors.BACKGROUND_COLORS),
    "pattern": PATTERNS,
    "framing": FRAMINGS,
    "female": ("man", "woman"),
    "old": ("young", "old"),
    "hair_length": HAIR_LENGTHS,
    "curly": ("straight", "curly", "bun"),
    "hair_color": tuple(colors.HAIR_COLORS),
    "beard": BEARDS,
    "glasses": GLASSES,
    "figure": ("whole", "broken"),
}


def names_of(identity: Identity, scene: Scene) -> dict[str, str]:
    """What a drawing shows, in the words of NAMES."""
    kind = "bun" if identity.bun else "curly" if identity.curly else "straight"
    return {
        "style": scene.style,
        "expression": scene.expression,
        "garment": scene.garment,
        "garment_color": colors.nearest_name(scene.garment_color, colors.CLOTH_COLORS),
        "headwear": scene.headwear,
        "headwear_color": colors.nearest_name(scene.headwear_color, colors.CLOTH_COLORS),
        "background": colors.nearest_name(scene.background, colors.BACKGROUND_COLORS),
        "pattern": scene.pattern,
        "framing": scene.framing,
        "female": "woman" if identity.female else "man",
        "old": "old" if identity.old else "young",
        "hair_length": identity.hair_length,
        "curly": kind,
        "hair_color": colors.nearest_name(identity.hair_color, colors.HAIR_COLORS),
        "beard": identity.beard,
        "glasses": identity.glasses,
        "figure": "whole",
    }


def unseen(identity: Identity, scene: Scene) -> set[str]:
    """The attributes that a drawing cannot show: under a hat, outside the frame or behind shades."""
    hidden: set[str] = set()
    if scene.framing == "close-up":
        hidden |= {"garment", "garment_color"}
    if scene.headwear in ("none", "crown"):
        hidden.add("headwear_color")
    covered = scene.headwear in ("beanie", "cap")
    if covered or identity.hair_length == "bald" or (scene.style == "ink" and identity.hair_length == "long"):
        hidden.add("curly")
    if identity.hair_length == "bald" or (covered and identity.hair_length == "short"):
        hidden.add("hair_color")
    if covered and identity.hair_length in ("bald", "short"):
        hidden.add("hair_length")
    if identity.glasses == "sunglasses":
        hidden.add("female")
    masked = identity.glasses == "sunglasses" or (scene.style == "pixel" and identity.glasses != "none")
    if scene.expression == "wink" and masked:
        hidden.add("expression")
    return hidden


def truth(identity: Identity, scene: Scene) -> list[int]:
    """The class of each attribute in the order of NAMES, UNSEEN for what the drawing cannot show."""
    said, hidden = names_of(identity, scene), unseen(identity, scene)
    return [UNSEEN if key in hidden else names.index(said[key]) for key, names in NAMES.items()]
