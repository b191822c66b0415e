"""Threads that stand from the start, and a wait for their work that cannot be forgotten.

Where memory runs out, CPython's Thread.start waits for ever for a thread that died before it began, and a
future whose last callback found no memory never wakes the one who awaits it. A server that starves for a
moment would stand still for good.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LOOK_SECONDS = 2.0


def standing_pool(count: int, name: str) -> ThreadPoolExecutor:
    """A pool that starts no thread later: all of them begin now."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    begun = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(begun.wait)
    begun.wait()
    return pool


async def in_pool(pool: ThreadPoolExecutor, work: Callable[..., Any], *arguments: Any) -> Any:
    """What work gives or raises, done in a thread of the pool; looks now and then whether it is done."""
    doing = pool.submit(work, *arguments)
    waking = asyncio.wrap_future(doing)
    try:
        while not waking.done():
            await asyncio.wait({waking}, timeout=LOOK_SECONDS)
            if doing.done() and not waking.done():
                await asyncio.sleep(LOOK_SECONDS)  # it may be on its way
                break
        return waking.result() if waking.done() else doing.result()
    finally:
        waking.cancel()
