"""What the matting net learns to make small: errors of alpha, and halos as the runtime has them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SETTLED = 0.02  # the runtime takes alpha nearer than this to 0 or 1 for that, and stretches the rest
DARK = 0.0031308  # light below which sRGB's codes are a straight line


def picture_losses(logits: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its mean squared error.

    Cross-entropy finds the figure, absolute errors of alpha and of its slopes make the edge.
    """
    guess = torch.sigmoid(logits.float())
    error = guess - alpha
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss = F.binary_cross_entropy_with_logits(logits.float(), alpha) + error.abs().mean() + 2 * slopes
    return loss, error.detach().square().mean()


def edge_losses(guess: Tensor, colors: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Of n pixels: guessed alpha (n,) and colours (n, 3); the figure (n, 4), its colours times alpha."""
    error = guess - figure[:, 3]
    loss = error.abs().mean() + 4 * halo(guess, colors, figure[:, 3], figure[:, :3]).mean()
    return loss, error.detach().square().mean()


def halo(guess: Tensor, colors: Tensor, alpha: Tensor, figure: Tensor) -> Tensor:
    """How far each pixel of a cut-out is from the true one on black and on white, (n,) in codes of 0..1.

    Guessed alpha (n,) and colours (n, 3); true alpha (n,) and colours times alpha (n, 3). Composited in
    linear light, as the runtime does it, and settled as there.
    """
    guess = ((guess - SETTLED) / (1 - 2 * SETTLED)).clamp(0, 1)[:, None]
    alpha = alpha[:, None]
    true = light((figure / alpha.clamp_min(1 / 255)).clamp(0, 1)) * alpha
    ours = light(colors) * guess
    black = (codes(ours) - codes(true)).abs().mean(dim=1)
    white = (codes(ours + 1 - guess) - codes(true + 1 - alpha)).abs().mean(dim=1)
    return (black + white) / 2


def light(codes: Tensor) -> Tensor:
    """Of sRGB codes, both in 0..1 (IEC 61966-2-1)."""
    return torch.where(codes <= 0.04045, codes / 12.92, ((codes.clamp_min(0.04) + 0.055) / 1.055) ** 2.4)


def codes(light: Tensor) -> Tensor:
    """The inverse of `light`."""
    curve = 1.055 * light.clamp_min(DARK) ** (1 / 2.4) - 0.055
    return torch.where(light < DARK, 12.92 * light, curve)
