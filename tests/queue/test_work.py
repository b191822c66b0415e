"""A worker's hold on a task, seen from inside: while a pack is opened, when it is taken away, at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from queue_rig import Queue

from faceavatar import AvatarEngine
from faceavatar_cli.exits import CannotWrite
from faceavatar_cli.queue.records import Records
from faceavatar_cli.queue.stores import SharedFolder
from faceavatar_cli.queue.work import Engines, Photos, Worker
from faceavatar_cli.running import Running

LEASE = 1.0


class SlowEngines(Engines):
    """Opens a pack as slowly as a large one is; calls `meanwhile` when half of that is over."""

    seconds: float = 0.0
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def engine(self, name: str) -> AvatarEngine:
        time.sleep(self.seconds / 2)
        self.meanwhile()
        time.sleep(self.seconds / 2)
        return super().engine(name)


@pytest.fixture
def engines() -> SlowEngines:
    return SlowEngines({"toon": "toon"}, Running("cpu"))


@pytest.fixture
def worker(redis_queue: Queue, engines: SlowEngines) -> Worker:
    """With a short lease; it runs in this process."""
    records = Records(redis_queue.client, replace(redis_queue.settings, lease_seconds=LEASE))
    return Worker(records, redis_queue.store, engines, LEASE, 60, Photos(), stopping=lambda: False)


def test_the_lease_is_renewed_while_a_large_pack_is_opened(
    redis_queue: Queue, worker: Worker, engines: SlowEngines
) -> None:
    engines.engine("toon")  # the real opening is over: what is slow below sleeps
    task, engines.seconds = redis_queue.submit(num_inference_steps=1), 3 * LEASE
    stop, silent = threading.Event(), []

    def watch() -> None:
        while not stop.wait(0.05):
            silent.extend(running for running in redis_queue.records.running() if running.silent)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert worker.hear(task) == "completed"
    finally:
        stop.set()
        thread.join()
    assert silent == []


def test_a_task_that_was_taken_away_meanwhile_is_left_at_the_first_step(
    redis_queue: Queue, worker: Worker, engines: SlowEngines
) -> None:
    task = redis_queue.submit(num_inference_steps=1)

    def take_away() -> None:
        (running,) = redis_queue.records.running()
        redis_queue.records.reclaim(running)
        redis_queue.records.claim(task, "another")

    engines.meanwhile = take_away
    assert worker.hear(task) == "lost"
    assert redis_queue.record(task).status == "running"
    assert redis_queue.pictures() == []
    assert redis_queue.records.complete(task, "another", [])


def test_a_message_for_nothing_is_dropped(redis_queue: Queue, worker: Worker) -> None:
    assert worker.hear("never heard of") == "gone"
    task = redis_queue.submit(num_inference_steps=1)
    redis_queue.records.claim(task, "another")
    assert worker.hear(task) == "busy"
    redis_queue.records.complete(task, "another", [])
    assert worker.hear(task) == "ended"
    assert redis_queue.pictures() == []


def test_a_second_attempt_writes_the_same_picture_under_the_same_name(
    redis_queue: Queue, worker: Worker, engines: SlowEngines
) -> None:
    task = redis_queue.submit(num_inference_steps=2)
    (name,) = redis_queue.records.names(task)
    kept: list[bytes] = []

    class Watched(SharedFolder):
        def keep(self, name: str, png: bytes) -> None:
            super().keep(name, png)
            kept.append(png)
            if len(kept) == 1:  # it dies here: its picture is written, its record not ended
                (running,) = redis_queue.records.running()
                redis_queue.records.reclaim(running)

    store = Watched(Path(redis_queue.settings.outputs))
    twice = Worker(redis_queue.records, store, engines, 15, 60, Photos(), stopping=lambda: False)
    assert twice.hear(task) == "lost"
    assert twice.hear(task) == "completed"
    assert kept[0] == kept[1]
    assert redis_queue.pictures() == [name]


def test_an_output_store_that_cannot_be_written_fails_the_task(
    redis_queue: Queue, worker: Worker, engines: SlowEngines
) -> None:
    task = redis_queue.submit(num_inference_steps=1)

    class Full(SharedFolder):
        def keep(self, name: str, png: bytes) -> None:
            raise CannotWrite("the disk is full")

    store = Full(Path(redis_queue.settings.outputs))
    with pytest.raises(CannotWrite):
        Worker(redis_queue.records, store, engines, 15, 60, Photos(), lambda: False).hear(task)
    record = redis_queue.record(task)
    assert (record.status, record.error) == ("failed", "cannot_write")


def test_a_lost_photo_fails_the_task_and_says_where_to_look(redis_queue: Queue, worker: Worker) -> None:
    task = redis_queue.submit()
    redis_queue.store.drop_photo(task)
    with pytest.raises(Exception, match="check that server and workers"):
        worker.hear(task)
    record = redis_queue.record(task)
    assert (record.status, record.error) == ("failed", "unreadable_image")


def test_an_unforeseen_fault_fails_the_task_without_its_words(
    redis_queue: Queue, worker: Worker, engines: SlowEngines
) -> None:
    task = redis_queue.submit()

    def fault() -> None:
        raise KeyError("a secret")

    engines.meanwhile = fault
    with pytest.raises(KeyError):
        worker.hear(task)
    record = redis_queue.record(task)
    assert (record.status, record.error) == ("failed", "internal")
    assert "secret" not in str(record)
