"""The toon pack's matting net: where the figure is, seen at 128 pixels a side, and its edge, seen at 512.

Drawn data gives exact alpha for free. The coarse half is a U-Net on the whole picture made small. The fine
half knows only the pixels around a place and what the coarse half says there; so it learns on crops.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 512
CELL = 4  # pixels a side of what the fine half sees as one place, and the coarse half as one pixel
RAW = 3 * CELL**2
WIDTHS = (32, 64, 96, 128)  # of the coarse half's grids of 32, 16, 8 and 4 cells a side
FINE = 32
SURE = 6.0  # logits of the coarse half beyond this say no more to the fine one


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class CoarseNet(nn.Module):
    """image (B, 3, h, w) in -1..1, sides multiples of 32 -> logits of alpha (B, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.cells = nn.PixelUnshuffle(CELL)
        self.stem = nn.Sequential(_conv(RAW, a, kernel=1), _conv(a, a))
        self.down1 = nn.Sequential(_conv(a, b, stride=2), _conv(b, b))
        self.down2 = nn.Sequential(_conv(b, c, stride=2), _conv(c, c))
        self.middle = nn.Sequential(_conv(c, d, stride=2), _conv(d, d))
        self.up2 = nn.Sequential(_conv(d + c, c, kernel=1), _conv(c, c))
        self.up1 = nn.Sequential(_conv(c + b, b, kernel=1), _conv(b, b))
        self.up0 = nn.Sequential(_conv(b + a, a, kernel=1), _conv(a, a))
        self.head = nn.Sequential(
            _conv(a + RAW, a), nn.Conv2d(a, CELL**2, 3, padding=1), nn.PixelShuffle(CELL)
        )

    def forward(self, image: Tensor) -> Tensor:
        raw = self.cells(image)
        s0 = self.stem(raw)
        s1 = self.down1(s0)
        s2 = self.down2(s1)
        x = self.middle(s2)
        for up, skip in ((self.up2, s2), (self.up1, s1), (self.up0, s0)):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return torch.as_tensor(self.head(torch.cat([x, raw], dim=1)))


class CoarseAlpha(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> alpha (B, 1, 128, 128): the coarse half as a net of its own."""

    def __init__(self, coarse: CoarseNet) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.coarse(image))


class FineNet(nn.Module):
    """image (B, 3, 4 h, 4 w) in -1..1 and coarse logits (B, 1, h, w) -> logits (B, 1, 4 h, 4 w).

    Without norms: they pass over the finest grid four times more, and differ between a crop and a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.PixelUnshuffle(CELL)
        self.body = nn.Sequential(
            nn.Conv2d(RAW + 1, FINE, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(FINE, FINE, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(FINE, FINE, 3, padding=1),
            nn.SiLU(),
        )
        self.head = nn.Conv2d(FINE, CELL**2, 3, padding=1)
        self.pixels = nn.PixelShuffle(CELL)
        nn.init.zeros_(self.head.weight)

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        known = coarse.clamp(-SURE, SURE)
        change = self.head(self.body(torch.cat([self.cells(image), known], dim=1)))
        whole = F.interpolate(known, scale_factor=float(CELL), mode="bilinear", align_corners=False)
        return torch.as_tensor(whole + self.pixels(change))


class MattingNet(nn.Module):
    """image (B, 3, 512, 512) in -1..1 -> alpha (B, 1, 512, 512) in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = CoarseNet(), FineNet()

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.fine(image, self.coarse(F.avg_pool2d(image, CELL))))
