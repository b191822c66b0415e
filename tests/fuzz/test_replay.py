"""Every target on its seeds, on what fuzzing once found, and on the same few hundred mutations of them.

Some ten seconds, without a fuzzer; run.py searches for longer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz.seeds import seeds
from fuzz.targets import TARGETS, tried

MUTATIONS = {"picture": 1500, "body": 400}
FEW = 800


# Starlette leaves the file of an upload without its end to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_gives_what_it_should_or_a_typed_error(name: str, tmp_path: Path) -> None:
    starts = seeds(name, tmp_path)
    for data in starts:
        _held(name, data)
    random = np.random.default_rng(7)
    for _ in range(MUTATIONS.get(name, FEW)):
        _held(name, mutated(starts[random.integers(len(starts))], random))


def _held(name: str, data: bytes) -> None:
    try:
        tried(TARGETS[name], data)
    except Exception as error:
        pytest.fail(f"{name}: {type(error).__name__}: {error} for {data[:2000].hex()}")


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes turned, and a stretch left out, doubled or filled with one byte."""
    changed = bytearray(data)
    for _ in range(random.integers(0, 6)):
        if changed:
            value = (0, 1, 127, 128, 255, int(random.integers(256)))[random.integers(6)]
            changed[random.integers(len(changed))] = value
    start, length = random.integers(0, len(changed) + 1), int(2 ** random.uniform(0, 8))
    stretch = bytes(changed[start : start + length])
    ways = (stretch, b"", stretch * 2, bytes([random.integers(256)]) * len(stretch))
    return bytes(changed[:start]) + ways[random.integers(4)] + bytes(changed[start + length :])
