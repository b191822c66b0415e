"""A queue in which callers take turns, however many each has in it."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """One line for each caller; callers are served in turn."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Item]] = {}  # the order of the keys is the order of turns

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Item]:
        """All, one line after the other."""
        for line in self._lines.values():
            yield from line

    def put(self, caller: str, item: Item, order: Callable[[Item], float] = lambda item: 0.0) -> None:
        """Into the caller's line, behind all whose order is not greater."""
        insort(self._lines.setdefault(caller, deque()), item, key=order)

    def take(self, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """The first that fits in the line of whoever is next; that was their turn then."""
        for caller, line in self._lines.items():
            found = next((item for item in line if fits(item)), None)
            if found is not None:
                self._remove(caller, found)
                if line:
                    self._lines[caller] = self._lines.pop(caller)
                return found
        return None

    def remove(self, caller: str, item: Item) -> bool:
        """Take one out wherever it stands; False where it does not stand there."""
        if item not in self._lines.get(caller, ()):
            return False
        self._remove(caller, item)
        return True

    def position(self, caller: str, item: Item) -> int | None:
        """How many are served before it, if nobody else comes; None where it does not wait."""
        line = self._lines.get(caller)
        if line is None or item not in line:
            return None
        place, before = line.index(item), 0
        mine = False
        for other, others in self._lines.items():
            mine = mine or other == caller
            if other != caller:
                before += min(len(others), place + (not mine))
        return place + before

    def _remove(self, caller: str, item: Item) -> None:
        line = self._lines[caller]
        line.remove(item)
        if not line:
            del self._lines[caller]
