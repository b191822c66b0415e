"""When a call is made again: where the server cannot have taken it, or where taking it twice does no harm."""

from __future__ import annotations

import random
from dataclasses import dataclass

from faceavatar.client.errors import RateLimited, ServiceError, Unavailable
from faceavatar.client.library import httpx2
from faceavatar.errors import InvalidRequest

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_FIRST_PAUSE = 0.25
# Words with which the server itself says that it did not take the request in. A proxy says no such word:
# behind its 502 or 504 the picture may be drawn already.
_REFUSED = frozenset({"rate_limited", "queue_full", "not_ready", "queue_unavailable"})


@dataclass(frozen=True)
class Patience:
    """tries: how often a call is made in all, 1 or more. longest: seconds of one pause; a server that asks
    for a longer one is not waited for, and the error is raised with its `retry_after`.
    """

    tries: int = 3
    longest: float = 10.0

    def __post_init__(self) -> None:
        if type(self.tries) is not int or self.tries < 1:
            raise InvalidRequest("tries", self.tries, "a whole number from 1")
        if not self.longest >= 0:
            raise InvalidRequest("longest", self.longest, "seconds from 0")

    def pause(self, error: Exception, tried: int, harmless: bool) -> float | None:
        """Seconds to wait before the call is made again; None where it must not be, or not any more.

        tried: how often it was made. harmless: making it twice does no harm, as for a question.
        """
        if tried >= self.tries:
            return None
        if isinstance(error, ServiceError):
            refused = error.code in _REFUSED
            if not (refused or (harmless and isinstance(error, RateLimited | Unavailable))):
                return None
            if error.retry_after is not None:
                return error.retry_after if error.retry_after <= self.longest else None
        elif not (isinstance(error, _UNSENT) or (harmless and isinstance(error, httpx2.TransportError))):
            return None
        return min(self.longest, _FIRST_PAUSE * 2.0 ** (tried - 1) * random.uniform(0.75, 1.25))


def unreachable(error: httpx2.TransportError, url: str) -> Unavailable:
    """What is told of a connection that failed."""
    if isinstance(error, httpx2.TimeoutException) and not isinstance(error, _UNSENT):
        what = "did not answer in time; give the client a longer timeout, or submit() and wait()"
    else:
        what = f"cannot be reached ({error}); is `faceavatar serve` running there?"
    return Unavailable(f"{url}: {what}")
