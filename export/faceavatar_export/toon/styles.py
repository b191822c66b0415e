"""Draws an identity in a scene: one table of options a style, DiceBear's art, resvg's pixels.

Every style shows the same ideas (skin, hair, beard, glasses, gender, expression, clothing); where the art
lacks one (glasses in storybook, expressions in pixel art) a few strokes of our own are laid over it.
"""

from __future__ import annotations

import io
import json
import re
from functools import cache
from importlib.resources import files

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from PIL import Image

from faceavatar_export.toon import colors
from faceavatar_export.toon.identity import Identity, Scene

ART = {"vector": "avataaars", "storybook": "toon-head", "ink": "open-peeps", "pixel": "pixel-art"}
_VIEW = {
    ("vector", "bust"): "0 0 280 280",
    ("vector", "close-up"): "40 6 200 200",
    ("storybook", "bust"): "0 0 768 768",
    ("storybook", "close-up"): "106 40 560 560",
    ("ink", "bust"): "-60 -66 770 770",
    ("ink", "close-up"): "50 -40 600 600",
    ("pixel", "bust"): "0 0 16 16",
    ("pixel", "close-up"): "0 0 16 16",
}

_HAIR = {
    "vector": {
        ("bald", False): ("", "sides"),
        ("short", False): ("shortFlat", "shortRound", "theCaesarAndSidePart"),
        ("short", True): ("shortCurly", "dreads01"),
        ("medium", False): ("bob", "miaWallace"),
        ("medium", True): ("curly", "fro"),
        ("long", False): ("straight02", "straightAndStrand"),
        ("long", True): ("curvy",),
        "bun": ("bun",),
    },
    "storybook": {
        ("bald", False): ("",),
        ("short", False): ("sideComed", "undercut"),
        ("short", True): ("spiky",),
        ("medium", False): ("sideComed+neckHigh",),
        ("medium", True): ("sideComed+shoulderHigh",),
        ("long", False): ("sideComed+longStraight",),
        ("long", True): ("sideComed+longWavy",),
        "bun": ("bun",),
    },
    "ink": {
        ("bald", False): ("noHair1", "noHair2"),
        ("short", False): ("grayShort",),
        ("short", True): ("short4",),
        ("medium", False): ("grayMedium",),
        ("medium", True): ("grayMedium",),
        ("long", False): ("bangs",),
        ("long", True): ("mediumBangs2",),
        "bun": ("grayBun",),
    },
    "pixel": {
        ("bald", False): ("", "short07"),
        ("short", False): ("short01", "short10"),
        ("short", True): ("short16",),
        ("medium", False): ("long16", "long21"),
        ("medium", True): ("long17",),
        ("long", False): ("long07", "long13"),
        ("long", True): ("long03",),
        "bun": ("long05",),
    },
}

_VECTOR_FACE = {  # mouth, eyes, eyebrows
    "smile": ("twinkle", "default", "default"),
    "laugh": ("smile", "happy", "raisedExcited"),
    "neutral": ("serious", "default", "flatNatural"),
    "sad": ("sad", "default", "sadConcerned"),
    "surprised": ("disbelief", "surprised", "raisedExcited"),
    "angry": ("sad", "squint", "angry"),
    "wink": ("smile", "wink", "upDown"),
}
_STORYBOOK_FACE = {
    "smile": ("laugh", "wide", "neutral"),
    "laugh": ("laugh", "bow", "happy"),
    "neutral": ("smile", "humble", "neutral"),
    "sad": ("sad", "wide", "sad"),
    "surprised": ("agape", "wide", "raised"),
    "angry": ("angry", "happy", "angry"),
    "wink": ("laugh", "wink", "happy"),
}
_INK_FACE = {
    "smile": "smile",
    "laugh": "smileBig",
    "neutral": "driven",
    "sad": "solemn",
    "surprised": "awe",
    "angry": "veryAngry",
    "wink": "cheeky",
}
_PIXEL_MOUTH = {
    "smile": "happy10",
    "laugh": "happy12",
    "neutral": "sad06",
    "sad": "sad01",
    "surprised": "happy01",
    "angry": "sad05",
    "wink": "happy09",
}
_GARMENT = {
    "vector": {
        "t-shirt": "shirtCrewNeck",
        "hoodie": "hoodie",
        "jacket": "blazerAndShirt",
        "collar": "collarAndSweater",
    },
    "storybook": {"t-shirt": "tShirt", "hoodie": "turtleNeck", "jacket": "openJacket", "collar": "shirt"},
    "pixel": {"t-shirt": "variant03", "hoodie": "variant08", "jacket": "variant18", "collar": "variant12"},
}


@cache
def _style(art: str) -> Style:
    return Style(json.loads(files("dicebear_styles").joinpath(f"{art}.json").read_text("utf-8")))


def _hair(identity: Identity, scene: Scene) -> str:
    table = _HAIR[scene.style]
    names = table["bun"] if identity.bun else table[(identity.hair_length, identity.curly)]
    return names[scene.variant % len(names)]


