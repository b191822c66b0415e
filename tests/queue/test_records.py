"""A task's record changes in single steps: claimed once, ended once, given back, taken from the dead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from queue_rig import Queue

from faceavatar_cli.http.tasks import TaskRecord
from faceavatar_cli.queue import records
from faceavatar_cli.queue.owner import new_owner
from faceavatar_cli.queue.records import Error, NewTask, Records

Add = Callable[..., str]


@pytest.fixture
def add(queue: Queue) -> Add:
    """Takes a task in, without photo and message; gives its id."""

    def take(name: str, priority: int = 4, **more: object) -> str:
        first = TaskRecord(name, "toon", "mine", "local", "queued", {"batch": 1}, created=0.0)
        task = NewTask(first, (f"{name}.png",), {"do": name}, None, priority, photo=False)
        assert queue.records.submit(replace(task, **more)) == "taken"  # type: ignore[arg-type]
        return name

    return take


def with_settings(queue: Queue, **changes: float) -> Records:
    return Records(queue.client, replace(queue.settings, **changes))  # type: ignore[arg-type]


def test_a_task_taken_in_waits_and_tells_all_that_is_known(queue: Queue, add: Add) -> None:
    before = time.time()
    record = queue.record(add("a"))
    assert (record.id, record.app_id, record.ref_id, record.token) == ("a", "toon", "mine", "local")
    assert (record.status, record.position, record.input, record.outputs) == ("queued", 0, {"batch": 1}, ())
    assert before - 1 < record.created < time.time() + 1
    assert (record.started, record.finished, record.error, record.error_data) == (None, None, None, None)
    assert TaskRecord.from_json(record.to_json()) == record


def test_an_unknown_task_has_no_record_and_cannot_be_claimed_or_cancelled(queue: Queue) -> None:
    assert queue.records.record("no") is None
    assert queue.records.claim("no", "me") == ("gone", {})
    assert queue.records.cancel("no") is None


def test_no_more_wait_than_may(queue: Queue, add: Add) -> None:
    add("a")
    few = with_settings(queue, limit=1)
    first = TaskRecord("b", "toon", None, "local", "queued", {}, created=0.0)
    assert few.submit(NewTask(first, (), {}, None, 4, photo=False)) == "full"
    assert few.record("b") is None
    assert few.waiting() == 1


def test_no_more_of_a_token_wait_or_run_than_may_and_room_comes_when_one_ends(queue: Queue, add: Add) -> None:
    def third(most: int, token: str = "local") -> str:
        first = TaskRecord(f"c{most}", "toon", None, token, "queued", {}, created=0.0)
        return queue.records.submit(NewTask(first, (), {}, None, 4, photo=False, most=most))

    add("a"), add("b")
    queue.records.claim("a", "me")
    assert third(2) == "enough"
    assert third(3, "another") == "taken"
    queue.records.complete("a", "me", [])
    assert third(2) == "taken"
    for name in ("b", "c2", "c3"):
        queue.records.cancel(name)
        queue.records.cancel(name)
    queue.records.forget("a")
    assert queue.client.hgetall("faceavatar:held") == {}


def test_a_task_that_is_taken_in_again_since_the_answer_was_lost_counts_once(queue: Queue, add: Add) -> None:
    add("a"), add("a")
    assert queue.client.hget("faceavatar:held", "local") == b"1"
    assert queue.records.waiting() == 1
    queue.records.forget("a")
    assert queue.client.hgetall("faceavatar:held") == {}


def test_places_follow_priority_and_then_arrival(queue: Queue, add: Add) -> None:
    for name, priority in (("a", 4), ("b", 0), ("c", 9), ("d", 4)):
        add(name, priority)
    assert [queue.record(name).position for name in "cadb"] == [0, 1, 2, 3]
    queue.records.claim("a", "me")
    assert [queue.record(name).position for name in "cadb"] == [0, None, 1, 2]


def test_one_claim_of_many_gets_the_task(queue: Queue, add: Add) -> None:
    add("a")
    assert queue.records.claim("a", "me") == ("claimed", {"do": "a"})
    assert queue.records.claim("a", "you") == ("busy", {})
    assert queue.records.claim("a", "me") == ("claimed", {"do": "a"})  # the first answer was lost on its way
    assert queue.record("a").status == "running"
    assert queue.records.complete("a", "me", ["a.png"], ["small face"])
    assert queue.records.claim("a", "you") == ("ended", {})
    record = queue.record("a")
    assert (record.status, record.outputs, record.warnings) == ("completed", ("a.png",), ("small face",))
    assert record.finished is not None


def test_only_its_holder_ends_a_task_and_only_once(queue: Queue, add: Add) -> None:
    add("a")
    error = Error("no_face", {"message": "none"})
    assert not queue.records.complete("a", "me", ["a.png"])
    queue.records.claim("a", "me")
    assert not queue.records.fail("a", "you", error)
    assert queue.records.fail("a", "me", error)
    assert not queue.records.complete("a", "me", ["a.png"])
    record = queue.record("a")
    assert (record.status, record.error, record.error_data) == ("failed", "no_face", {"message": "none"})


def test_what_the_worker_needed_is_not_kept_after_the_end(queue: Queue, add: Add) -> None:
    add("a")
    queue.records.claim("a", "me")
    queue.records.complete("a", "me", [])
    assert not queue.client.hexists("faceavatar:task:a", "work")


def test_steps_and_previews_are_told_and_the_newest_previews_kept(queue: Queue, add: Add) -> None:
    add("a")
    queue.records.claim("a", "me")
    assert queue.records.step("a", "me", 1, 4) == "on"
    assert queue.records.seen("a") == (0, ())
    queue.records.step("a", "me", 2, 4, [b"old", b"old too"])
    queue.records.step("a", "me", 3, 4, [b"new"])
    assert queue.records.seen("a") == (2, (b"new",))
    record = queue.record("a")
    assert (record.step, record.total) == (3, 4)
    assert queue.records.step("a", "you", 4, 4) == "lost"
    assert queue.record("a").step == 3


def test_a_waiting_task_is_cancelled_at_once_and_a_running_one_told_to_stop(queue: Queue, add: Add) -> None:
    add("a"), add("b")
    cancelled = queue.records.cancel("a")
    assert cancelled is not None
    assert cancelled.status == "cancelled"
    assert queue.records.claim("a", "me") == ("ended", {})
    queue.records.claim("b", "me")
    assert queue.records.beat("b", "me") == "on"
    running = queue.records.cancel("b")
    assert running is not None
    assert running.status == "running"
    assert queue.records.beat("b", "me") == "cancel"
    assert queue.records.cancelled("b", "me")
    assert queue.record("b").status == "cancelled"


def test_an_ended_task_stays_as_it_is_when_it_is_cancelled(queue: Queue, add: Add) -> None:
    add("a")
    queue.records.claim("a", "me")
    queue.records.complete("a", "me", ["a.png"])
    before = queue.record("a")
    assert queue.records.cancel("a") == before


def test_a_task_given_back_takes_its_old_place_and_loses_no_attempt(queue: Queue, add: Add) -> None:
    add("a"), add("b")
    queue.records.claim("a", "me")
    assert not queue.records.release("a", "you")
    assert queue.records.release("a", "me")
    assert queue.record("a").position == 0
    assert queue.client.hget("faceavatar:task:a", "attempts") == b"0"
    assert queue.records.due_bells() == ["a"]
    assert queue.records.due_bells() == []  # whoever was told first sends the message


def test_a_worker_that_falls_silent_loses_its_task_and_cannot_end_it(queue: Queue, add: Add) -> None:
    add("a")
    hasty = with_settings(queue, lease_seconds=0.05)
    hasty.claim("a", "me")
    time.sleep(0.1)
    (running,) = queue.records.running()
    assert (running.id, running.owner, running.silent) == ("a", "me", True)
    assert queue.records.reclaim(running) == "queued"
    assert hasty.step("a", "me", 1, 4) == "lost"
    assert not hasty.complete("a", "me", ["a.png"])
    assert queue.records.claim("a", "you")[0] == "claimed"
    assert queue.records.reclaim(running) == "moved on"


def test_a_silent_worker_whose_task_nobody_took_may_still_end_it(queue: Queue, add: Add) -> None:
    add("a")
    hasty = with_settings(queue, lease_seconds=0.05)
    hasty.claim("a", "me")
    time.sleep(0.1)
    assert hasty.complete("a", "me", ["a.png"])
    assert queue.records.running() == []


def test_a_beating_worker_is_not_silent(queue: Queue, add: Add) -> None:
    add("a")
    hasty = with_settings(queue, lease_seconds=1.0)
    hasty.claim("a", "me")
    for _ in range(5):
        time.sleep(0.3)
        assert hasty.beat("a", "me") == "on"
    assert not queue.records.running()[0].silent


def test_a_task_that_kills_its_workers_is_given_up(queue: Queue, add: Add) -> None:
    add("a")
    for outcome in ("queued", "queued", "failed"):
        queue.records.claim("a", new_owner())
        (running,) = queue.records.running()
        assert queue.records.reclaim(running) == outcome
    record = queue.record("a")
    assert (record.status, record.error) == ("failed", "worker_lost")
    assert (record.error_data or {})["message"] == "3 workers died while they drew it; it is not tried again"


def test_an_ended_task_is_forgotten_after_its_time_and_not_before(queue: Queue, add: Add) -> None:
    add("a"), add("b")
    short = with_settings(queue, keep_seconds=0.05)
    for name, kept in (("a", short), ("b", queue.records)):
        queue.records.claim(name, "me")
        kept.complete(name, "me", [f"{name}.png"])
    time.sleep(0.1)
    assert queue.records.forgettable() == ["a"]
    assert queue.records.names("a") == ("a.png",)
    queue.records.forget("a")
    assert queue.records.record("a") is None
    assert queue.records.forgettable() == []


def test_photos_of_ended_and_unknown_tasks_are_to_be_removed(queue: Queue, add: Add) -> None:
    for name in "abc":
        add(name, photo=True)
    queue.records.claim("b", "me")
    assert queue.records.photos() == []
    queue.records.complete("b", "me", [])
    queue.records.forget("c")
    assert sorted(queue.records.photos()) == ["b", "c"]
    queue.records.photo_gone("b")
    assert queue.records.photos() == ["c"]


def test_a_message_that_nobody_sent_is_due_later_and_one_that_was_sent_much_later(
    queue: Queue, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("a")
    assert queue.records.due_bells() == []
    monkeypatch.setattr(records, "SENDING_SECONDS", 0.01)
    add("b")
    time.sleep(0.05)
    assert queue.records.due_bells() == ["b"]
    queue.records.rung("b")
    assert queue.records.due_bells() == []
    assert queue.records.due_bells(broker_is_empty=True) == []
    monkeypatch.setattr(records, "LOST_SECONDS", 0.0)
    assert queue.records.due_bells(broker_is_empty=True) == ["b"]  # a's photo may still be on its way


def test_workers_count_as_long_as_they_are_heard_of(queue: Queue) -> None:
    assert queue.records.alive("", 0) == 0
    assert queue.records.alive("one", 30) == 1
    assert queue.records.alive("two", 0.05) == 2
    time.sleep(0.1)
    assert queue.records.alive("", 0) == 1


def test_a_webhook_is_told_of_the_end_once(queue: Queue, add: Add) -> None:
    add("a", webhook={"url": "https://example.org/told", "base_url": "https://example.com"})
    add("b")
    assert queue.records.due_webhooks(60) == []
    for name in "ab":
        queue.records.claim(name, "me")
        queue.records.complete(name, "me", [])
    ((record, webhook),) = queue.records.due_webhooks(60)
    assert (record.id, webhook["url"]) == ("a", "https://example.org/told")
    assert queue.records.due_webhooks(60) == []
    queue.records.told("a")
    assert queue.client.zcard("faceavatar:webhooks") == 0
