"""The sweeper finds what was left lying, without any worker that listens."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from queue_rig import PHOTO, Queue, environment

from faceavatar_cli.queue import records
from faceavatar_cli.queue.records import Records

NAME_OF_ANOTHER = (
    "import sys; from faceavatar_cli.queue.owner import new_owner; print(new_owner()); sys.stdout.flush();"
    "sys.stdin.read()"
)


def messages(queue: Queue) -> int:
    """How many lie in the broker."""
    return sum(queue.client.llen(key) for key in queue.client.keys("faceavatar.toon*"))


def lose_messages(queue: Queue) -> None:
    assert messages(queue) > 0
    queue.client.delete(*queue.client.keys("faceavatar.toon*"))


def test_a_submitted_task_has_one_message_that_holds_its_id_only(queue: Queue) -> None:
    task = queue.submit(prompt="a secret wish")
    (key,) = queue.client.keys("faceavatar.toon*")
    (message,) = queue.client.lrange(key, 0, -1)
    assert task.encode() in message
    assert b"secret" not in message
    assert len(message) < 1500
    photo = Path(queue.settings.outputs) / ".photos" / task
    assert photo.read_bytes() == PHOTO.read_bytes()
    assert photo.parent.stat().st_mode & 0o077 == 0
    assert queue.record(task).position == 0


def test_a_lost_message_is_sent_again_once_the_broker_is_empty(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.submit()
    lose_messages(queue)
    queue.sweeper().sweep()
    assert messages(queue) == 0  # it may have been taken out by a worker a moment ago
    monkeypatch.setattr(records, "LOST_SECONDS", 0.0)
    queue.sweeper().sweep()
    assert messages(queue) == 1


def test_messages_that_are_there_are_not_doubled(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LOST_SECONDS", 0.0)
    queue.submit()
    for _ in range(3):
        queue.sweeper().sweep()
    assert messages(queue) == 1


def test_the_task_of_a_process_that_is_gone_is_taken_from_it_at_once(redis_queue: Queue) -> None:
    task = redis_queue.submit()
    lose_messages(redis_queue)
    command = [sys.executable, "-c", NAME_OF_ANOTHER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as other:  # type: ignore[call-overload]
        owner = other.stdout.readline().strip()
        redis_queue.records.claim(task, owner)
        redis_queue.sweeper().sweep()
        assert redis_queue.record(task).status == "running"
        other.stdin.close()
        other.wait(30)
    redis_queue.sweeper().sweep()
    assert redis_queue.record(task).status == "queued"
    assert messages(redis_queue) == 1


def test_the_task_of_a_silent_worker_elsewhere_is_taken_after_its_lease(redis_queue: Queue) -> None:
    task = redis_queue.submit()
    hasty = Records(redis_queue.client, replace(redis_queue.settings, lease_seconds=0.3))
    hasty.claim(task, "elsewhere/1/1/ab")
    redis_queue.sweeper().sweep()
    assert redis_queue.record(task).status == "running"
    time.sleep(0.4)
    redis_queue.sweeper().sweep()
    assert redis_queue.record(task).status == "queued"


def test_pictures_photos_and_records_go_when_their_time_is_over(redis_queue: Queue) -> None:
    short = Records(redis_queue.client, replace(redis_queue.settings, keep_seconds=0.05))
    old, new = redis_queue.submit(batch=2), redis_queue.submit()
    for task, kept in ((old, short), (new, redis_queue.records)):
        kept.claim(task, "me")
        names = kept.names(task)
        for name in names:
            redis_queue.store.keep(name, b"picture")
        kept.complete(task, "me", names)
    assert len(redis_queue.pictures()) == 3
    time.sleep(0.1)
    redis_queue.sweeper().sweep()
    assert redis_queue.pictures() == list(redis_queue.record(new).outputs)
    assert redis_queue.records.record(old) is None
    assert list((Path(redis_queue.settings.outputs) / ".photos").iterdir()) == []


def test_the_photo_of_a_cancelled_task_goes(redis_queue: Queue) -> None:
    task = redis_queue.submit()
    photo = Path(redis_queue.settings.outputs) / ".photos" / task
    redis_queue.sweeper().sweep()
    assert photo.exists()
    redis_queue.records.cancel(task)
    redis_queue.sweeper().sweep()
    assert not photo.exists()
