"""Work that goes on for as long as the server does: a fault in it is logged, and it begins anew.

A loop that ended by a fault nobody foresaw (no memory, no thread to be had) would leave its callers waiting
for ever, in a server that still says it is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

PAUSE_SECONDS = 0.5  # a fault that comes again at once must not take the processor
_log = logging.getLogger(__name__)


async def steadily(name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run work, which is not expected to return, again and again until cancelled."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("a fault in %s; it goes on", name)
        await asyncio.sleep(PAUSE_SECONDS)
