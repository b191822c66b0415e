"""Whether a worker of this host lives, by the exit code: what a container asks, whose worker has no port.

    python -m faceavatar_cli.queue.health

A worker says every second that it lives; one that has not said so for ten seconds does not count.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import cast

from faceavatar_cli.queue.app import make_app, store_client
from faceavatar_cli.queue.settings import (
    BROKER_VARIABLE,
    OUTPUTS_VARIABLE,
    RESULTS_VARIABLE,
    QueueSettings,
    from_environment,
    queue_settings,
)


def lives(settings: QueueSettings, host: str) -> bool:
    """Whether the result store knows a living worker of that host. Raises redis' errors."""
    store = store_client(make_app(settings))
    seconds, microseconds = store.time()  # the store's own clock, by which workers are counted
    now = seconds * 1000 + microseconds // 1000
    names = cast("list[bytes]", store.zrangebyscore(f"{settings.prefix}:workers", now, "+inf"))
    return any(name.endswith(f"@{host}".encode()) for name in names)


def main(environment: Mapping[str, str] | None = None) -> int:
    """0 where a worker of this host lives, else 1."""
    broker = from_environment(BROKER_VARIABLE, environment)
    outputs = from_environment(OUTPUTS_VARIABLE, environment)
    if broker is None or outputs is None:
        print(f"{BROKER_VARIABLE} and {OUTPUTS_VARIABLE} are needed, as the worker has them", file=sys.stderr)
        return 1
    settings = queue_settings(broker, outputs, from_environment(RESULTS_VARIABLE, environment))
    return 0 if lives(settings, socket.gethostname()) else 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
