"""Examples that are kept and mixed: each batch is of the newest, and none is lost or torn."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from faceavatar_export.toon.shelf import mixed


def numbered(*counts: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (n, 2) of their number twice, and their number in another type; n by counts, then 1."""
    start = 0
    for count in (*counts, *[1] * 500):
        rows = torch.arange(start, start + count)
        start += count
        yield rows[:, None].expand(-1, 2).float(), rows


def test_batches_hold_whole_rows_of_the_newest_ones() -> None:
    seen = list(mixed(numbered(4, 3, 0, 5), 8, 6, torch.Generator().manual_seed(0)))
    assert all(len(rows) == len(numbers) == 6 for rows, numbers in seen)
    for newest, (rows, numbers) in enumerate(seen[3:], start=12):  # the fourth draws of the first 12
        assert torch.equal(rows, numbers[:, None].expand(-1, 2).float())
        assert int(numbers.max()) <= newest
        assert int(numbers.min()) > newest - 8 - 1
    assert len({int(n) for _, numbers in seen for n in numbers}) > 480  # of 512: nearly all are learnt from


def test_no_batch_comes_before_there_are_rows_enough_for_it() -> None:
    first = next(mixed(numbered(), 100, 30, torch.Generator().manual_seed(0)))
    assert int(first[1].max()) >= 20
    assert len(set(first[1].tolist())) > 10


def test_of_a_shelf_smaller_than_a_batch_rows_come_more_than_once() -> None:
    rows, _ = next(mixed(numbered(), 5, 64, torch.Generator().manual_seed(0)))
    assert len(rows) == 64
    assert set(rows[:, 0].tolist()) == {0, 1, 2, 3, 4}
