"""The toon pack's matting net: where the figure is, seen at 128 pixels a side, and its edge, seen at 512.

Drawn data gives exact alpha and colours for free. The coarse half is a U-Net on the whole picture made small.
The fine half looks at the pixels that the coarse one leaves in doubt, and nowhere else: a tenth of a picture.
It answers with alpha and with the figure's own colours, for in a line thinner than a pixel neither can be
told without the other. The last part weighs that against what the colours around then tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export.toon.matting_cells import (
    CELL,
    REACH,
    Cells,
    DoubtfulCells,
    Pixels,
    followed,
    mean_of,
    nearest,
    summed,
)
from faceavatar_export.toon.matting_coarse import SIGHT, CoarseNet
from faceavatar_export.toon.matting_view import SEEN, SURE, View

SIZE = 512
FINE = 96  # numbers in each of the fine half's layers
SAID = 7  # and says of each place
OWN = 11  # numbers of what a pixel itself is
AGAIN = 11  # numbers of what the colours around tell of a pixel anew
LAST = 48  # numbers in each of the last part's layers
# What it hears of them. With six numbers of colours it makes a multiple of four: ONNX Runtime blocks channels
# of no others, and laid the layers out anew before and behind this one.
HINT = 22
SHORT = 0.01  # squared length, in colours of -1..1, of a line between two that tells nothing
LEAST = 0.1  # alpha that a pixel's colour is divided by; of less of the figure it tells too little


class Known(NamedTuple):
    """What the fine half says of n places of a x b pixels. hidden (n, FINE, a, b): its last layer; pixel, the
    colours (n, 3, a, b) in -1..1; alpha (n, 1, a, b) and color (n, 3, a, b), both in 0..1."""

    hidden: Tensor
    pixel: Tensor
    alpha: Tensor
    color: Tensor


class Rows(NamedTuple):
    """What the fine half knows of single pixels. around (n, (2 REACH + 1)**2 SEEN): of each and those around
    it; near (n, 6 + SIGHT): the colours of both sides, and how the coarse half sees its place; own (n, OWN):
    its logit, its alpha as colours tell it, its colour, the figure's and the background's near it."""

    around: Tensor
    near: Tensor
    own: Tensor


class FineNet(nn.Module):
    """A small net for each pixel in doubt and what lies REACH around it; the same at every place, so that
    every pixel of every rim teaches it.

    What the colours around tell of alpha is solved before the net sees it; what the net says of a pixel is
    how much of that it takes, and what else alpha and colour are where it does not. The figure's own colour
    is what alpha leaves of the pixel once the background's part is gone, as far as the net trusts it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.PixelShuffle(CELL)
        self.hint = nn.Conv2d(SIGHT, HINT, 1)
        self.first = nn.Conv2d(SEEN, FINE, 2 * REACH + 1)
        self.further = nn.Conv2d(6 + HINT, FINE, 1, bias=False)
        self.aside = nn.Conv2d(8, FINE, 1, bias=False)  # what `beside` tells, and the line's three numbers
        self.second = nn.Conv2d(FINE, FINE, 1)
        self.third = nn.Conv2d(FINE, FINE, 1)
        # Beginning with what is solved, and with the picture's colours.
        self.head = _silent(nn.Conv2d(FINE, SAID, 1), (3.0, -1.0, -1.0))

    def forward(self, view: View, place: DoubtfulCells, around: Tensor, sight: Tensor) -> Known:
        """Of all cells in doubt: around (n, SEEN, CELL + 2 REACH, CELL + 2 REACH), what is seen there; sight
        (B, SIGHT, h / 4, w / 4) is the coarse half's."""
        sides = place.at_cells(torch.cat([view.near.figure, view.near.back], dim=1))
        near = torch.cat([sides, place.at_places(self.hint(sight))], dim=1)
        inner = around[:, :, REACH:-REACH, REACH:-REACH]
        figure, back = near[:, :3], near[:, 3:6]
        own = (inner[:, 4:] * SURE, inner[:, 3:4], inner[:, :3] + back, figure, back)
        return self.known(self.first(around) + self.further(near), own)

    def rows(self, view: View, sight: Tensor, where: Tensor) -> Rows:
        """What forward knows of each of the pixels `where` (B, 1, 4 h, 4 w) bool: for learning from any."""
        place, seen, image = Pixels(where), self.pixels(view.seen), self.pixels(view.cells)
        near = torch.cat([place.at(part) for part in (view.near.figure, view.near.back, sight)], dim=1)
        own = torch.cat([place.at(part) for part in (self.pixels(view.logits), seen[:, 3:4], image)], dim=1)
        return Rows(place.around(seen), near, torch.cat([own, near[:, :6]], dim=1))

    def told(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """As forward: alpha (n,) and colours (n, 3)."""
        window = self.first.weight.permute(0, 2, 3, 1).flatten(1)
        further = torch.cat([rows.near[:, :6], F.linear(rows.near[:, 6:], *_flat(self.hint))], dim=1)
        x = F.linear(rows.around, window, self.first.bias) + F.linear(further, *_flat(self.further))
        known = self.known(as_picture(x), as_picture(rows.own).split((1, 1, 3, 3, 3), dim=1))
        return as_rows(known.alpha)[:, 0], as_rows(known.color)

    def known(self, x: Tensor, own: Sequence[Tensor]) -> Known:
        """Of the first layer's (n, FINE, a, b), and of what pixels are, the parts of Rows.own; colours near
        them may be those of whole cells, (n, 3, 1, 1)."""
        logit, solved, pixel, figure, back = own
        across = figure - back
        along, off, length = beside(pixel - back, across)
        line = torch.cat([across.expand_as(off), along, off, length.expand_as(along)], dim=1)
        x = F.silu(x + self.aside(line))
        x = x + F.silu(self.second(x))
        x = x + F.silu(self.third(x))
        said = self.head(x).float()
        share, guess = torch.sigmoid(said[:, :3]), torch.sigmoid(logit + said[:, 3:4])
        alpha = guess + share[:, :1] * (solved.clamp(0, 1) - guess)
        color = _colored(pixel, figure, freed(pixel, back, alpha), share[:, 1:])
        return Known(x, pixel, alpha, (color + said[:, 4:]).clamp(0, 1))


class Again(NamedTuple):
    """What the colours around tell once the fine half has spoken. around (n, 2, CELL + 2 REACH, CELL + 2
    REACH): of the pixels of n places and those around them, the fine half's alpha and what is solved from
    it; own (n, AGAIN, CELL, CELL): the solution once more, the figure's and the background's colours near it,
    and what nearest (matting_cells.py) tells."""

    around: Tensor
    own: Tensor


class LastNet(nn.Module):
    """Looks at the fine half's answers once more, with those around them, and beside what the colours around
    tell of them: the edge is solved anew, from an alpha that is nearly right, once as widely as before and
    once from the nearest pixels, and the net says how much of either is better.

    Where there is noise, solutions have grains; where a line is as dark as the sky behind it, they have lost
    the line. Before anything smooth they are right, and of the nearest pixels at the ends of thin shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Conv2d(2, LAST, 2 * REACH + 1)
        self.first = nn.Conv2d(FINE, LAST, 1, bias=False)
        self.further = nn.Conv2d(20, LAST, 1, bias=False)
        self.second = nn.Conv2d(LAST, LAST, 1)
        self.head = _silent(nn.Conv2d(LAST, SAID + 1, 1), (-1.0, -3.0, -3.0, 0.0, 0.0, 0.0, 0.0, -3.0))

    def forward(self, known: Known, again: Again) -> tuple[Tensor, Tensor]:
        """Alpha (n, 1, CELL, CELL) and colours (n, 3, CELL, CELL) in 0..1."""
        return self.said(self.window(again.around), known, again.own)

    def told(self, windows: Tensor, known: Known, own: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, of n pixels as one picture: windows (n, 2 (2 REACH + 1)**2), known and own (1, C, n, 1)
        -> alpha (n,) and colours (n, 3)."""
        x = F.linear(windows, self.window.weight.flatten(1), self.window.bias)
        alpha, color = self.said(as_picture(x), known, own)
        return as_rows(alpha)[:, 0], as_rows(color)

    def said(self, x: Tensor, known: Known, own: Tensor) -> tuple[Tensor, Tensor]:
        """Of what is around as its own layer sees it, (n, LAST, a, b)."""
        solved, figure, back, tight, fit = own.split((1, 3, 3, 1, 3), dim=1)
        pixel, base = known.pixel, 2 * known.color - 1
        away, across = pixel - back, figure - back
        told = [known.alpha, solved, away, across, base - pixel, *beside(away, across), tight, fit]
        near = torch.cat(told, dim=1)  # a multiple of four, as HINT makes it
        x = F.silu(x + self.first(known.hidden) + self.further(near))
        x = x + F.silu(self.second(x))
        said = self.head(x).float()
        share, close = torch.sigmoid(said[:, :3]), torch.sigmoid(said[:, 7:])
        better = share[:, :1] * (solved - known.alpha) + close * (tight - known.alpha)
        alpha = (known.alpha + better + said[:, 3:4]).clamp(0, 1)
        color = _colored(base, figure, freed(pixel, back, alpha), share[:, 1:])
        return alpha, (color + said[:, 4:7]).clamp(0, 1)


def solved_again(view: View, place: DoubtfulCells, around: Tensor, known: Known) -> Again:
    """From the fine half's alpha; around is what that half has seen."""
    sure = torch.sigmoid(view.coarse)
    level = sure + place.spread(known.alpha.mean(dim=(2, 3), keepdim=True) - place.at_cells(sure))
    found = view.around.sides(level)
    near = place.at_cells(torch.cat([found.figure, found.back, found.functions], dim=1))
    solved = followed(known.pixel, near[:, 6:]).clamp(0, 1)
    whole = view.sure
    both = torch.cat([known.alpha, solved], dim=1) - place.inside(whole)
    levels = place.around(torch.cat([whole, whole], dim=1) + place.spread(both))
    told = torch.cat([near[:, :6].expand(-1, -1, CELL, CELL), *nearest(around[:, :3], levels[:, :1])], dim=1)
    return Again(levels, torch.cat([solved, told], dim=1))


def beside(away: Tensor, across: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a colour lies between the background's and the figure's, both (n, 3, a, b) and counted from the
    background's: how far along, (n, 1, a, b) in -1..2, how far beside the line between them, (n, 3, a, b),
    and its length squared. A third colour is in what lies beside it."""
    length = summed(across * across)
    along = (summed(away * across) / length.clamp_min(SHORT)).clamp(-1, 2)
    return along, away - along * across, length


def freed(pixel: Tensor, back: Tensor, alpha: Tensor) -> Tensor:
    """The colour that the figure has if the pixel's is the sum of both, -1..1."""
    return torch.as_tensor((back + (pixel - back) / alpha.clamp_min(LEAST)).clamp(-1, 1))


def _colored(own: Tensor, figure: Tensor, free: Tensor, share: Tensor) -> Tensor:
    """A mean of three colours (n, 3, a, b) in -1..1, by the shares (n, 2, a, b) of two, in 0..1."""
    return (own + share[:, :1] * (figure - own) + share[:, 1:] * (free - own) + 1) / 2


def as_picture(rows: Tensor) -> Tensor:
    """(n, C) as one picture of n places, (1, C, n, 1): torch is twice as fast with it as with n of one."""
    return rows.t()[None, :, :, None]


def as_rows(picture: Tensor) -> Tensor:
    """The inverse of as_picture."""
    return picture[0, :, :, 0].t()


def _silent(layer: nn.Conv2d, bias: tuple[float, ...]) -> nn.Conv2d:
    """Weights of 0 at first, and these first numbers of its bias."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.bias[: len(bias)] = torch.tensor(bias)
    return layer


def _flat(layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """A convolution of single pixels as a matrix, and its bias."""
    return layer.weight[:, :, 0, 0], layer.bias


class MattingNet(nn.Module):
    """image (B, 3, 512, 512) in -1..1 -> alpha (B, 1, 512, 512) and the figure's own colours where alpha is
    between 0 and 1 (B, 3, 512, 512), both in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine, self.last = CoarseNet(), FineNet(), LastNet()
        self.cells, self.pixels = Cells(), nn.PixelShuffle(CELL)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.edged(*self.viewed(image))

    def viewed(self, image: Tensor) -> tuple[View, Tensor]:
        """What is seen of whole pictures: the view of them, and how the coarse half sees each place, (B,
        SIGHT, h / 4, w / 4)."""
        cells = self.cells(image)
        coarse, sight = self.coarse.told(mean_of(cells))
        return View.of(cells, coarse), sight

    def edged(self, view: View, sight: Tensor) -> tuple[Tensor, Tensor]:
        """As forward, of what is seen."""
        place, known, again = self.known(view, sight)
        return self.whole(view, place, known.pixel, *self.last(known, again))

    def known(self, view: View, sight: Tensor) -> tuple[DoubtfulCells, Known, Again]:
        """The places in doubt, what the fine half says of them, and what the colours around tell then."""
        place = DoubtfulCells(view.doubt)
        around = place.around(view.seen)
        known = self.fine(view, place, around, sight)
        return place, known, solved_again(view, place, around, known)

    def whole(
        self, view: View, place: DoubtfulCells, own: Tensor, alpha: Tensor, color: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whole pictures: in doubtful cells, whose pixels' colours are own in -1..1, what is said of them,
        elsewhere the coarse half's alpha and the picture's own colours."""
        many, sure, pixel = CELL**2, view.sure, (view.cells + 1) / 2
        changed = place.spread(torch.cat([alpha - place.inside(sure), color - (own + 1) / 2], dim=1))
        return self.pixels(sure + changed[:, :many]), self.pixels(pixel + changed[:, many:])
