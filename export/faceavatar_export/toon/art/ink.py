"""Comic ink: Open Peeps by Pablo Stanley, with necklines of our own."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import HairTable, StrokeFrame
from faceavatar_export.toon.art.strokes import garment, hat, marks
from faceavatar_export.toon.identity import Identity, Scene

ART = "open-peeps"
FRAME = StrokeFrame(
    bust=(-60, -66, 770),
    closeup=(50, -40, 600),
    points=((403, 360), (522, 360), (484, 415), (445, 468), (502, 468)),
    hat=(388, 262, 176, 158),
    ears=((284, 452),),
    outline=13,
    unit=3.3,
    eye=20,
)
HAIR: HairTable = {
    ("bald", False): ("noHair1", "noHair2"),
    ("short", False): ("grayShort",),
    ("short", True): ("short4",),
    ("medium", False): ("grayMedium",),
    ("medium", True): ("mediumBangs2",),
    ("long", False): ("bangs",),
    ("long", True): ("bangs",),
    "bun": ("grayBun",),
}
_FACE = {
    "smile": "smile",
    "laugh": "smileBig",
    "neutral": "driven",
    "sad": "solemn",
    "surprised": "awe",
    "angry": "veryAngry",
    "wink": "cheeky",
}


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the strokes over them."""
    chosen: dict[str, object] = {
        "headVariant": [hair],
        "headContrastColor": [identity.hair_color],
        "expressionVariant": [_FACE[scene.expression]],
        "clothingColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "facialHairVariant": ["full4" if identity.beard == "full" else "moustache9"],
        "facialHairProbability": 0 if identity.beard == "none" else 100,
        "accessoriesVariant": ["glasses3" if identity.glasses == "glasses" else "sunglasses2"],
        "accessoriesProbability": 0 if identity.glasses == "none" else 100,
        "maskProbability": 0,
    }
    over = garment(scene.garment, scene.garment_color, (246, 596), (375, 676), (522, 596), FRAME)
    if scene.framing == "half-body":  # the last row goes on below: it must be cloth, not the neckline
        over += f'<path d="M330 694h150v12h-150z" fill="{scene.garment_color}"/>'
    return chosen, over + marks(identity, FRAME) + hat(scene.headwear, scene.headwear_color, FRAME)
