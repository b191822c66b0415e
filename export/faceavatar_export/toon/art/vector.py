"""Flat vector cartoon: Avataaars by Pablo Stanley."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import HairTable, StrokeFrame
from faceavatar_export.toon.art.strokes import hat, marks
from faceavatar_export.toon.identity import Identity, Scene

ART = "avataaars"
FRAME = StrokeFrame(
    bust=(0, 0, 280),
    closeup=(40, 6, 200),
    points=((114, 112), (166, 112), (140, 131), (126, 151), (154, 151)),
    hat=(140, 79, 60, 62),
    ears=((77, 133), (203, 133)),
    outline=0,
    unit=1.12,
    eye=8,
)
HAIR: HairTable = {
    ("bald", False): ("", "sides"),
    ("short", False): ("shortFlat", "shortRound", "theCaesarAndSidePart"),
    ("short", True): ("shortCurly", "dreads01"),
    ("medium", False): ("bob", "miaWallace"),
    ("medium", True): ("curly", "fro"),
    ("long", False): ("straight02", "straightAndStrand"),
    ("long", True): ("curvy",),
    "bun": ("bun",),
}
_FACE = {  # mouth, eyes, eyebrows
    "smile": ("twinkle", "default", "default"),
    "laugh": ("smile", "happy", "raisedExcited"),
    "neutral": ("serious", "default", "flatNatural"),
    "sad": ("sad", "default", "sadConcerned"),
    "surprised": ("disbelief", "surprised", "raisedExcited"),
    "angry": ("grimace", "squint", "angry"),
    "wink": ("smile", "wink", "upDown"),
}
_GARMENT = {
    "t-shirt": "shirtCrewNeck",
    "hoodie": "hoodie",
    "jacket": "blazerAndShirt",
    "collar": "collarAndSweater",
}


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the strokes over them."""
    mouth, eyes, brows = _FACE[scene.expression]
    chosen: dict[str, object] = {
        "topVariant": [hair or "shortFlat"],
        "topProbability": 100 if hair else 0,
        "mouthVariant": [mouth],
        "eyesVariant": [eyes],
        "eyebrowsVariant": [brows],
        "clothesVariant": [_GARMENT[scene.garment]],
        "clothesColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "hairColor": [identity.hair_color],
        "facialHairColor": [identity.hair_color],
        "facialHairVariant": ["beardMedium" if identity.beard == "full" else "moustacheMagnum"],
        "facialHairProbability": 0 if identity.beard == "none" else 100,
        "accessoriesVariant": ["prescription02" if identity.glasses == "glasses" else "wayfarers"],
        "accessoriesProbability": 0 if identity.glasses == "none" else 100,
        "accessoriesColor": ["#22262b"],
    }
    return chosen, marks(identity, FRAME) + hat(scene.headwear, scene.headwear_color, FRAME)
