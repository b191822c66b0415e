"""A queue of one's own for every test, on real servers: the embedded Valkey, and Debian's Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from queue_rig import Queue, answers, start_redis, until

from faceavatar_cli.queue.embedded import EmbeddedBroker
from faceavatar_cli.queue.settings import queue_settings


@contextmanager
def queue_at(url: str, folder: Path) -> Iterator[Queue]:
    """A queue whose workers are killed in the end."""
    made = Queue(queue_settings(url, str(folder / "outputs")), folder)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def running_embedded(folder: Path) -> Iterator[str]:
    """The embedded broker's URL."""
    broker = EmbeddedBroker(folder / "broker")
    try:
        broker.start()
        yield broker.url
    finally:
        broker.stop()


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """The URL of Debian's Redis."""
    process, url = start_redis(folder / "redis")
    try:
        until(lambda: answers(url), "redis-server answers")
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["embedded", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """A queue on each of the two servers."""
    server = running_embedded(tmp_path) if request.param == "embedded" else running_redis(tmp_path)
    with server as url, queue_at(url, tmp_path) as made:
        yield made


@pytest.fixture
def redis_queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue on Redis only, where the server makes no difference."""
    with running_redis(tmp_path) as url, queue_at(url, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=["embedded", "redis"])
def standing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    """A queue on each of the two servers with a worker that stands by, for all tests of a module."""
    folder = tmp_path_factory.mktemp("standing")
    server = running_embedded(folder) if request.param == "embedded" else running_redis(folder)
    with server as url, queue_at(url, folder) as made:
        made.worker()
        yield made
