"""What the card can do at most: half-precision matrix products, measured in the same run as everything
else."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import torch

from gpu.clock import seconds_of

SIZES, NARROW_SIZES = (4096, 8192, 16384), (128, 256)
_REPEATS = 10


def measure_peak(device: str, narrow: bool) -> dict[str, Any]:
    """FLOP/s of square float16 products by size; `peak` is the best of them."""
    rates = {}
    for size in NARROW_SIZES if narrow else SIZES:
        left, right = (torch.randn(size, size, device=device, dtype=torch.float16) for _ in range(2))
        torch.mm(left, right)
        took = [seconds_of(partial(torch.mm, left, right), device) for _ in range(_REPEATS)]
        rates[str(size)] = 2.0 * size**3 / statistics.median(took)
    return {"rates": rates, "peak": max(rates.values())}
