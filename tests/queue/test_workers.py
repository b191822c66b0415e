"""Workers that draw, die, are cancelled and told to stop: the caller gets the picture, and gets it once."""

from __future__ import annotations

import os
import signal

import pytest
from queue_rig import LONG, Queue, until


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_is_followed_by_another_and_one_picture_comes(queue: Queue) -> None:
    first = queue.worker()
    task = queue.submit(**LONG)
    queue.drawing(task)
    queue.worker()
    os.kill(first.pid, signal.SIGKILL)
    record = queue.ended(task)
    assert record.status == "completed"
    assert list(record.outputs) == queue.pictures()
    assert len(record.outputs) == 1
    assert queue.client.hget(f"faceavatar:task:{task}", "attempts") == b"2"


@pytest.mark.slow
def test_a_crashed_child_of_prefork_is_replaced_and_the_task_goes_on(redis_queue: Queue) -> None:
    redis_queue.worker("--pool", "prefork")
    task = redis_queue.submit(**LONG)
    redis_queue.drawing(task)
    owner = redis_queue.client.hget(f"faceavatar:task:{task}", "owner")
    assert owner is not None
    os.kill(int(owner.split(b"/")[-3]), signal.SIGKILL)
    assert redis_queue.ended(task).status == "completed"
    assert len(redis_queue.pictures()) == 1


def test_a_worker_told_to_stop_puts_its_task_back_at_once(redis_queue: Queue) -> None:
    worker = redis_queue.worker()
    task = redis_queue.submit(**LONG, batch=4)
    redis_queue.drawing(task)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    record = redis_queue.record(task)
    assert (record.status, record.position) == ("queued", 0)
    assert redis_queue.client.hget(f"faceavatar:task:{task}", "attempts") == b"0"
    assert redis_queue.pictures() == []


def test_what_is_urgent_is_drawn_first(queue: Queue) -> None:
    late, ordinary, urgent = (queue.submit(priority, num_inference_steps=1) for priority in (0, 4, 9))
    assert [queue.record(task).position for task in (urgent, ordinary, late)] == [0, 1, 2]
    queue.worker()
    begun = [queue.ended(task).started or 0 for task in (urgent, ordinary, late)]
    assert begun == sorted(begun)
    assert len(queue.pictures()) == 3


def test_messages_that_come_several_times_make_one_picture(redis_queue: Queue) -> None:
    task = redis_queue.submit(**LONG)
    for _ in range(3):
        redis_queue.bell.ring(task, "toon", 4)
    redis_queue.worker(), redis_queue.worker()
    record = redis_queue.ended(task)
    until(lambda: not redis_queue.client.keys("faceavatar.toon*"), "all messages are heard")
    assert redis_queue.record(task) == record
    assert redis_queue.client.hget(f"faceavatar:task:{task}", "attempts") == b"1"
    assert len(redis_queue.pictures()) == 1


@pytest.mark.slow
def test_a_worker_that_was_stopped_for_long_finds_its_task_taken_and_leaves_it(redis_queue: Queue) -> None:
    stopped = redis_queue.worker("--lease", "2")
    task = redis_queue.submit(**LONG, batch=2)
    redis_queue.drawing(task)
    stopped.send_signal(signal.SIGSTOP)
    redis_queue.worker()
    record = redis_queue.ended(task)
    assert record.status == "completed"
    assert redis_queue.client.hget(f"faceavatar:task:{task}", "attempts") == b"2"
    before = {name: redis_queue.store.open(name) for name in redis_queue.pictures()}
    stopped.send_signal(signal.SIGCONT)
    until(lambda: "ignored" in redis_queue.said(0), "the stopped worker gives up")
    assert redis_queue.record(task) == record
    assert {name: redis_queue.store.open(name) for name in redis_queue.pictures()} == before
    assert len(before) == 2


def test_a_task_that_takes_too_long_is_ended(redis_queue: Queue) -> None:
    redis_queue.worker("--task-seconds", "0.2")
    task = redis_queue.submit(**LONG)
    record = redis_queue.ended(task)
    assert (record.status, record.error) == ("failed", "time_limit")
    assert "ask for fewer steps or pictures" in (record.error_data or {})["message"]
