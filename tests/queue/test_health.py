"""A container that runs a worker can tell whether it lives."""

from __future__ import annotations

import socket
import subprocess
import sys

from queue_rig import Queue, environment, until

from faceavatar_cli.queue.health import lives


def asked(queue: Queue, **changes: str) -> subprocess.CompletedProcess[str]:
    """The check as a container runs it."""
    told = {"FACEAVATAR_BROKER": queue.settings.broker, "FACEAVATAR_OUTPUTS": queue.settings.outputs}
    return subprocess.run(
        [sys.executable, "-m", "faceavatar_cli.queue.health"],
        env=environment() | told | changes,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_of_this_host_is_seen_once_it_works(redis_queue: Queue) -> None:
    assert asked(redis_queue).returncode == 1
    redis_queue.worker()
    host = socket.gethostname()
    until(lambda: lives(redis_queue.settings, host), "the worker says that it lives")
    assert asked(redis_queue).returncode == 0
    assert not lives(redis_queue.settings, "another host")


def test_a_worker_that_has_been_silent_for_long_does_not_count(redis_queue: Queue) -> None:
    workers = f"{redis_queue.settings.prefix}:workers"
    seconds, _ = redis_queue.client.time()
    redis_queue.client.zadd(workers, {"7@silent": seconds * 1000 - 1, "8@lively": seconds * 1000 + 60_000})
    assert not lives(redis_queue.settings, "silent")
    assert lives(redis_queue.settings, "lively")


def test_a_check_without_the_queues_address_says_what_it_needs(redis_queue: Queue) -> None:
    refused = asked(redis_queue, FACEAVATAR_BROKER="")
    assert refused.returncode == 1
    assert "FACEAVATAR_BROKER and FACEAVATAR_OUTPUTS are needed" in refused.stderr
