"""A queue of one's own for every test, on real servers: the embedded Valkey, and Debian's Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_rig import Queue, answers, start_redis, until

from faceavatar_cli.queue.embedded import EmbeddedBroker
from faceavatar_cli.queue.settings import queue_settings


@pytest.fixture
def embedded_url(tmp_path: Path) -> Iterator[str]:
    """The embedded broker, running."""
    broker = EmbeddedBroker(tmp_path / "broker")
    broker.start()
    yield broker.url
    broker.stop()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Debian's Redis, running."""
    process, url = start_redis(tmp_path / "redis")
    try:
        until(lambda: answers(url), "redis-server answers")
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["embedded", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """A queue on each of the two servers."""
    url = request.getfixturevalue(f"{request.param}_url")
    made = Queue(queue_settings(url, str(tmp_path / "outputs")), tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def redis_queue(redis_url: str, tmp_path: Path) -> Iterator[Queue]:
    """A queue on Redis only, where the server makes no difference."""
    made = Queue(queue_settings(redis_url, str(tmp_path / "outputs")), tmp_path)
    try:
        yield made
    finally:
        made.close()
