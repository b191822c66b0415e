"""The toon pack's matting net: where the figure is, seen at 128 pixels a side, and its edge, seen at 512.

Drawn data gives exact alpha and colours for free. The coarse half is a U-Net on the whole picture made small.
The fine half looks at the pixels that the coarse one leaves in doubt, and nowhere else: a tenth of a picture.
It answers with alpha and with the figure's own colours, for in a line thinner than a pixel neither can be
told without the other.
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
FINE = 96  # numbers in each of the fine half's layers
REACH = 3  # pixels to each side that it sees of a place
SEEN = 5  # numbers that it sees of each of them
# What it hears of how the coarse half sees a place. With six numbers of colours it makes a multiple of four:
# ONNX Runtime blocks channels of no others, and laid the layers out anew before and behind this one.
HINT = 18
AROUND = 9  # cells a side of where both sides of an edge are looked for
REGULARIZATION = 4e-4  # of the guide's variance, colours in -1..1
NOTHING = 1e-3  # of the weight there, that a cell's own colour has where neither side is sure
DOUBT = 2.2  # logits of the coarse half nearer to 0 than this are for the fine one: alpha in 0.1..0.9
SURE = 6.0  # logits of the coarse half beyond this say no more to the fine one


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
        self.head = nn.Sequential(
            _conv(a + RAW, a), nn.Conv2d(a, CELL**2, 3, padding=1), nn.PixelShuffle(CELL)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.told(image)[0]

    def told(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and beside them how a place is seen, (B, WIDTHS[0], h / 4, w / 4)."""
        raw = self.cells(image)
        s0 = self.stem(raw)
        s1 = self.deep1(self.down1(s0))
        s2 = self.deep2(self.down2(s1))
        x = self.deep3(self.middle(s2))
        steps = ((self.up2, self.late2, s2), (self.up1, self.late1, s1), (self.up0, self.late0, s0))
        for up, late, skip in steps:
            x = late(up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1)))
        return self.head(torch.cat([x, raw], dim=1)), x


