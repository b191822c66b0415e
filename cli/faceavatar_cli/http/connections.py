"""uvicorn's connections, with a clock on what uvicorn gives all the time there is: a request's head.

Its keep-alive timer runs only between an answer and the next byte. A caller that sends a head byte by byte,
or nothing at all, would hold a connection for ever, and some hundreds of them all that the process may open.
Bodies have their own clock (bodies.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0  # from the connection, or from a head's first byte, to its end


class TimedHeads(H11Protocol):
    """A protocol for uvicorn's `http` setting."""

    head_seconds = HEAD_SECONDS
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """The first head is awaited from now on."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """A head that has begun has to end."""
        super().data_received(data)
        if self._answering():
            self._stop_clock()
        elif self._clock is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_clock()
        super().connection_lost(exc)

    def _answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._clock = self.loop.call_later(self.head_seconds, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        if not self._answering() and not self.transport.is_closing():
            self.transport.close()
