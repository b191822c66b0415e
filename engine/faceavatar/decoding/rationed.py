"""A file object that counts, and quiet while Pillow reads.

Pillow's parsers loop in Python over chunks, segments and runs, as many as a file has: 64 MB of empty PNG
chunks are a minute. All of those loops read from the file object, so it is the one place to end them.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from faceavatar.errors import ImageError

MOST_READS = 300_000  # half a second of Pillow's loops; a 60 MB PNG of 8 kB chunks takes 32,000

_lock = threading.Lock()
_readers = 0


class Rationed(io.BytesIO):
    """BytesIO whose reads are counted. Raises ImageError at the 300,001st, or where more is read than four
    times the file and a megabyte: a table that leads to the same bytes again and again.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = name
        self._reads = MOST_READS
        self._bytes = 4 * len(data) + 2**20

    def read(self, size: int | None = -1, /) -> bytes:
        """As BytesIO's, counted."""
        found = super().read(size)
        self._reads -= 1
        self._bytes -= len(found)
        if self._reads < 0 or self._bytes < 0:
            raise ImageError(
                f"{self._name}: made of more than {MOST_READS:,} pieces, or of overlapping ones; save it anew"
            )
        return found


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of Pillow's about damaged metadata: what can be read is read, what cannot is refused.

    warnings.catch_warnings would not do: two threads in it may leave each other's filters behind. So there is
    one filter, and the last out takes it down.
    """
    global _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            logging.getLogger("PIL").addHandler(_SILENT)
        # Put up anew by each: it goes to the front and never stands there twice.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        ours = warnings.filters[0]
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                logging.getLogger("PIL").removeHandler(_SILENT)
                with suppress(ValueError):  # somebody's catch_warnings took it down
                    warnings.filters.remove(ours)  # type: ignore[attr-defined]  # typed as a Sequence, is a list


_SILENT = logging.NullHandler()  # without any handler Python prints errors that Pillow logs
