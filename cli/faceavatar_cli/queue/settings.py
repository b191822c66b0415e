"""Where the queue lives and what its limits are: one frozen value, made from flags and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from faceavatar.errors import InvalidRequest

BROKER_VARIABLE = "FACEAVATAR_BROKER"
RESULTS_VARIABLE = "FACEAVATAR_RESULTS"
OUTPUTS_VARIABLE = "FACEAVATAR_OUTPUTS"
STATE_VARIABLE = "FACEAVATAR_STATE"

# The transports that were run against real brokers. kombu knows more; those without acknowledgement would
# work too, since a record outlives its message, but nobody has tried them.
BROKERS = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp")
# Claims, leases and cancel flags must change in one step, which Celery's other result stores do not offer.
RESULTS = ("redis", "rediss", "redis+socket", "sentinel")
_OTHER_NAMES = {"valkey": "redis", "valkeys": "rediss", "unix": "redis+socket"}


@dataclass(frozen=True)
class QueueSettings:
    """All that a server and its workers must agree on, and the limits.

    broker, results: URLs; they may hold passwords, so they are never shown whole. outputs: a folder or an
    fsspec URL that server and workers reach. keep_seconds: how long ended tasks and their pictures are kept.
    limit: tasks that may wait. attempts: how often a task is begun before it is given up. lease_seconds: a
    worker that has not been heard of for so long is dead. task_seconds: what one task may take.
    prefix: begins all keys in the result store.
    """

    broker: str = field(repr=False)
    results: str = field(repr=False)
    outputs: str
    keep_seconds: float = 24 * 3600
    limit: int = 256
    attempts: int = 3
    lease_seconds: float = 15
    task_seconds: float = 3600
    prefix: str = "faceavatar"

    @property
    def speaks_redis(self) -> bool:
        """Whether the broker is a Redis or Valkey server, where Celery's priorities run backwards."""
        return _scheme(self.broker) in RESULTS

    def told(self) -> str:
        """What it connects to, without passwords."""
        return f"broker {shown_url(self.broker)}, results {shown_url(self.results)}, outputs {self.outputs}"


def queue_settings(broker: str, outputs: str, results: str | None = None, **limits: float) -> QueueSettings:
    """Settings whose URLs were looked at; results is the broker where None.

    limits: the other fields of QueueSettings. Raises InvalidRequest (broker, results).
    """
    broker = _checked("broker", broker, BROKERS)
    if results is None and _scheme(broker) not in RESULTS:
        raise InvalidRequest(
            "results", None, f"a Redis or Valkey URL, since {shown_url(broker)} keeps messages only"
        )
    checked = broker if results is None else _checked("results", results, RESULTS)
    for name, value in limits.items():
        if not value > 0:
            raise InvalidRequest(name, value, "more than 0")
    # Which of the limits are whole numbers, the class itself knows.
    return QueueSettings(broker, checked, outputs, **limits)  # type: ignore[arg-type]


def from_environment(variable: str, environment: Mapping[str, str] | None = None) -> str | None:
    """A variable's value, or None where it is unset or empty."""
    return (os.environ if environment is None else environment).get(variable) or None


def shown_url(url: str) -> str:
    """A URL as it may be told: without user, password and query."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return f"{url.partition(':')[0]}://..."
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _checked(name: str, url: str, allowed: tuple[str, ...]) -> str:
    """The URL with a scheme that Celery knows."""
    scheme, colon, rest = url.partition("://")
    scheme = _OTHER_NAMES.get(scheme.lower(), scheme.lower())
    if not colon or not rest or scheme not in allowed:
        names = ", ".join(f"{known}://" for known in (*allowed, *_OTHER_NAMES))
        raise InvalidRequest(name, shown_url(url) if colon else "no URL", f"a URL of these: {names}")
    return f"{scheme}://{rest}"


def _scheme(url: str) -> str:
    return url.partition("://")[0]
