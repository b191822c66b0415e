"""The picture codec: 256 px in, 8x8x64 latents, 512 px out.

A convolutional autoencoder with 16 channels a cell of 16 px (3 of them plainly the cell's mean colour: learnt
colours lag far behind learnt shapes, and colours are what a face and a prompt are judged by), folded once
more (2x2 cells into channels) so that the UNet works on an 8x8 grid. The decoder enlarges while it decodes:
the art is vector art, so the 512 px target costs only the last layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LATENT_CHANNELS = 64
INPUT_SIZE = 256
OUTPUT_SIZE = 512


class ResBlock(nn.Module):
    """Pre-norm residual block, two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return x + change


def _up(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs * 4, 1), nn.PixelShuffle(2))


class Encoder(nn.Module):
    """image (B, 3, 256, 256) in -1..1 -> latents (B, 64, 8, 8), before normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            ResBlock(96),
            ResBlock(96),
            nn.Conv2d(96, 192, 3, stride=2, padding=1),
            ResBlock(192),
            ResBlock(192),
            nn.GroupNorm(8, 192),
            nn.SiLU(),
            nn.Conv2d(192, 13, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return F.pixel_unshuffle(torch.cat([F.avg_pool2d(image, 16), self.body(image)], dim=1), 2)


class Decoder(nn.Module):
    """latents (B, 64, h, w), normalised -> image (B, 3, 64 h, 64 w) in -1..1 (not clipped).

    `mean` and `std` (64,) undo the normalisation of the UNet's latents; the pack's scaling factor is 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("std", torch.ones(LATENT_CHANNELS))
        self.body = nn.Sequential(
            nn.Conv2d(16, 192, 3, padding=1),
            ResBlock(192),
            ResBlock(192),
            ResBlock(192),
            _up(192, 96),
            ResBlock(96),
            ResBlock(96),
            _up(96, 48),
            ResBlock(48),
            ResBlock(48),
            _up(48, 24),
            ResBlock(24),
            nn.GroupNorm(8, 24),
            nn.SiLU(),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        # Parts of the art (an eye, a collar) are many but not endless: where cells are large, depth that
        # knows them by heart costs little. The blocks begin as identities.
        self.depth = nn.Sequential(*(ResBlock(192) for _ in range(4)))

    def forward(self, latents: Tensor) -> Tensor:
        raw = latents * self.std[:, None, None] + self.mean[:, None, None]
        grid = F.pixel_shuffle(raw, 2)
        colors = F.interpolate(grid[:, :3], scale_factor=32.0, mode="bilinear", align_corners=False)
        deep = self.depth(self.body[:4](grid))
        return torch.as_tensor(self.body[4:](deep) + colors)


class Autoencoder(nn.Module):
    """Encoder and decoder together, as they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def encode(self, image: Tensor) -> Tensor:
        """image (B, 3, 256, 256) in -1..1 -> normalised latents (B, 64, 8, 8)."""
        d = self.decoder
        raw: Tensor = self.encoder(image)
        return (raw - d.mean[:, None, None]) / d.std[:, None, None]
