"""Seconds per stage, counted only while the engine itself is at work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
STAGES = ("load_image", "detect", "embed", "text", "encode", "denoise", "decode", "matting")


class Stopwatch:
    """Adds up the time of each stage; one is made for each run."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the time inside the with block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on, counting the time they take to come, not what is done with them."""
        iterator = iter(items)
        while True:
            with self.measure(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def timings(self) -> dict[str, float]:
        """Seconds per stage, and in total since the start."""
        return {**self.seconds, "total": time.perf_counter() - self._start}
