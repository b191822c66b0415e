"""What published matting nets want to see and mean, and under which licence they come.

Sizes, means and scales are those of their authors' own inference code, as rembg has them for ONNX (MIT).
Knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_IMAGENET = (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)
_HALVES = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)
_CENTRED = (127.5, 127.5, 127.5), (255.0, 255.0, 255.0)
_UNIT = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
Three = tuple[float, float, float]


@dataclass(frozen=True)
class Preset:
    """scale: mean and std on 0..255. license: as SPDX has it, or a name. free: for any use."""

    side: int
    scale: tuple[Three, Three]
    answer: Literal["alpha", "logits", "scores"]
    spread: bool
    license: str
    attribution: str
    free: bool = True


PRESETS: Mapping[str, Preset] = {
    "u2net": Preset(320, _IMAGENET, "scores", True, "Apache-2.0", "U2-Net by Xuebin Qin and others"),
    "isnet": Preset(1024, _CENTRED, "scores", True, "Apache-2.0", "IS-Net (DIS) by Xuebin Qin and others"),
    "birefnet": Preset(1024, _IMAGENET, "logits", True, "MIT", "BiRefNet by Peng Zheng and others"),
    "modnet": Preset(512, _HALVES, "alpha", False, "Apache-2.0", "MODNet by Zhanghan Ke and others"),
    "rmbg": Preset(1024, _CENTRED, "scores", False, "bria-rmbg-1.4", "RMBG-1.4 by BRIA AI", free=False),
    "rmbg2": Preset(1024, _IMAGENET, "scores", False, "CC-BY-NC-4.0", "RMBG-2.0 by BRIA AI", free=False),
    "selfie": Preset(256, _UNIT, "alpha", False, "Apache-2.0", "MediaPipe Selfie Segmentation by Google"),
}
