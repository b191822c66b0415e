"""Line drawing: Lorelei by Lisa Wischofsky, on shoulders of our own."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import HairTable, StrokeFrame
from faceavatar_export.toon.art.strokes import INK, garment, hat, marks
from faceavatar_export.toon.identity import Identity, Scene

ART = "lorelei"
FRAME = StrokeFrame(
    bust=(-30, 20, 1010),
    closeup=(120, 60, 760),
    points=((483, 457), (655, 457), (615, 545), (500, 612), (640, 595)),
    hat=(497, 292, 236, 172),
    ears=((252, 606),),
    outline=11,
    unit=4.6,
    eye=30,
)
HAIR: HairTable = {
    ("bald", False): ("",),
    ("short", False): ("variant01", "variant03", "variant08"),
    ("short", True): ("variant09", "variant39", "variant44"),
    ("medium", False): ("variant10", "variant17"),
    ("medium", True): ("variant05", "variant24"),
    ("long", False): ("variant15", "variant16", "variant23"),
    ("long", True): ("variant35",),
    "bun": ("variant38", "variant14"),
}
_FACE = {  # mouth, eyes, eyebrows
    "smile": ("happy02", "variant16", "variant07"),
    "laugh": ("happy05", "variant01", "variant05"),
    "neutral": ("sad09", "variant16", "variant10"),
    "sad": ("sad04", "variant19", "variant01"),
    "surprised": ("sad01", "variant09", "variant05"),
    "angry": ("sad06", "variant16", "variant13"),
    "wink": ("happy05", "variant18", "variant07"),
}
_NECK = ((352, 826), (500, 905), (655, 826))


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the strokes over them; no hair is hair that cannot be seen."""
    mouth, eyes, brows = _FACE[scene.expression]
    if identity.female and eyes == "variant16":
        eyes = "variant24"
    chosen: dict[str, object] = {
        "headVariant": ["variant01"],
        "hairVariant": [hair or "variant34"],
        "hairColor": [identity.hair_color if hair else identity.hair_color + "00"],
        "mouthVariant": [mouth],
        "mouthColor": [INK],
        "eyesVariant": [eyes],
        "eyesColor": [INK],
        "eyebrowsVariant": [brows],
        "eyebrowsColor": [INK],
        "noseVariant": ["variant01"],
        "noseColor": [INK],
        "outlineColor": [INK],
        "skinColor": [identity.skin],
        "beardVariant": ["variant01"],
        "beardProbability": 100 if identity.beard == "full" else 0,
        "glassesVariant": ["variant01" if identity.glasses == "glasses" else "variant02"],
        "glassesColor": [INK],
        "glassesProbability": 0 if identity.glasses == "none" else 100,
        "earringsProbability": 0,
        "frecklesProbability": 0,
        "hairAccessoriesProbability": 0,
    }
    over = _body(scene) + garment(scene.garment, scene.garment_color, *_NECK, FRAME)
    if identity.beard == "moustache":
        over += (
            f'<path d="M490 600C530 545 590 555 610 572C625 552 660 550 690 588C650 592 630 600 608 592'
            f'C580 612 530 612 490 600Z" fill="{identity.hair_color}" stroke="{INK}" stroke-width="6"/>'
        )
    return chosen, over + marks(identity, FRAME) + hat(scene.headwear, scene.headwear_color, FRAME)


def _body(scene: Scene) -> str:
    """Lorelei ends at the neck: shoulders in the garment's colour."""
    (lx, ly), (cx, cy), (rx, ry) = _NECK
    pen = f'stroke="{INK}" stroke-width="{FRAME.outline}" stroke-linejoin="round"'
    return (
        f'<path d="M80 1040C95 915 190 868 {lx} {ly}Q{cx} {2 * cy - ly} {rx} {ry}C815 868 905 915 925 1040Z" '
        f'fill="{scene.garment_color}" {pen}/>'
        f'<path d="M265 1040Q262 985 235 950M745 1040Q748 985 772 950" fill="none" {pen}/>'
    )
