"""What a worker that stands by does with what comes: draws it, tells of it, refuses it, leaves it."""

from __future__ import annotations

import base64
import io
import os
import pickle
from pathlib import Path

from PIL import Image
from queue_rig import LONG, PHOTO, Queue, until

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.image import load_image


def test_a_task_is_drawn_and_its_photo_goes(standing: Queue) -> None:
    task = standing.submit(batch=2, seed=5, num_inference_steps=2)
    photo = Path(standing.settings.outputs) / ".photos" / task
    record = standing.ended(task)
    assert (record.status, record.step, record.total, record.error) == ("completed", 2, 2, None)
    assert set(record.outputs) <= set(standing.pictures())
    alone = AvatarEngine.load("toon", "cpu").generate(
        AvatarRequest(image=PHOTO.read_bytes(), batch=2, seed=5, num_inference_steps=2)
    )
    for name, image in zip(record.outputs, alone.images, strict=True):
        assert (load_image(standing.store.open(name) or b"") == image).all()
    until(lambda: not photo.exists(), "the photo is removed")
    assert str(PHOTO.read_bytes()[:8]) not in standing.said()


def test_a_running_task_is_cancelled_between_two_steps(standing: Queue) -> None:
    task = standing.submit(**LONG, batch=4)
    standing.drawing(task)
    standing.records.cancel(task)
    record = standing.ended(task)
    assert record.status == "cancelled"
    assert 0 < record.step < record.total == 50
    photo = Path(standing.settings.outputs) / ".photos" / task
    until(lambda: not photo.exists(), "the photo is removed")
    assert not set(standing.records.names(task)) & set(standing.pictures())


def test_a_photo_without_a_face_fails_with_its_code_and_the_worker_goes_on(standing: Queue) -> None:
    empty = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(empty, "PNG")
    wall = "data:image/png;base64," + base64.b64encode(empty.getvalue()).decode()
    task, good = standing.submit(image=wall), standing.submit(num_inference_steps=1)
    record = standing.ended(task)
    assert (record.status, record.error) == ("failed", "no_face")
    assert "no face in the 64x64 picture" in (record.error_data or {})["message"]
    assert standing.ended(good).status == "completed"


def test_a_photo_of_a_private_address_is_not_fetched_by_the_worker(standing: Queue) -> None:
    task = standing.submit(image="http://127.0.0.1:9/selfie.jpg")
    record = standing.ended(task)
    assert (record.status, record.error) == ("failed", "url_refused")


def test_a_pickled_message_is_refused_and_not_opened(standing: Queue, tmp_path: Path) -> None:
    mark = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(mark),)

    with standing.app.connection_for_write() as connection:
        connection.Producer(serializer=None).publish(
            pickle.dumps(Bomb()),
            routing_key="faceavatar.toon",
            content_type="application/x-python-serialize",
            content_encoding="binary",
            headers={"task": "faceavatar.draw", "id": "1", "lang": "py"},
            declare=[standing.app.amqp.queues["faceavatar.toon"]],
        )
    good = standing.submit(num_inference_steps=1)
    assert standing.ended(good).status == "completed"
    until(lambda: "Refusing to deserialize" in standing.said(), "the refusal is logged", 10)
    assert not mark.exists()


def test_celery_itself_tells_how_a_task_ended(standing: Queue) -> None:
    from celery.result import AsyncResult

    task = standing.submit(num_inference_steps=1)
    standing.ended(task)
    assert AsyncResult(task, app=standing.app).get(timeout=20) == {"status": "completed"}
    failed, stopped = standing.submit(image="http://127.0.0.1:9/a.jpg"), standing.submit(**LONG, batch=4)
    standing.drawing(stopped)
    standing.records.cancel(stopped)
    states = {failed: "FAILURE", stopped: "REVOKED"}
    for name, state in states.items():
        until(lambda name=name, state=state: AsyncResult(name, app=standing.app).state == state, state, 20)
    assert 0 < standing.client.ttl(f"celery-task-meta-{task}") <= 24 * 3600
