"""Storybook toon: ToonHead by Johan Melin, with glasses and hats of our own."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import HairTable, StrokeFrame
from faceavatar_export.toon.art.strokes import hat, marks
from faceavatar_export.toon.identity import Identity, Scene

ART = "toon-head"
FRAME = StrokeFrame(
    bust=(0, 0, 768),
    closeup=(106, 40, 560),
    points=((312, 413), (452, 413), (382, 463), (338, 500), (426, 500)),
    hat=(383, 296, 196, 214),
    ears=((204, 492), (562, 492)),
    outline=2,
    unit=3.6,
    eye=38,
)
HAIR: HairTable = {
    ("bald", False): ("",),
    ("short", False): ("sideComed", "undercut"),
    ("short", True): ("spiky",),
    ("medium", False): ("sideComed+neckHigh",),
    ("medium", True): ("sideComed+shoulderHigh",),
    ("long", False): ("sideComed+longStraight",),
    ("long", True): ("sideComed+longWavy",),
    "bun": ("bun",),
}
_FACE = {  # mouth, eyes, eyebrows
    "smile": ("smile", "wide", "neutral"),
    "laugh": ("laugh", "bow", "happy"),
    "neutral": ("smile", "humble", "neutral"),
    "sad": ("sad", "wide", "sad"),
    "surprised": ("agape", "wide", "raised"),
    "angry": ("angry", "happy", "angry"),
    "wink": ("laugh", "wink", "happy"),
}
_GARMENT = {"t-shirt": "tShirt", "hoodie": "turtleNeck", "jacket": "openJacket", "collar": "shirt"}
_GLASSES = {"none": "", "glasses": "#ffffff33", "sunglasses": "#1d2126"}


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the strokes over them; `hair` is front hair, "+" and rear hair."""
    mouth, eyes, brows = _FACE[scene.expression]
    front, _, rear = hair.partition("+")
    chosen: dict[str, object] = {
        "hairVariant": [front or "undercut"],
        "hairProbability": 100 if front else 0,
        "rearHairVariant": [rear or "neckHigh"],
        "rearHairProbability": 100 if rear else 0,
        "mouthVariant": [mouth],
        "eyesVariant": [eyes],
        "eyebrowsVariant": [brows],
        "clothesVariant": [_GARMENT[scene.garment]],
        "clothesColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "hairColor": [identity.hair_color],
        "beardVariant": ["fullBeard" if identity.beard == "full" else "moustacheTwirl"],
        "beardProbability": 0 if identity.beard == "none" else 100,
    }
    over = _mouth(identity, scene) if identity.beard == "none" else ""
    over += marks(identity, FRAME, rosy=True)
    fill = _GLASSES[identity.glasses]
    if fill:
        over += (
            f'<g stroke="#22262b" stroke-width="11" fill="{fill}">'
            '<rect x="256" y="362" width="112" height="94" rx="34"/>'
            '<rect x="396" y="362" width="112" height="94" rx="34"/>'
            '<path d="M368 398q14-12 28 0" fill="none"/></g>'
        )
    return chosen, over + hat(scene.headwear, scene.headwear_color, FRAME)


def _mouth(identity: Identity, scene: Scene) -> str:
    """A closed mouth plainer than ToonHead's thin ones, which a small codec loses."""
    line = {"smile": "M338 492q44 44 88 0", "neutral": "M346 506h72", "sad": "M342 524q40 -40 80 0"}.get(
        scene.expression
    )
    if line is None:
        return ""
    return (
        f'<rect x="326" y="482" width="112" height="52" rx="20" fill="{identity.skin}"/>'
        f'<path d="{line}" stroke="#5d1a1a" stroke-width="10" stroke-linecap="round" fill="none"/>'
    )
