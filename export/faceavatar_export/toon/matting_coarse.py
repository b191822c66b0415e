"""The coarse half of the toon pack's matting net: where the figure is, seen at 128 pixels a side.

It also tells in which style the picture is drawn: some have a dark line around the figure, which a black sky
hides.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export.toon.identity import STYLES
from faceavatar_export.toon.matting_cells import CELL, RAW, Cells

WIDTHS = (32, 64, 96, 128)  # of its grids of 32, 16, 8 and 4 cells a side
SIGHT = WIDTHS[0] + len(STYLES)  # numbers in how it sees a place, and the picture's style


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


class _Block(nn.Module):
    """What is added to x (B, C, h, w), of the same shape; nothing at first, so that a net trained without it
    goes on from where it was."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), nn.Conv2d(width, width, 3, padding=1)
        for part in self.second.parameters():
            nn.init.zeros_(part)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(x + self.second(self.first(x)))


class CoarseNet(nn.Module):
    """image (B, 3, h, w) in -1..1, sides multiples of 32 -> logits of alpha (B, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.cells = Cells()
        self.stem = nn.Sequential(_conv(RAW, a, kernel=1), _conv(a, a))
        self.down1 = nn.Sequential(_conv(a, b, stride=2), _conv(b, b))
        self.down2 = nn.Sequential(_conv(b, c, stride=2), _conv(c, c))
        self.middle = nn.Sequential(_conv(c, d, stride=2), _conv(d, d))
        self.up2 = nn.Sequential(_conv(d + c, c, kernel=1), _conv(c, c))
        self.up1 = nn.Sequential(_conv(c + b, b, kernel=1), _conv(b, b))
        self.up0 = nn.Sequential(_conv(b + a, a, kernel=1), _conv(a, a))
        # Most of it where grids are small: a figure is told by its whole shape.
        self.deep1, self.deep2, self.deep3 = (nn.Sequential(_Block(n), _Block(n)) for n in (b, c, d))
        self.late2, self.late1, self.late0 = _Block(c), _Block(b), _Block(a)
        self.style = nn.Sequential(nn.Linear(2 * d, 64), nn.SiLU(), nn.Linear(64, len(STYLES)))
        self.head = nn.Sequential(
            _conv(a + RAW, a), nn.Conv2d(a, CELL**2, 3, padding=1), nn.PixelShuffle(CELL)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.seen(image)[0]

    def told(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and beside them how a place is seen, (B, SIGHT, h / 4, w / 4)."""
        logits, places, style = self.seen(image)
        style = torch.softmax(style, dim=1)[:, :, None, None].expand(-1, -1, *places.shape[2:])
        return logits, torch.cat([places, style], dim=1)

    def seen(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of alpha; how a place is seen, (B, WIDTHS[0], h / 4, w / 4); logits of the styles."""
        raw = self.cells(image)
        s0 = self.stem(raw)
        s1 = self.deep1(self.down1(s0))
        s2 = self.deep2(self.down2(s1))
        x = self.deep3(self.middle(s2))
        style = self.style(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))
        steps = ((self.up2, self.late2, s2), (self.up1, self.late1, s1), (self.up0, self.late0, s0))
        for up, late, skip in steps:
            x = late(up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1)))
        return self.head(torch.cat([x, raw], dim=1)), x, style


class CoarseAlpha(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> alpha (B, 1, 128, 128): the coarse half as a net of its own."""

    def __init__(self, coarse: CoarseNet) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.coarse(image))
