"""Cut-outs: person and background, told apart by a net, without the old background in the edge."""

from faceavatar.matting.composite import over, straight
from faceavatar.matting.cutout import CutOut
from faceavatar.matting.edges import refine, refine_narrow, refine_near
from faceavatar.matting.foreground import estimate_foreground, told_foreground
from faceavatar.matting.net import Answer, Matter, Told

__all__ = [
    "Answer",
    "CutOut",
    "Matter",
    "Told",
    "estimate_foreground",
    "over",
    "refine",
    "refine_narrow",
    "refine_near",
    "straight",
    "told_foreground",
]
