"""What the matting net computes of whole pictures before it looks at any pixel; knows no weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from faceavatar_export.toon.matting_cells import CELL, Sides, Surroundings, between, followed, in_doubt, seams

SEEN = 5  # numbers of each pixel
SURE = 6.0  # logits of the coarse half beyond this say no more than this


class View(NamedTuple):
    """Pictures of h x w cells. cells (B, RAW, h, w); around: their colours; coarse: logits (B, 1, h, w);
    near: both sides of the edge as the coarse half leaves it; seen (B, SEEN CELL**2, h, w): of each pixel,
    how far its colour is from the background's, alpha as colours tell it, the logits, SURE of them as 1."""

    cells: Tensor
    around: Surroundings
    coarse: Tensor
    near: Sides
    seen: Tensor

    @classmethod
    def of(cls, cells: Tensor, coarse: Tensor) -> View:
        """Of a picture's cells, colours in -1..1, and the coarse half's logits."""
        around = Surroundings(cells)
        near = around.sides(torch.sigmoid(coarse))
        pixels = cells.unflatten(1, (3, -1))
        away = (pixels - near.back[:, :, None]).flatten(1, 2)
        known = between(coarse.clamp(-SURE, SURE) / SURE)
        return cls(
            cells, around, coarse, near, torch.cat([away, followed(pixels, near.functions), known], dim=1)
        )

    @property
    def doubt(self) -> Tensor:
        """The cells that the fine half looks at, (B, 1, h, w)."""
        solved = self.seen[:, -2 * CELL**2 : -(CELL**2)]
        return in_doubt(self.coarse) | seams(self.coarse, solved)

    @property
    def logits(self) -> Tensor:
        """The coarse half's of each pixel, (B, CELL**2, h, w)."""
        return self.seen[:, -(CELL**2) :] * SURE

    @property
    def sure(self) -> Tensor:
        """Alpha of each pixel as the coarse half has it, (B, CELL**2, h, w)."""
        return torch.sigmoid(self.logits)
