"""How often a token may ask: a bucket for each, that fills by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from faceavatar_cli.http.problems import RateLimited
from faceavatar_cli.http.settings import Token

BURST_SECONDS = 10.0  # a token may send at once what it may send in this time, and 5 at least


@dataclass
class _Bucket:
    level: float
    at: float


class Rates:
    """A token bucket each: `per_minute` on the whole, a burst at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, token: Token) -> None:
        """Count a request. Raises RateLimited, with the seconds after which there is room again."""
        a_second = token.limits.per_minute / 60
        size = max(5.0, a_second * BURST_SECONDS)
        now = self._clock()
        bucket = self._buckets.setdefault(token.name, _Bucket(size, now))
        bucket.level = min(size, bucket.level + (now - bucket.at) * a_second)
        bucket.at = now
        if bucket.level < 1:
            raise RateLimited(
                f"more than {token.limits.per_minute:.0f} requests a minute; wait as Retry-After says",
                (1 - bucket.level) / a_second,
            )
        bucket.level -= 1
