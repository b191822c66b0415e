"""What the silicon can do: matrix products timed in the same run as the pack, by numpy and by the provider.

The graph is one MatMul, matmul.onnx beside this file; tests/cli/test_bench.py has its recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from faceavatar import FaceAvatarError
from faceavatar.backends import available_providers, open_session

MATMUL = Path(__file__).with_name("matmul.onnx")
SIDE, QUICK_SIDE = 4096, 1024
_TRIES = 3
_ON_PROCESSOR = ("cpu", "openvino")


def measure_peaks(provider: str, threads: int | None, side: int = SIDE) -> dict[str, float]:
    """FLOP/s of side x side matrix products, the best of a few; keys such as "fp32 numpy", "bf16 openvino".

    Every provider of the same device is asked, so that a pack is held to what the device can do and not to
    what its own provider makes of it. Precisions that are not there are left out.
    """
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((side, side), np.float32) for _ in range(2))
    work = 2.0 * side**3
    on_processor = provider in _ON_PROCESSOR
    names = [name for name in available_providers() if name in _ON_PROCESSOR] if on_processor else [provider]
    found = {"fp32 numpy": work / _best(lambda: a @ b)} if on_processor else {}
    for name in names:
        for precision in ("fp32", "bf16", "fp16"):
            try:
                session = open_session(MATMUL, name, threads, precision)
            except FaceAvatarError:  # no such precision on this device
                continue
            found[f"{precision} {name}"] = work / _best(partial(session.run, {"a": a, "b": b}))
    return found


def peak_of(peaks: Mapping[str, float], precision: str) -> float | None:
    """The best of one precision, FLOP/s; None where none was measured."""
    return max((value for name, value in peaks.items() if name.startswith(precision)), default=None)


def _best(run: Callable[[], object]) -> float:
    """The least seconds of a few calls after a first one: a peak is what is possible, not what is usual."""
    run()
    taken = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)
