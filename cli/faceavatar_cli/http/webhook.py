"""Telling a webhook that a task has ended: its answer, signed, under the same rules as pictures are fetched.

The signature is HMAC-SHA256 of `timestamp.body` under the server's secret, so that neither the answer nor its
time can be forged, and an old answer is known as one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from faceavatar.errors import ImageError
from faceavatar.fetch import post
from faceavatar.sources import Rules, shown
from faceavatar_cli.http.contract import Answer
from faceavatar_cli.http.threads import in_pool, standing_pool

SIGNATURE, TIMESTAMP = "X-Faceavatar-Signature", "X-Faceavatar-Timestamp"
PAUSES = (1.0, 5.0, 25.0)  # seconds before each further try
TELLERS = 4
_SECONDS = 10.0
_log = logging.getLogger(__name__)


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of the signature's header."""
    message = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def deliver(
    url: str,
    answer: Answer,
    secret: str,
    allowed_hosts: frozenset[str] = frozenset(),
    pauses: Sequence[float] = PAUSES,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Post an answer; True once it was taken (2xx). Blocks, raises nothing, logs what went wrong.

    Tries again after network errors and 5xx, not after a refusal (another status, a forbidden address).
    """
    body = answer.model_dump_json().encode()
    rules = Rules(allowed_hosts, seconds=_SECONDS)
    for pause in (*pauses, None):
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: sign(secret, now, body),
            TIMESTAMP: str(now),
        }
        try:
            status = post(url, body, headers, rules)
        except ImageError as error:
            _log.warning("webhook of task %s: %s", answer.task_id, error)
            if error.code == "url_refused":
                return False
        else:
            if 200 <= status < 300:
                return True
            _log.warning("webhook of task %s: %s answered %s", answer.task_id, shown(url), status)
            if status < 500:
                return False
        if pause is not None:
            sleep(pause)
    return False


@dataclass(frozen=True)
class Teller:
    """Delivers in threads of its own."""

    secret: str = field(repr=False)
    allowed_hosts: frozenset[str] = frozenset()
    threads: ThreadPoolExecutor = field(default_factory=lambda: standing_pool(TELLERS, "webhook"), repr=False)

    def tell(self, url: str, answer: Answer) -> None:
        """Begin a delivery."""
        self.threads.submit(deliver, url, answer, self.secret, self.allowed_hosts)

    async def delivered(self, url: str, answer: Answer) -> bool:
        """Deliver and wait for it; whether it was taken."""
        told: bool = await in_pool(self.threads, deliver, url, answer, self.secret, self.allowed_hosts)
        return told

    def close(self) -> None:
        """What has begun is finished, what waits is not begun."""
        self.threads.shutdown(wait=False, cancel_futures=True)
