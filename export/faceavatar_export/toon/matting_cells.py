"""A picture as cells of 4x4 pixels: which of them are in doubt, and what the colours around tell of them.

What the matting net's parts look at and how they find it; knows no weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 4  # pixels a side of what the fine half sees as one place, and the coarse half as one pixel
RAW = 3 * CELL**2  # numbers in the colours of one
REACH = 3  # pixels to each side that the fine half sees of a place
CLOSE = 2  # pixels to each side of a cell whose colours tell of it best
FADING = 1.5  # pixels from its middle where they weigh six tenths of those there
SMOOTHING = 2e-4  # as REGULARIZATION, for those
AROUND = 9  # cells a side of where both sides of an edge are looked for
REGULARIZATION = 4e-4  # of the guide's variance, colours in -1..1
NOTHING = 1e-3  # of the weight there, that a cell's own colour has where neither side is sure
# Logits of the coarse half, alpha of 0.02 and 0.98, between which the fine one looks. What is left beyond is
# whole or nothing (matting_losses.SETTLED).
OUTSIDE, INSIDE = -4.0, 4.0
SEAM = 0.1  # of a pixel that the colours around tell to be missing, where the coarse half is sure of its cell


class Cells(nn.Module):
    """Pixels as channels of their cells: (B, C, CELL h, CELL w) -> (B, C CELL**2, h, w).

    convolve: by a convolution with ones and zeros, which runtimes do five times as fast as they move pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolve = False

    def forward(self, planes: Tensor) -> Tensor:
        if not self.convolve:
            return F.pixel_unshuffle(planes, CELL)
        channels = planes.shape[1]
        ones = torch.eye(channels * CELL**2).view(-1, channels, CELL, CELL)
        return F.conv2d(planes, ones, stride=CELL)


def mean_of(cells: Tensor) -> Tensor:
    """The mean colours (B, 3, h, w) of a picture's cells (B, RAW, h, w)."""
    return torch.as_tensor(cells.unflatten(1, (3, CELL**2)).mean(dim=2))


def between(planes: Tensor) -> Tensor:
    """(B, 1, h, w) as pictures CELL times as large, interpolated, as cells (B, CELL**2, h, w): what torch's
    bilinear interpolation has of each pixel, by a convolution over the nine cells around."""
    at = (torch.arange(CELL) + 0.5) / CELL - 0.5
    share = torch.stack([F.relu(-at), 1 - at.abs(), F.relu(at)], dim=1)
    weight = (share[:, None, :, None] * share[None, :, None, :]).view(CELL**2, 1, 3, 3)
    return F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), weight.to(planes))


class Sides(NamedTuple):
    """What lies on both sides of an edge: the figure's and the background's mean colours around each cell
    (B, 3, h, w), where alpha is sure of them, colours in -1..1; and how alpha follows from a colour there,
    (B, 4, h, w): alpha = slopes . colour + offset."""

    figure: Tensor
    back: Tensor
    functions: Tensor


def followed(colors: Tensor, functions: Tensor) -> Tensor:
    """Alpha near 0..1 by functions that fit colours: of each cell's pixels, (B, 3, n, h, w) by (B, 4, h, w)
    -> (B, n, h, w); of single cells, (n, 3, a, b) by (n, 4, 1, 1) -> (n, 1, a, b)."""
    slopes, offset = functions[:, :3], functions[:, 3:]
    if colors.ndim == 4:
        colors = colors[:, :, None]
    # Product by product, as in `summed`.
    red, green, blue = (colors[:, i] * slopes[:, i : i + 1] for i in range(3))
    return torch.as_tensor((red + green + blue + offset).clamp(-0.5, 1.5))


def summed(three: Tensor) -> Tensor:
    """(B, 3, h, w) -> (B, 1, h, w). ONNX Runtime takes twice as long to sum over three of anything."""
    red, green, blue = three.split(1, dim=1)
    return torch.as_tensor(red + green + blue)


