"""Voxel 3d render: Voxel Art by DiceBear, with mouths, brows and hats large enough to read."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import Frame, HairTable, darker
from faceavatar_export.toon.identity import GOLD, Identity, Scene

ART = "voxel-art"
FRAME = Frame(
    bust=(12, 5, 102),
    closeup=(19, 7, 84),
    points=((42, 54), (74, 54), (58, 67), (50, 74), (68, 74)),
)
HALF_BODY = (-3, 0, 126)  # a view of its own: this art goes on below the bust, down to the feet
HAIR: HairTable = {
    ("bald", False): ("",),
    ("short", False): ("short", "sideSwept"),
    ("short", True): ("curly", "spiky"),
    ("medium", False): ("bob",),
    ("medium", True): ("afro",),
    ("long", False): ("longStraight", "partedLong"),
    ("long", True): ("longWavy",),
    "bun": ("buns",),
}
_GARMENT = {"t-shirt": "plain", "hoodie": "hoodie", "jacket": "jacket", "collar": "tie"}
_EYES = {"laugh": "happy", "surprised": "wide", "sad": "soft"}
_DARK = "#1a1512"
_MOUTH = {
    "smile": "M44 71h4v3h20v-3h4v3h-4v4H48v-4h-4z",
    "laugh": "M44 70h28v7h-4v4H48v-4h-4z",
    "neutral": "M46 73h24v4H46z",
    "sad": "M44 79v-4h4v-4h20v4h4v4h-4v-4H48v4z",
    "surprised": "M52 70h12v12H52z",
    "angry": "M44 71h28v8H44z",
    "wink": "M44 71h4v3h20v-3h4v3h-4v4H48v-4h-4z",
}


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the blocks over them."""
    jacket = scene.garment == "jacket"
    chosen: dict[str, object] = {
        "animationVariant": ["none"],
        "backgroundColor": ["#00000000"],
        "topVariant": [hair or "short"],
        "topProbability": 100 if hair else 0,
        "mouthVariant": ["flat"],
        "eyesVariant": [_EYES.get(scene.expression, "open")],
        "eyebrowsVariant": ["flat"],
        "eyebrowsProbability": 0,
        "noseVariant": ["block"],
        "cheeksVariant": ["blush"],
        "cheeksProbability": 100 if identity.female else 0,
        "outfitVariant": [_GARMENT[scene.garment]],
        "shirtColor": ["#f4f1ea" if jacket else scene.garment_color],
        "jacketColor": [scene.garment_color if jacket else "#f4f1ea"],
        "hatColor": [scene.headwear_color],
        "pantsColor": ["#3b4658"],
        "shoesColor": ["#2b2b30"],
        "skinColor": [identity.skin],
        "hairColor": [identity.hair_color],
        "beardVariant": ["full" if identity.beard == "full" else "mustache"],
        "beardProbability": 0 if identity.beard == "none" else 100,
        "glassesVariant": ["shades" if identity.glasses == "sunglasses" else "square"],
        "glassesProbability": 0 if identity.glasses == "none" else 100,
    }
    return chosen, _face(identity, scene) + _hat(scene)


def _blocks(path: str, fill: str) -> str:
    return f'<path fill="{fill}" d="{path}"/>'


def _face(identity: Identity, scene: Scene) -> str:
    over = ""
    if identity.beard == "moustache":
        over += _blocks("M42 66h34v5H42z", identity.hair_color)
    if identity.old:
        over += _blocks(
            "M34 61h14v2H34zM68 61h14v2H68zM38 68h2v9h-2zM76 68h2v9h-2z", darker(identity.skin, 0.7)
        )
    over += _blocks(_MOUTH[scene.expression], _DARK)
    if scene.expression in ("laugh", "angry"):
        over += _blocks("M47 71h22v4H47z" if scene.expression == "laugh" else "M47 73h22v4H47z", "#ffffff")
    brow = darker(identity.hair_color, 0.8)
    if scene.expression == "angry":
        over += _blocks("M33 42h6v3h6v3h6v3h-6v-3h-6v-3h-6zM83 42h-6v3h-6v3h-6v3h6v-3h6v-3h6z", brow)
    elif scene.expression == "sad":
        over += _blocks("M33 49v-3h6v-3h6v-3h6v3h-6v3h-6v3zM83 49v-3h-6v-3h-6v-3h-6v3h6v3h6v3z", brow)
    elif scene.expression == "surprised":
        over += _blocks("M34 39h15v3H34zM67 39h15v3H67z", brow)
    if scene.expression == "wink" and identity.glasses != "sunglasses":
        over += _blocks("M66 46h17v16H66z", identity.skin) + _blocks("M67 53h15v3H67z", _DARK)
    if identity.female:
        over += _blocks("M31 46h3v2h15v2H34v-2h-3zM85 46h-3v2H67v2h15v-2h3z", _DARK)
        over += _blocks("M91 64h4v5h-4z", GOLD) if identity.hair_length in ("bald", "short") else ""
    return over


def _hat(scene: Scene) -> str:
    color, pale, dark = (
        scene.headwear_color,
        darker(scene.headwear_color, 1.3),
        darker(scene.headwear_color, 0.68),
    )
    top, front, side = "M25 17l13-10h66l-13 10z", "M25 17h66v18H25z", "M91 17l13-10v17l-13 11z"
    if scene.headwear == "none":
        return ""
    if scene.headwear == "crown":
        zigzag = "M25 35V12l11 10l11-14l11 14l11-14l11 14l11-10v23z"
        return (
            _blocks("M91 12l13-9v21l-13 11z", dark)
            + _blocks(zigzag, color)
            + _blocks("M35 26h5v5h-5zM55 26h5v5h-5zM75 26h5v5h-5z", "#d23b4b")
        )
    block = _blocks(top, pale) + _blocks(front, color) + _blocks(side, dark)
    if scene.headwear == "cap":
        return block + _blocks("M21 33h76v5H21z", darker(color, 0.55))
    return (
        block
        + _blocks("M25 28h66v8H25z", pale)
        + _blocks("M91 28l13-11v8l-13 11z", color)
        + _blocks("M56 3h14v10H56z", pale)
    )
