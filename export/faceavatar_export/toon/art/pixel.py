"""Pixel art: Pixel Art by DiceBear, sixteen cells a side; what is laid over it are cells too."""

from __future__ import annotations

from faceavatar_export.toon.art.frame import Frame, HairTable, darker
from faceavatar_export.toon.identity import GOLD, Identity, Scene

ART = "pixel-art"
FRAME = Frame(
    bust=(0, 0, 16),
    closeup=(2, 1, 12),
    points=((5.5, 6.5), (10.5, 6.5), (8, 8), (6.5, 10), (9.5, 10)),
)
HAIR: HairTable = {
    ("bald", False): ("", "short07"),
    ("short", False): ("short01", "short10"),
    ("short", True): ("short16",),
    ("medium", False): ("long16", "long21"),
    ("medium", True): ("long17",),
    ("long", False): ("long07", "long13"),
    ("long", True): ("long03",),
    "bun": ("long05",),
}
_MOUTH = {
    "smile": "happy09",
    "laugh": "happy12",
    "neutral": "sad06",
    "sad": "sad01",
    "surprised": "happy01",
    "angry": "sad05",
    "wink": "happy09",
}
_DARK = "#1a1512"


def options(identity: Identity, scene: Scene, hair: str) -> tuple[dict[str, object], str]:
    """DiceBear's options and the cells over them."""
    chosen: dict[str, object] = {
        "hairVariant": [hair or "short01"],
        "hairProbability": 100 if hair else 0,
        "hairColor": [identity.hair_color],
        "eyesVariant": ["variant11"],
        "eyesColor": ["#3a4a5a"],
        "mouthVariant": [_MOUTH[scene.expression]],
        "mouthColor": ["#d8305f" if identity.female else "#8f4130"],
        "clothesVariant": ["variant03"],
        "clothingColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "glassesVariant": ["light01" if identity.glasses == "glasses" else "dark03"],
        "glassesColor": ["#22262b"],
        "glassesProbability": 0 if identity.glasses == "none" else 100,
        "beardProbability": 0,
        "hatProbability": 0,
        "accessoriesProbability": 0,
    }
    return chosen, _garment(scene) + _person(identity) + _expression(identity, scene) + _hat(scene)


def _cells(path: str, fill: str) -> str:
    return f'<path fill="{fill}" d="{path}"/>'


def _garment(scene: Scene) -> str:
    dark, pale = darker(scene.garment_color, 0.68), "#f4f1ea"
    if scene.garment == "hoodie":
        hood = _cells("M4 12h2v1h1v1H3v-1h1zM10 12h2v1h1v1H9v-1h1z", dark)
        return hood + _cells("M6 14h1v2H6zM9 14h1v2H9z", pale)
    if scene.garment == "jacket":
        return _cells("M6 13h4v3H6z", pale) + _cells("M5 13h1v1h1v2H5zM11 13h-1v1H9v2h2z", dark)
    if scene.garment == "collar":
        return _cells("M5 12h1v1h1v1h2v-1h1v-1h1v2h-1v1H9v-1H7v1H6v-1H5z", pale)
    return ""


def _person(identity: Identity) -> str:
    over = ""
    if identity.old:
        over += _cells("M4 8h1v1H4zM11 8h1v1h-1zM5 9h1v1H5zM10 9h1v1h-1z", darker(identity.skin, 0.72))
    if identity.beard == "full":
        over += _cells("M4 8h1v2h6V8h1v3h-1v1H5v-1H4z", identity.hair_color)
    elif identity.beard == "moustache":
        over += _cells("M6 8h4v1H6z", identity.hair_color)
    if identity.female and identity.glasses == "none":
        over += _cells("M3 5h1v-.4h3V5H4v1H3zM13 5h-1v-.4H9V5h3v1h1z", _DARK)
    if identity.female and (identity.hair_length in ("bald", "short") or identity.bun):
        over += _cells("M2 8h1v1H2zM13 8h1v1h-1z", GOLD)
    return over


def _expression(identity: Identity, scene: Scene) -> str:
    if scene.expression == "angry":
        return _cells("M4 4h1v1h1v1h1V5H6V4H4zM12 4h-1v1h-1v1H9V5h1V4h2z", _DARK)
    if scene.expression == "surprised":
        return _cells("M7 9h2v2H7z", "#3a1512")
    if scene.expression == "wink" and identity.glasses == "none":
        return _cells("M9 5h3v2H9z", identity.skin) + _cells("M9 6h3v1H9z", "#3a2a22")
    return ""


def _hat(scene: Scene) -> str:
    color, pale, dark = (
        scene.headwear_color,
        darker(scene.headwear_color, 1.35),
        darker(scene.headwear_color, 0.68),
    )
    if scene.headwear == "beanie":
        return (
            _cells("M7 0h2v1H7z", pale) + _cells("M4 1h8v1h1v1H3V2h1z", color) + _cells("M3 3h10v1H3z", pale)
        )
    if scene.headwear == "cap":
        return _cells("M4 1h8v1h1v1H3V2h1z", color) + _cells("M3 3h13v1H3z", dark)
    if scene.headwear == "crown":
        return _cells("M3 0h1v1h1v1h2V1h1V0h1v1h1v1h1V1h1V0h1v4H3z", color) + _cells(
            "M5 2h1v1H5zM10 2h1v1h-1z", "#d23b4b"
        )
    return ""