def nearest(colors: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha of n cells as the colours of the nearest pixels tell it, 0..1, and how well, both of each pixel:
    (n, 1, CELL, CELL) and (n, 3, CELL, CELL): the mean alpha of those pixels, how far the fit strays from
    theirs, and how far apart their colours are. Of the cells and what is REACH around: colours (n, 3, CELL +
    2 REACH, CELL + 2 REACH) and alpha (n, 1, ...), which nearly is right.

    A guided filter's function (He et al., ECCV 2010) of one window, fading from its middle.
    """
    inner = slice(REACH - CLOSE, CLOSE - REACH)
    both = torch.cat([colors, alpha], dim=1)
    near = both[:, :, inner, inner].flatten(2)
    step = torch.arange(CELL + 2 * CLOSE, device=colors.device) - (CELL + 2 * CLOSE - 1) / 2
    fading = torch.softmax(-(step / FADING).square() / 2, dim=0)
    weight = torch.outer(fading, fading).view(-1, 1)
    red, blue, share = near[:, :1], near[:, 2:3], near[:, 3:]
    products = [near, near * near, near[:, :3] * share, near[:, :2] * near[:, 1:3], red * blue]
    means, squares, shared, *crossed = ((part @ weight)[..., None] for part in products)
    center, level = means[:, :3], means[:, 3:]
    mixed = torch.cat([center[:, :2] * center[:, 1:], center[:, :1] * center[:, 2:]], dim=1)
    own, together = squares[:, :3] - center * center, shared - center * level
    slopes = _solved(own + SMOOTHING, torch.cat(crossed, dim=1) - mixed, together)
    offset = level - summed(slopes * center)
    missed = squares[:, 3:] - level * level - summed(slopes * together)
    strays = torch.cat([missed, summed(own)], dim=1).clamp_min(1e-6).sqrt()
    cell = colors[:, :, REACH:-REACH, REACH:-REACH]
    told = torch.cat([level, strays], dim=1).expand(-1, -1, CELL, CELL)
    return followed(cell, torch.cat([slopes, offset], dim=1)).clamp(0, 1), told


class Surroundings:
    """The colours around each cell, of a picture's cells (B, 3 CELL**2, h, w)."""

    def __init__(self, cells: Tensor) -> None:
        mean = mean_of(cells)
        squares = torch.cat([mean * mean, mean[:, :2] * mean[:, 1:], mean[:, :1] * mean[:, 2:]], dim=1)
        near = _around(torch.cat([mean, squares], dim=1))
        center = near[:, :3]
        crossed = torch.cat([center[:, :2] * center[:, 1:], center[:, :1] * center[:, 2:]], dim=1)
        self._mean, self._center = mean, center
        self._own = near[:, 3:6] - center * center + REGULARIZATION
        self._crossed = near[:, 6:] - crossed

    def sides(self, alpha: Tensor) -> Sides:
        """Of each cell's alpha (B, 1, h, w) in 0..1.

        The functions are those of a guided filter with colours as the guide (He et al., ECCV 2010), solved
        for cells.
        """
        mean, center = self._mean, self._center
        sure = torch.cat([F.relu(alpha - 0.8), F.relu(0.2 - alpha)], dim=1)
        known = torch.cat([mean * sure[:, :1], mean * sure[:, 1:], sure], dim=1)
        near = _around(torch.cat([known, alpha, mean * alpha], dim=1))
        front, back, seen, level, both = near.split((3, 3, 2, 1, 3), dim=1)
        front = (front + NOTHING * mean) / (seen[:, :1] + NOTHING)
        back = (back + NOTHING * mean) / (seen[:, 1:] + NOTHING)
        slopes = _solved(self._own, self._crossed, both - center * level)
        offset = level - summed(slopes * center)
        return Sides(front, back, _around(torch.cat([slopes, offset], dim=1)))


def _around(planes: Tensor) -> Tensor:
    """The mean of AROUND x AROUND cells."""
    for side in ((AROUND, 1), (1, AROUND)):
        padding = (side[0] // 2, side[1] // 2)
        planes = F.avg_pool2d(planes, side, stride=1, padding=padding, count_include_pad=False)
    return torch.as_tensor(planes)


def _solved(own: Tensor, crossed: Tensor, right: Tensor) -> Tensor:
    """x of the symmetric systems A x = right (B, 3, h, w): own are A's (00, 11, 22), crossed its (01, 12,
    02).

    By elimination (A = L D L'): beside an edge of two colours A is nearly singular, and what cofactors leave
    of its determinant in float32 is off by a tenth.
    """
    a, d, f = own.split(1, dim=1)
    b, e, c = crossed.split(1, dim=1)
    first, second, third = right.split(1, dim=1)
    down, low = b / a, c / a
    d, e = d - down * b, e - down * c
    last = e / d
    f = f - low * c - last * e
    second = second - down * first
    z = (third - low * first - last * second) / f
    y = second / d - last * z
    return torch.cat([first / a - down * y - low * z, y, z], dim=1)


class DoubtfulCells:
    """The cells in doubt, as a batch of small pictures."""

    def __init__(self, doubt: Tensor) -> None:
        """doubt: (B, 1, h, w)."""
        batch, _, high, wide = doubt.shape
        self.grid = (batch, high + 2, wide + 2)  # with one cell around, so that each has its neighbours
        active = F.pad(doubt.float(), (1, 1, 1, 1)).reshape(-1)
        self.at = torch.nonzero(active)[:, 0]
        inner = doubt.long().reshape(-1)
        self.slot = (torch.cumsum(inner, 0) * inner).view(batch, high, wide)  # from 1; 0 for a sure cell

    def around(self, planes: Tensor) -> Tensor:
        """(B, C CELL**2, h, w) -> (n, C, CELL + 2 REACH, CELL + 2 REACH): a cell's pixels and those around
        it, 0 beyond the picture."""
        wide = self.grid[2]
        steps = [y * wide + x for y in (-1, 0, 1) for x in (-1, 0, 1)]
        near = self.at[:, None] + torch.tensor(steps, device=planes.device)
        blocks = F.embedding(near, self._rows(planes)).unflatten(2, (-1, CELL, CELL)).unflatten(1, (3, 3))
        pictures = blocks.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        inner = slice(CELL - REACH, REACH - CELL)
        return torch.as_tensor(pictures[:, :, inner, inner])

    def at_cells(self, planes: Tensor) -> Tensor:
        """(B, C, h, w) -> (n, C, 1, 1)."""
        return torch.as_tensor(F.embedding(self.at, self._rows(planes))[:, :, None, None])

    def at_places(self, planes: Tensor) -> Tensor:
        """(B, C, h / CELL, w / CELL), of places of several cells -> (n, C, 1, 1)."""
        _, high, wide = self.grid
        row, column = self.at // wide % high - 1, self.at % wide - 1
        rows, columns = planes.shape[-2:]
        place = (self.at // (high * wide) * rows + row // CELL) * columns + column // CELL
        return torch.as_tensor(F.embedding(place, planes.permute(0, 2, 3, 1).flatten(0, 2))[:, :, None, None])

    def inside(self, planes: Tensor) -> Tensor:
        """(B, C CELL**2, h, w) -> (n, C, CELL, CELL)."""
        return torch.as_tensor(self.at_cells(planes).flatten(1).unflatten(1, (-1, CELL, CELL)))

    def spread(self, answers: Tensor) -> Tensor:
        """(n, C, a, b) -> (B, C a b, h, w), 0 in sure cells."""
        rows = answers.flatten(1)
        planes = F.embedding(self.slot, torch.cat([torch.zeros_like(rows[:1]), rows]))
        return torch.as_tensor(planes.permute(0, 3, 1, 2))

    def _rows(self, planes: Tensor) -> Tensor:
        return F.pad(planes, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)


class Pixels:
    """Any pixels, as rows."""

    def __init__(self, where: Tensor) -> None:
        """where: (B, 1, H, W) bool."""
        self.high, self.wide = where.shape[-2:]
        self.picture, _, self.row, self.column = torch.nonzero(where, as_tuple=True)

    def around(self, planes: Tensor) -> Tensor:
        """(B, C, H, W) -> (n, (2 REACH + 1)**2 C): what lies around each, 0 beyond the picture."""
        high, wide = self.high + 2 * REACH, self.wide + 2 * REACH
        rows = F.pad(planes, (REACH,) * 4).permute(0, 2, 3, 1).flatten(0, 2)
        corner = (self.picture * high + self.row) * wide + self.column
        steps = [y * wide + x for y in range(2 * REACH + 1) for x in range(2 * REACH + 1)]
        return F.embedding(corner[:, None] + torch.tensor(steps, device=planes.device), rows).flatten(1)

    def at(self, planes: Tensor) -> Tensor:
        """(B, C, h, w), of the same size or of places of several pixels -> (n, C): what is said of each."""
        high, wide = planes.shape[-2:]
        row, column = self.row * high // self.high, self.column * wide // self.wide
        return F.embedding(
            (self.picture * high + row) * wide + column, planes.permute(0, 2, 3, 1).flatten(0, 2)
        )


def in_doubt(coarse: Tensor) -> Tensor:
    """Cells (B, 1, h, w) that the coarse logits leave in doubt; one at least, since not every runtime takes
    an empty list."""
    unsure = (coarse > OUTSIDE) & (coarse < INSIDE)
    # Where it jumps from sure to sure no cell is in doubt, and the edge lies between them all the same.
    lowest, highest = -F.max_pool2d(-coarse, 3, 1, 1), F.max_pool2d(coarse, 3, 1, 1)
    corner = torch.arange(coarse.shape[2] * coarse.shape[3], device=coarse.device).view_as(coarse[:1]) == 0
    return unsure | ((lowest <= OUTSIDE) & (highest >= INSIDE)) | corner


def seams(coarse: Tensor, solved: Tensor) -> Tensor:
    """Cells (B, 1, h, w) surely within the figure through which the background may shine all the same, of the
    coarse logits (B, 1, h, w) and of alpha as the colours around tell it, (B, CELL**2, h, w): where two drawn
    shapes meet, and in gaps between strands."""
    return (coarse >= INSIDE) & (solved.amin(dim=1, keepdim=True) < 1 - SEAM)