def _vector(identity: Identity, scene: Scene) -> tuple[dict[str, object], str]:
    mouth, eyes, brows = _VECTOR_FACE[scene.expression]
    hair = _hair(identity, scene)
    options: dict[str, object] = {
        "topVariant": [hair or "shortFlat"],
        "topProbability": 100 if hair else 0,
        "mouthVariant": [mouth],
        "eyesVariant": [eyes],
        "eyebrowsVariant": [brows],
        "clothesVariant": [_GARMENT["vector"][scene.garment]],
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
    lashes = '<path d="M105 107l-6-4M104 112l-7-1M176 107l6-4M177 112l7-1" stroke="#222" stroke-width="2.2"/>'
    return options, lashes if identity.female and identity.glasses == "none" else ""


def _storybook(identity: Identity, scene: Scene) -> tuple[dict[str, object], str]:
    mouth, eyes, brows = _STORYBOOK_FACE[scene.expression]
    front, _, rear = _hair(identity, scene).partition("+")
    options: dict[str, object] = {
        "hairVariant": [front or "undercut"],
        "hairProbability": 100 if front else 0,
        "rearHairVariant": [rear or "neckHigh"],
        "rearHairProbability": 100 if rear else 0,
        "mouthVariant": [mouth],
        "eyesVariant": [eyes],
        "eyebrowsVariant": [brows],
        "clothesVariant": [_GARMENT["storybook"][scene.garment]],
        "clothesColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "hairColor": [identity.hair_color],
        "beardVariant": ["fullBeard" if identity.beard == "full" else "moustacheTwirl"],
        "beardProbability": 0 if identity.beard == "none" else 100,
    }
    fill = {"none": "", "glasses": "#ffffff33", "sunglasses": "#1d2126"}[identity.glasses]
    frame = (
        f'<g stroke="#22262b" stroke-width="11" fill="{fill}">'
        '<rect x="256" y="362" width="112" height="94" rx="34"/>'
        '<rect x="396" y="362" width="112" height="94" rx="34"/>'
        '<path d="M368 398q14-12 28 0" fill="none"/></g>'
    )
    return options, frame if fill else ""


def _ink(identity: Identity, scene: Scene) -> tuple[dict[str, object], str]:
    options: dict[str, object] = {
        "headVariant": [_hair(identity, scene)],
        "headContrastColor": [identity.hair_color],
        "expressionVariant": [_INK_FACE[scene.expression]],
        "clothingColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "facialHairVariant": ["full4" if identity.beard == "full" else "moustache9"],
        "facialHairProbability": 0 if identity.beard == "none" else 100,
        "accessoriesVariant": ["glasses3" if identity.glasses == "glasses" else "sunglasses2"],
        "accessoriesProbability": 0 if identity.glasses == "none" else 100,
        "maskProbability": 0,
    }
    return options, ""


def _pixel(identity: Identity, scene: Scene) -> tuple[dict[str, object], str]:
    hair = _hair(identity, scene)
    options: dict[str, object] = {
        "hairVariant": [hair or "short01"],
        "hairProbability": 100 if hair else 0,
        "hairColor": [identity.hair_color],
        "eyesVariant": ["variant11"],
        "eyesColor": ["#3a4a5a"],
        "mouthVariant": [_PIXEL_MOUTH[scene.expression]],
        "mouthColor": ["#b0392f"],
        "clothesVariant": [_GARMENT["pixel"][scene.garment]],
        "clothingColor": [scene.garment_color],
        "skinColor": [identity.skin],
        "glassesVariant": ["light01" if identity.glasses == "glasses" else "dark03"],
        "glassesColor": ["#22262b"],
        "glassesProbability": 0 if identity.glasses == "none" else 100,
        "beardProbability": 0,
        "hatProbability": 0,
        "accessoriesProbability": 0,
    }
    over = ""
    hair_rgb = identity.hair_color
    if identity.beard == "full":
        over += f'<path fill="{hair_rgb}" d="M4 8h1v2h6V8h1v3h-1v1H5v-1H4z"/>'
    elif identity.beard == "moustache":
        over += f'<path fill="{hair_rgb}" d="M6 8h4v1H6z"/>'
    if scene.expression == "angry":
        over += '<path fill="#1a1512" d="M4 4h1v1h1v1h1V5H6V4H4zM12 4h-1v1h-1v1H9V5h1V4h2z"/>'
    if scene.expression == "surprised":
        over += '<path fill="#3a1512" d="M7 9h2v2H7z"/>'
    if scene.expression == "wink" and identity.glasses == "none":
        over += f'<path fill="{identity.skin}" d="M9 5h3v2H9z"/><path fill="#3a2a22" d="M9 6h3v1H9z"/>'
    return options, over


_DRAW = {"vector": _vector, "storybook": _storybook, "ink": _ink, "pixel": _pixel}


def to_svg(identity: Identity, scene: Scene) -> str:
    """The figure without its background, as SVG text framed as the scene asks."""
    options, overlay = _DRAW[scene.style](identity, scene)
    svg = Avatar(_style(ART[scene.style]), {"seed": "faceavatar", **options}).to_string()
    svg = re.sub(r"<metadata.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace("</svg>", overlay + "</svg>")
    return re.sub(r'viewBox="[^"]*"', f'viewBox="{_VIEW[scene.style, scene.framing]}"', svg, count=1)


def draw_rgba(identity: Identity, scene: Scene, size: int) -> np.ndarray:
    """The figure as uint8 (size, size, 4) with straight alpha."""
    png = resvg_py.svg_to_bytes(
        svg_string=to_svg(identity, scene), width=size, height=size, skip_system_fonts=True
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def background(scene: Scene, size: int) -> np.ndarray:
    """The scene's background, float32 (size, size, 3) in 0..255: plain, or a vertical gradient."""
    t = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    top, bottom = colors.hex_to_rgb(scene.background), colors.hex_to_rgb(scene.background_end)
    return np.broadcast_to((top * (1 - t) + bottom * t).astype(np.float32)[:, None, :], (size, size, 3))


def composite(rgba: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    """uint8 RGBA over a 0..255 backdrop -> uint8 (H, W, 3)."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + backdrop * (1 - alpha)).astype(np.uint8)
