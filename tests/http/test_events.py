"""A task can be followed: its place in the queue, its steps, a preview, its end."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from service_client import EIGHT, Running

from faceavatar_cli.http import routes


def told(body: str) -> list[dict[str, Any]]:
    """The events in a body of text/event-stream."""
    events = []
    for block in body.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            assert lines[0] == "event: task"
            assert lines[1].startswith("data: ")
            events.append(json.loads(lines[1].removeprefix("data: ")))
    return events


@pytest.mark.anyio
async def test_steps_and_previews_come_until_the_pictures_do(running: Running, photo_uri: str) -> None:
    asked = {"image": photo_uri, "celery": True, "num_inference_steps": 6, "preview_every": 2, "batch": 2}
    async with running() as client:
        task_id = (await client.post("/getImageToImage", json=asked)).json()["task_id"]
        response = await client.get(f"/tasks/{task_id}/events")
        last = (await client.get(f"/tasks/{task_id}")).json()
    assert response.headers["content-type"].startswith("text/event-stream")
    events = told(response.text)
    assert all(set(event) > EIGHT for event in events)
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert {1, 2, 3, 4, 5, 6} <= set(steps)
    assert {event["total"] for event in events if event["step"]} == {6}
    previews = {event["step"]: event["preview"] for event in events if event["preview"]}
    assert list(previews) == [2, 4]
    for uri in previews[2]:
        head, _, data = uri.partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (512, 512)
    assert len(previews[2]) == 2
    assert [event["status"] for event in events].count("completed") == 1
    assert {**events[-1], "preview": None} == {**last, "preview": None}
    assert len(last["output"]) == 2


@pytest.mark.anyio
async def test_a_task_that_waits_hears_its_place(running: Running, photo_uri: str) -> None:
    async with running(together=1) as client:
        asked = {"image": photo_uri, "celery": True, "num_inference_steps": 50}
        tasks = [(await client.post("/getImageToImage", json=asked)).json()["task_id"] for _ in range(4)]
        events = told((await client.get(f"/tasks/{tasks[-1]}/events")).text)
    places = [event["queue_position"] for event in events if event["status"] == "queued"]
    assert places == sorted(places, reverse=True)
    assert places[-1] == 0
    assert max(places) >= 1
    assert events[-1]["status"] == "completed"
    assert events[-1]["queue_position"] is None


@pytest.mark.anyio
async def test_a_task_that_has_ended_is_told_once(running: Running, photo_uri: str) -> None:
    async with running() as client:
        task_id = (await client.post("/getImageToImage", json={"image": photo_uri})).json()["task_id"]
        events = told((await client.get(f"/tasks/{task_id}/events")).text)
    assert [event["status"] for event in events] == ["completed"]


@pytest.mark.anyio
async def test_several_may_listen_and_leave(running: Running, photo_uri: str) -> None:
    asked = {"image": photo_uri, "celery": True, "num_inference_steps": 30}
    async with running() as client:
        task_id = (await client.post("/getImageToImage", json=asked)).json()["task_id"]
        leaves = asyncio.create_task(client.get(f"/tasks/{task_id}/events"))
        await asyncio.sleep(0.05)
        leaves.cancel()
        both = await asyncio.gather(*[client.get(f"/tasks/{task_id}/events") for _ in range(2)])
    assert [told(one.text)[-1]["status"] for one in both] == ["completed"] * 2


@pytest.mark.anyio
async def test_a_quiet_line_is_kept_open(
    running: Running, photo_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "PING_SECONDS", 0.001)
    asked = {"image": photo_uri, "celery": True}
    async with running() as client:
        task_id = (await client.post("/getImageToImage", json=asked)).json()["task_id"]
        body = (await client.get(f"/tasks/{task_id}/events")).text
    assert ": still here\n\n" in body
    assert told(body)[-1]["status"] == "completed"


@pytest.mark.anyio
async def test_what_the_engine_did_otherwise_is_told(running: Running, photo: bytes) -> None:
    picture = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))
    twice = io.BytesIO()
    Image.fromarray(np.concatenate([picture, picture], axis=1)).save(twice, "PNG")
    async with running() as client:
        response = await client.post("/getImageToImage", files={"image": twice.getvalue()})
        task = (await client.get(f"/tasks/{response.json()['task_id']}")).json()
    assert any("2 faces were found" in warning for warning in task["warnings"])
