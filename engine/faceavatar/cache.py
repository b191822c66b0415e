"""A small memory of the values used last, safe to share between threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from faceavatar.watch import Rerun, current, with_reruns

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Keeps the `size` values used last, each with what had to be computed again when it was made."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, tuple[Value, tuple[Rerun, ...]]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made on first use. Two threads may both make one; the same is kept for both."""
        kept = self._find(key)
        if kept is None:
            kept = self._keep(key, with_reruns(make))
        value, reruns = kept
        for rerun in reruns:
            current().note(rerun)
        return value

    def _find(self, key: Hashable) -> tuple[Value, tuple[Rerun, ...]] | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def _keep(self, key: Hashable, made: tuple[Value, tuple[Rerun, ...]]) -> tuple[Value, tuple[Rerun, ...]]:
        with self._lock:
            kept = self._values.setdefault(key, made)
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return kept
