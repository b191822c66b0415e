"""The toon pack's matting net: a small U-Net from a picture to the alpha of its figure.

Drawn data gives exact alpha for free; the net learns on pictures as the decoder makes them, softer than
drawings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 256


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(inplace=True),
    )


class MattingNet(nn.Module):
    """image (B, 3, 256, 256) in -1..1 -> alpha (B, 1, 256, 256) in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _conv(12, 24))
        self.down1, self.down2, self.down3 = _conv(24, 40, 2), _conv(40, 64, 2), _conv(64, 96, 2)
        self.middle = nn.Sequential(_conv(96, 96), _conv(96, 96))
        self.up2, self.up1, self.up0 = _conv(96 + 64, 64), _conv(64 + 40, 40), _conv(40 + 24, 24)
        self.head = nn.Sequential(nn.Conv2d(24, 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(image))

    def logits(self, image: Tensor) -> Tensor:
        """Alpha before the sigmoid, for the loss."""
        d0 = self.stem(image)
        d1 = self.down1(d0)
        d2 = self.down2(d1)
        x = self.middle(self.down3(d2))
        for up, skip in ((self.up2, d2), (self.up1, d1), (self.up0, d0)):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return torch.as_tensor(self.head(x))
