"""Training examples kept for a while and mixed, where making one costs more than learning from it.

A step takes in a few new ones, in place of the oldest, and learns from many, of any age. Knows no net.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def mixed(
    fresh: Iterator[tuple[Tensor, ...]], kept: int, count: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, ...]]:
    """Batches of `count` rows out of the `kept` newest ones of `fresh`, which is asked once a batch.

    fresh: tensors that have the same number of rows, which may differ from one time to the next; (n, ...)
    each, always of the same width, type and device. A row is seen count / n times on the average.
    """
    shelves: tuple[Tensor, ...] = ()
    next_row, filled = 0, 0
    for rows in fresh:
        if not shelves:
            shelves = tuple(part.new_empty((kept, *part.shape[1:])) for part in rows)
        at = (next_row + torch.arange(len(rows[0]), device=rows[0].device)) % kept
        for shelf, part in zip(shelves, rows, strict=True):
            shelf[at] = part
        next_row = (next_row + len(at)) % kept
        filled = min(kept, filled + len(at))
        if filled < min(count, kept):
            continue
        chosen = torch.randint(filled, (count,), generator=generator).to(at.device)
        yield tuple(shelf[chosen] for shelf in shelves)
