"""The toon pack's matting net: where the figure is, seen at 128 pixels a side, and its edge, seen at 512.

Drawn data gives exact alpha and colours for free. The coarse half is a U-Net on the whole picture made small.
The fine half looks at the rim that the coarse one leaves in doubt, and nowhere else: a tenth of a picture, so
that it can be wide. It answers with alpha and with the figure's own colours, for in a line thinner than a
pixel neither can be told without the other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 512
CELL = 4  # pixels a side of what the fine half sees as one place, and the coarse half as one pixel
RAW = 3 * CELL**2
WIDTHS = (32, 64, 96, 128)  # of the coarse half's grids of 32, 16, 8 and 4 cells a side
FINE = 96
HINT = 8  # what the fine half hears of how the coarse half sees a place
AROUND = 7  # cells a side of where both sides of an edge are looked for
NOTHING = 1e-3  # of the weight there, that a cell's own colour has where neither side is sure
DOUBT = 4.6  # logits of the coarse half nearer to 0 than this are for the fine one: alpha in 0.01..0.99
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
        return self.told(image)[0]

    def told(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and beside them how a place is seen, (B, WIDTHS[0], h / 4, w / 4)."""
        raw = self.cells(image)
        s0 = self.stem(raw)
        s1 = self.down1(s0)
        s2 = self.down2(s1)
        x = self.middle(s2)
        for up, skip in ((self.up2, s2), (self.up1, s1), (self.up0, s0)):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.head(torch.cat([x, raw], dim=1)), x


