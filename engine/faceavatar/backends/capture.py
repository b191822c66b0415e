"""Which recorded CUDA graph may replay which buffers.

A CUDA graph replays launches with the addresses and shapes it was recorded with, whatever is bound by then:
an id used for anything else is silently wrong. So an id belongs to one set of buffers for ever, and is
never given anew.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock

NOT_RECORDED = -1  # ONNX Runtime's word for a run that neither records nor replays
_MOST = 32  # recorded graphs hold memory on the device


class CaptureIds:
    """The ids of one session's recorded graphs; safe to use from several threads."""

    def __init__(self, most: int = _MOST) -> None:
        self._most, self._ids = most, dict[Hashable, int]()
        self._lock = Lock()

    def claim(self, buffers: Hashable) -> int:
        """The id of exactly these buffers: names, addresses, shapes and types of all inputs and outputs.

        NOT_RECORDED once as many graphs were recorded as are kept: such runs launch everything anew.
        """
        with self._lock:
            if buffers not in self._ids and len(self._ids) >= self._most:
                return NOT_RECORDED
            return self._ids.setdefault(buffers, len(self._ids))