class CoarseAlpha(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> alpha (B, 1, 128, 128): the coarse half as a net of its own."""

    def __init__(self, coarse: CoarseNet) -> None:
        super().__init__()
        self.coarse = coarse

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.coarse(image))


class _Sides(NamedTuple):
    """What lies on both sides of an edge: the figure's and the background's mean colours around each cell
    (B, 3, h, w), where the coarse half is sure of them, colours in -1..1; and alpha as the colours around
    tell it, of each pixel (B, CELL**2, h, w), near 0..1."""

    figure: Tensor
    back: Tensor
    alpha: Tensor


def sides(cells: Tensor, coarse: Tensor) -> _Sides:
    """Of a picture's cells (B, RAW, h, w) and the coarse logits (B, 1, h, w).

    Alpha is that of a guided filter with colours as the guide (He et al., ECCV 2010), solved for cells.
    """
    pixels = cells.unflatten(1, (3, CELL**2))
    mean, alpha = pixels.mean(dim=2), torch.sigmoid(coarse)
    sure = torch.cat([F.relu(alpha - 0.8), F.relu(0.2 - alpha)], dim=1)
    known = torch.cat([mean * sure[:, :1], mean * sure[:, 1:], sure], dim=1)
    squares = torch.cat([mean * mean, mean[:, :2] * mean[:, 1:], mean[:, :1] * mean[:, 2:]], dim=1)
    near = _around(torch.cat([known, mean, alpha, mean * alpha, squares], dim=1))
    front, back, seen, center = near[:, :3], near[:, 3:6], near[:, 6:8], near[:, 8:11]
    level, both, square = near[:, 11:12], near[:, 12:15], near[:, 15:]
    front = (front + NOTHING * mean) / (seen[:, :1] + NOTHING)
    back = (back + NOTHING * mean) / (seen[:, 1:] + NOTHING)
    crossed = torch.cat([center[:, :2] * center[:, 1:], center[:, :1] * center[:, 2:]], dim=1)
    own = square[:, :3] - center * center + REGULARIZATION
    slopes = _solved(own, square[:, 3:] - crossed, both - center * level)
    offset = level - (slopes * center).sum(dim=1, keepdim=True)
    smooth = _around(torch.cat([slopes, offset], dim=1))
    told = (pixels * smooth[:, :3, None]).sum(dim=1) + smooth[:, 3:]
    return _Sides(front, back, told.clamp(-0.5, 1.5))


def _around(planes: Tensor) -> Tensor:
    """The mean of AROUND x AROUND cells."""
    for side in ((AROUND, 1), (1, AROUND)):
        padding = (side[0] // 2, side[1] // 2)
        planes = F.avg_pool2d(planes, side, stride=1, padding=padding, count_include_pad=False)
    return torch.as_tensor(planes)


def _solved(own: Tensor, crossed: Tensor, right: Tensor) -> Tensor:
    """x of the symmetric systems A x = right (B, 3, h, w), by cofactors: own are A's (00, 11, 22), crossed
    its (01, 12, 02)."""
    a, d, f = own.split(1, dim=1)
    b, e, c = crossed.split(1, dim=1)
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    rows = (
        torch.cat([first, second, third], dim=1),
        torch.cat([second, a * f - c * c, b * c - a * e], dim=1),
        torch.cat([third, b * c - a * e, a * d - b * b], dim=1),
    )
    whole = a * first + b * second + c * third
    top = torch.cat([(row * right).sum(dim=1, keepdim=True) for row in rows], dim=1)
    return torch.as_tensor(top / whole.clamp_min(1e-12))


class Rows(NamedTuple):
    """What the fine half knows of single pixels. around (n, (2 REACH + 1)**2 SEEN): of each and those around
    it; near (n, 6 + WIDTHS[0]): the colours of both sides, and how the coarse half sees its place; own
    (n, 8): its logit, its alpha as colours tell it, its colour, the figure's near it."""

    around: Tensor
    near: Tensor
    own: Tensor


class FineNet(nn.Module):
    """A small net for each pixel in doubt and what lies REACH around it; the same at every place, so that
    every pixel of every rim teaches it.

    What the colours around tell of alpha is solved before the net sees it (`sides`); what the net says of a
    pixel is how much of that it takes, and what else alpha and colour are where it does not.
    image (B, 3, 4 h, 4 w) in -1..1, the coarse half's logits (B, 1, h, w) and sight (B, WIDTHS[0], h / 4,
    w / 4) -> alpha (B, 1, 4 h, 4 w) and colours (B, 3, 4 h, 4 w), both in 0..1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.pixels = Cells(), nn.PixelShuffle(CELL)
        self.hint = nn.Conv2d(WIDTHS[0], HINT, 1)
        self.first = nn.Conv2d(SEEN, FINE, 2 * REACH + 1)
        self.further = nn.Conv2d(6 + HINT, FINE, 1, bias=False)
        self.second = nn.Conv2d(FINE, FINE, 1)
        self.third = nn.Conv2d(FINE, FINE, 1)
        self.head = nn.Conv2d(FINE, 6, 1)
        for part in self.head.parameters():
            nn.init.zeros_(part)
        assert self.head.bias is not None
        with torch.no_grad():  # it begins with what is solved, and with the picture's colours
            self.head.bias[:2] = torch.tensor([3.0, -1.0])

    def forward(self, image: Tensor, coarse: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
        view = self.view(image, coarse)
        place = _Cells(in_doubt(coarse))
        hint = F.interpolate(self.hint(sight), scale_factor=float(CELL), mode="nearest")
        further = torch.cat([view.near.figure, view.near.back, hint], dim=1)
        x = self.first(place.around(view.seen)) + self.further(place.at_cells(further))
        x = self.said(x)
        return view.answer(place.spread(x), self.pixels)

    def rows(self, image: Tensor, coarse: Tensor, sight: Tensor, where: Tensor) -> Rows:
        """What forward knows of each of the pixels `where` (B, 1, 4 h, 4 w) bool: for learning from any."""
        view = self.view(image, coarse)
        place = _Pixels(where)
        around = place.around(self.pixels(view.seen))
        near = torch.cat([place.at(part) for part in (view.near.figure, view.near.back, sight)], dim=1)
        solved = self.pixels(view.near.alpha)
        own = torch.cat([place.at(part) for part in (view.whole, solved, image, view.near.figure)], dim=1)
        return Rows(around, near, own)

    def told(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """As forward: alpha (n,) and colours (n, 3)."""
        window = self.first.weight.permute(0, 2, 3, 1).flatten(1)
        further = torch.cat([rows.near[:, :6], F.linear(rows.near[:, 6:], *_flat(self.hint))], dim=1)
        x = F.linear(rows.around, window, self.first.bias) + F.linear(further, *_flat(self.further))
        x = self.said(x[:, :, None, None])[:, :, 0, 0].float()
        logit, solved, pixel, figure = rows.own.float().split((1, 1, 3, 3), dim=1)
        own = torch.sigmoid(logit + x[:, 2:3])
        alpha = own + x[:, :1] * (solved.clamp(0, 1) - own)
        color = (pixel + x[:, 1:2] * (figure - pixel) + 1) / 2 + x[:, 3:]
        return alpha[:, 0], color.clamp(0, 1)

    def view(self, image: Tensor, coarse: Tensor) -> _View:
        """All that is computed of the whole picture."""
        known, cells = coarse.clamp(-SURE, SURE), self.cells(image)
        near = sides(cells, coarse)
        whole = F.interpolate(known, scale_factor=float(CELL), mode="bilinear", align_corners=False)
        away = (cells.unflatten(1, (3, -1)) - near.back[:, :, None]).flatten(1, 2)
        return _View(cells, whole, near, torch.cat([away, near.alpha, self.cells(whole / SURE)], dim=1))

    def said(self, x: Tensor) -> Tensor:
        """(n, FINE, a, b) -> (n, 6, a, b): how much of the solution's alpha and colour, logits, colours."""
        x = F.silu(x)
        x = x + F.silu(self.second(x))
        x = x + F.silu(self.third(x))
        x = self.head(x)
        return torch.cat([torch.sigmoid(x[:, :2]), x[:, 2:]], dim=1)


class _View(NamedTuple):
    """cells (B, RAW, h, w), whole (B, 1, 4 h, 4 w): logits. seen (B, SEEN CELL**2, h, w): of each pixel, how
    far its colour is from the background's, alpha as colours tell it, the logits."""

    cells: Tensor
    whole: Tensor
    near: _Sides
    seen: Tensor

    def answer(self, said: Tensor, pixels: nn.PixelShuffle) -> tuple[Tensor, Tensor]:
        """Alpha and colours; said (B, 6 CELL**2, h, w), all 0 in sure places."""
        many = CELL**2
        own = torch.sigmoid(self.whole + pixels(said[:, 2 * many : 3 * many]))
        alpha = own + pixels(said[:, :many]) * (pixels(self.near.alpha).clamp(0, 1) - own)
        cells = self.cells.unflatten(1, (3, many))
        taken = said[:, None, many : 2 * many] * (self.near.figure[:, :, None] - cells)
        color = (cells + taken + 1) / 2 + said[:, 3 * many :].unflatten(1, (3, many))
        return alpha, pixels(color.flatten(1, 2)).clamp(0, 1)


class _Cells:
    """The cells in doubt, as a batch of small pictures."""

    def __init__(self, doubt: Tensor) -> None:
        """doubt: (B, 1, h, w)."""
        batch, _, high, wide = doubt.shape
        self.grid = (batch, high + 2, wide + 2)  # with one cell around, so that each has its neighbours
        active = F.pad(doubt.float(), (1, 1, 1, 1)).reshape(-1)
        self.at = torch.nonzero(active)[:, 0]
        self.slot = torch.cumsum(active.long(), 0) * active.long()  # its row, from 1; 0 for a sure cell

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

    def spread(self, answers: Tensor) -> Tensor:
        """(n, C, CELL, CELL) -> (B, C CELL**2, h, w), 0 in sure cells."""
        rows = answers.flatten(1)
        planes = F.embedding(self.slot, torch.cat([torch.zeros_like(rows[:1]), rows]))
        return torch.as_tensor(planes.unflatten(0, self.grid)[:, 1:-1, 1:-1].permute(0, 3, 1, 2))

    def _rows(self, planes: Tensor) -> Tensor:
        return F.pad(planes, (1, 1, 1, 1)).permute(0, 2, 3, 1).flatten(0, 2)


class _Pixels:
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


def _flat(layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """A convolution of single pixels as a matrix, and its bias."""
    return layer.weight[:, :, 0, 0], layer.bias


def in_doubt(coarse: Tensor) -> Tensor:
    """Cells (B, 1, h, w) that the coarse logits leave in doubt; one at least, since not every runtime takes
    an empty list."""
    # Where it jumps from sure to sure no cell is in doubt, and the edge lies between them all the same.
    inside = F.avg_pool2d((coarse > 0).float(), 3, stride=1, padding=1, count_include_pad=False)
    corner = torch.arange(coarse.shape[2] * coarse.shape[3], device=coarse.device).view_as(coarse[:1]) == 0
    return (coarse.abs() < DOUBT) | ((inside > 0) & (inside < 1)) | corner


class MattingNet(nn.Module):
    """image (B, 3, 512, 512) in -1..1 -> alpha (B, 1, 512, 512) and the figure's own colours where alpha is
    between 0 and 1 (B, 3, 512, 512), both in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = CoarseNet(), FineNet()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        alpha, foreground = self.fine(image, *self.coarse.told(F.avg_pool2d(image, CELL)))
        return alpha, foreground