class CoarseAlpha(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> alpha (B, 1, 128, 128): the coarse half as a net of its own."""

    def __init__(self, coarse: CoarseNet) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.coarse(image))


class _Rim:
    """Cells in doubt, as rows: where their neighbours lie, among all cells and among themselves.

    Planes are padded by one cell, so that every cell in doubt has eight neighbours.
    """

    def __init__(self, doubt: Tensor) -> None:
        batch, _, height, width = doubt.shape
        self.grid = (batch, height + 2, width + 2)
        active = F.pad(doubt.float(), (1, 1, 1, 1)).reshape(-1)
        at = torch.nonzero(active)[:, 0]
        steps = [y * (width + 2) + x for y in (-1, 0, 1) for x in (-1, 0, 1)]
        self.around = at[:, None] + torch.tensor(steps, device=doubt.device)  # (n, 9) among all cells
        self.slot = torch.cumsum(active.long(), 0) * active.long()  # its row, from 1; 0 for a sure cell
        self.among = self.slot.index_select(0, self.around.flatten()).unflatten(0, (-1, 9))  # (n, 9) rows

    def seen(self, planes: Tensor) -> Tensor:
        """(B, C, h, w) -> (n, 9 C): each doubtful cell and its neighbours."""
        rows = F.pad(planes, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)
        return _picked(rows, self.around)

    def shared(self, rows: Tensor) -> Tensor:
        """(n, C) -> (n, 9 C), as seen; sure neighbours are 0."""
        return _picked(_after_nothing(rows), self.among)

    def spread(self, rows: Tensor) -> Tensor:
        """(n, C) -> (B, C, h, w), 0 in sure cells."""
        planes = F.embedding(self.slot, _after_nothing(rows)).unflatten(0, self.grid)
        return torch.as_tensor(planes[:, 1:-1, 1:-1].permute(0, 3, 1, 2))


def _picked(rows: Tensor, at: Tensor) -> Tensor:
    # As an embedding: its gradient is the fast one.
    return F.embedding(at, rows).flatten(1)


def _after_nothing(rows: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rows[:1]), rows])


class _Sides(NamedTuple):
    """What lies on both sides of an edge: the figure's and the background's mean colours around each cell
    (B, 3, h, w), where the coarse half is sure of them, and how far each pixel's colour has gone from the one
    to the other, (B, CELL**2, h, w), near 0..1. Colours in -1..1."""

    figure: Tensor
    back: Tensor
    way: Tensor


def sides(cells: Tensor, coarse: Tensor) -> _Sides:
    """Of a picture's cells (B, RAW, h, w) and the coarse logits (B, 1, h, w)."""
    pixels = cells.unflatten(1, (3, CELL**2))
    mean, alpha = pixels.mean(dim=2), torch.sigmoid(coarse)
    sure = torch.cat([F.relu(alpha - 0.8), F.relu(0.2 - alpha)], dim=1)
    near = F.avg_pool2d(
        torch.cat([mean * sure[:, :1], mean * sure[:, 1:], sure], dim=1), AROUND, 1, AROUND // 2
    )
    front = (near[:, :3] + NOTHING * mean) / (near[:, 6:7] + NOTHING)
    back = (near[:, 3:6] + NOTHING * mean) / (near[:, 7:] + NOTHING)
    line = front - back
    gone = (pixels * line[:, :, None]).sum(dim=1) - (back * line).sum(dim=1, keepdim=True)
    return _Sides(front, back, (gone / (line.square().sum(dim=1, keepdim=True) + 0.01)).clamp(-1, 2))


class FineNet(nn.Module):
    """Convolutions of 3x3 cells over the rim alone. Without norms: what they would see differs from picture
    to picture in nothing that matters at an edge.

    An edge between two colours is solved before the net sees it (`sides`); what the net says of each pixel is
    how much of that solution it takes, and what else alpha and colour are where it does not.
    image (B, 3, 4 h, 4 w) in -1..1, the coarse half's logits (B, 1, h, w) and sight (B, WIDTHS[0], h / 4,
    w / 4) -> alpha (B, 1, 4 h, 4 w) and colours (B, 3, 4 h, 4 w), both in 0..1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.pixels = nn.PixelUnshuffle(CELL), nn.PixelShuffle(CELL)
        self.hint = nn.Conv2d(WIDTHS[0], HINT, 1)
        self.first = nn.Linear(9 * (RAW + CELL**2 + 7 + HINT), FINE)
        self.second = nn.Linear(9 * FINE, FINE)
        self.third = nn.Linear(9 * FINE, FINE)
        self.head = nn.Linear(9 * FINE, 6 * CELL**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor, coarse: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
        known, cells = coarse.clamp(-SURE, SURE), self.cells(image)
        hint = F.interpolate(self.hint(sight), scale_factor=float(CELL), mode="nearest")
        near, rim = sides(cells, coarse), _Rim(in_doubt(coarse))
        x = torch.cat([cells, near.way, near.figure, near.back, known / SURE, hint], dim=1)
        x = F.silu(self.first(rim.seen(x)))
        x = x + F.silu(self.second(rim.shared(x)))
        x = x + F.silu(self.third(rim.shared(x)))
        x = self.head(rim.shared(x))
        taken, other = torch.sigmoid(x[:, : 2 * CELL**2]), x[:, 2 * CELL**2 :]
        said = self.pixels(rim.spread(torch.cat([taken, other], dim=1)))  # all 0 in sure cells
        whole = F.interpolate(known, scale_factor=float(CELL), mode="bilinear", align_corners=False)
        own = torch.sigmoid(whole + said[:, 2:3])
        alpha = own + said[:, :1] * (self.pixels(near.way).clamp(0, 1) - own)
        figure = F.interpolate(near.figure, scale_factor=float(CELL), mode="nearest")
        color = (image + said[:, 1:2] * (figure - image) + 1) / 2 + said[:, 3:]
        return alpha, color.clamp(0, 1)


def in_doubt(coarse: Tensor) -> Tensor:
    """Cells (B, 1, h, w) that the coarse logits leave in doubt, and all beside them; one at least, since not
    every runtime takes an empty list."""
    # Where it jumps from sure to sure no cell is in doubt, and the edge lies between them all the same.
    doubt, inside = (_around(part.float()) for part in (coarse.abs() < DOUBT, coarse > 0))
    corner = torch.arange(coarse.shape[2] * coarse.shape[3], device=coarse.device).view_as(coarse[:1]) == 0
    return (doubt > 0) | ((inside > 0) & (inside < 1)) | corner


def _around(planes: Tensor) -> Tensor:
    return F.avg_pool2d(planes, 3, stride=1, padding=1, count_include_pad=False)


class MattingNet(nn.Module):
    """image (B, 3, 512, 512) in -1..1 -> alpha (B, 1, 512, 512) and the figure's own colours where alpha is
    between 0 and 1 (B, 3, 512, 512), both in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = CoarseNet(), FineNet()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        alpha, foreground = self.fine(image, *self.coarse.told(F.avg_pool2d(image, CELL)))
        return alpha, foreground
