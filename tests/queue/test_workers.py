"""Workers that draw, die, are cancelled and told to stop: the caller gets the picture, and gets it once."""

from __future__ import annotations

import base64
import io
import os
import pickle
import signal
from pathlib import Path

from PIL import Image
from queue_rig import LONG, PHOTO, Queue, until

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import load_image


def test_a_task_is_drawn_and_its_photo_goes(queue: Queue) -> None:
    task = queue.submit(batch=2, seed=5, num_inference_steps=2)
    assert queue.record(task).position == 0
    photo = Path(queue.settings.outputs) / ".photos" / task
    assert photo.read_bytes() == PHOTO.read_bytes()
    queue.worker()
    record = queue.ended(task)
    assert (record.status, record.step, record.total, record.error) == ("completed", 2, 2, None)
    assert sorted(record.outputs) == queue.pictures()
    alone = AvatarEngine.load("toon", "cpu").generate(
        AvatarRequest(image=PHOTO.read_bytes(), batch=2, seed=5, num_inference_steps=2)
    )
    for name, image in zip(record.outputs, alone.images, strict=True):
        assert (load_image(queue.store.open(name) or b"") == image).all()
    until(lambda: not photo.exists(), "the photo is removed")
    assert str(PHOTO.read_bytes()[:8]) not in queue.said()


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


def test_a_running_task_is_cancelled_between_two_steps(queue: Queue) -> None:
    queue.worker()
    task = queue.submit(**LONG, batch=4)
    queue.drawing(task)
    queue.records.cancel(task)
    record = queue.ended(task)
    assert record.status == "cancelled"
    assert 0 < record.step < record.total == 50
    photo = Path(queue.settings.outputs) / ".photos" / task
    until(lambda: not photo.exists(), "the photo is removed")
    assert queue.pictures() == []


def test_what_is_urgent_is_drawn_first(queue: Queue) -> None:
    late, ordinary, urgent = (queue.submit(priority, num_inference_steps=1) for priority in (0, 4, 9))
    assert [queue.record(task).position for task in (urgent, ordinary, late)] == [0, 1, 2]
    queue.worker()
    begun = [queue.ended(task).started or 0 for task in (urgent, ordinary, late)]
    assert begun == sorted(begun)
    assert len(queue.pictures()) == 3


def test_a_photo_without_a_face_fails_with_its_code_and_the_worker_goes_on(redis_queue: Queue) -> None:
    empty = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(empty, "PNG")
    wall = "data:image/png;base64," + base64.b64encode(empty.getvalue()).decode()
    task, good = redis_queue.submit(image=wall), redis_queue.submit(num_inference_steps=1)
    redis_queue.worker()
    record = redis_queue.ended(task)
    assert (record.status, record.error) == ("failed", "no_face")
    assert "no face in the 64x64 picture" in (record.error_data or {})["message"]
    assert redis_queue.ended(good).status == "completed"


def test_a_photo_of_a_private_address_is_not_fetched_by_the_worker(redis_queue: Queue) -> None:
    task = redis_queue.submit(image="http://127.0.0.1:9/selfie.jpg")
    redis_queue.worker()
    record = redis_queue.ended(task)
    assert (record.status, record.error) == ("failed", "url_refused")


def test_a_pickled_message_is_refused_and_not_opened(redis_queue: Queue, tmp_path: Path) -> None:
    mark = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(mark),)

    with redis_queue.app.connection_for_write() as connection:
        connection.Producer(serializer=None).publish(
            pickle.dumps(Bomb()),
            routing_key="faceavatar.toon",
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"task": "faceavatar.draw", "id": "1", "lang": "py"},
            declare=[redis_queue.app.amqp.queues["faceavatar.toon"]],
        )
    good = redis_queue.submit(num_inference_steps=1)
    redis_queue.worker()
    assert redis_queue.ended(good).status == "completed"
    until(lambda: "Refusing to deserialize" in redis_queue.said(), "the refusal is logged", 10)
    assert not mark.exists()


def test_celery_itself_tells_how_a_task_ended(redis_queue: Queue) -> None:
    from celery.result import AsyncResult

    redis_queue.worker()
    task = redis_queue.submit(num_inference_steps=1)
    redis_queue.ended(task)
    assert AsyncResult(task, app=redis_queue.app).get(timeout=20) == {"status": "completed"}
    assert 0 < redis_queue.client.ttl(f"celery-task-meta-{task}") <= 24 * 3600


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
