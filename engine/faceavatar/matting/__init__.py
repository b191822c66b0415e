"""Cut-outs: person and background, told apart by a net, without the old background in the edge."""

from faceavatar.matting.composite import over, straight
from faceavatar.matting.cutout import CutOut
from faceavatar.matting.edges import refine, refine_near
from faceavatar.matting.foreground import estimate_foreground
from faceavatar.matting.net import Matter

__all__ = ["CutOut", "Matter", "estimate_foreground", "over", "refine", "refine_near", "straight"]
