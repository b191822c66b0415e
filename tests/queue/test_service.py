"""The whole service as its callers meet it: queued over HTTP, killed in the middle, asked again."""

from __future__ import annotations

import base64
import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import serving
from PIL import Image
from queue_rig import DATA_URI, LONG, SECONDS, Queue, alive, until
from served import Server, children

from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.settings import Settings
from faceavatar_cli.http.webhook import SIGNATURE, TIMESTAMP, sign
from faceavatar_cli.queue.runner import CeleryRunner

SECRET = "s" * 20
NOBODY = "redis://:secret@127.0.0.1:9/0"


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, which are killed in the end."""
    started: list[Server] = []

    def begin(*flags: str) -> Server:
        started.append(Server(tmp_path / f"server-{len(started)}.log", *flags))
        return started[-1]

    yield begin
    for server in started:
        server.kill()


@pytest.mark.slow
def test_a_server_without_set_up_is_killed_and_nothing_that_was_queued_is_lost(
    start: Start, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    first = start("--state", str(state))
    done = first.queue(num_inference_steps=1, batch=2)
    pictures = first.completed(done)
    assert len(pictures) == 2
    begun, waiting = first.queue(**LONG, batch=2), first.queue(num_inference_steps=1, seed=7)
    first.drawing(begun)
    below = children(first.process.pid)
    assert len(below) == 2
    first.kill()
    until(lambda: not any(alive(pid) for pid in below), "broker and worker end with the server", 20)
    assert len(list((state / "outputs").glob("*.png"))) == 2

    second = start("--state", str(state))
    assert [httpx.get(url).content for url in second.ask(done)["output"]] == pictures
    assert (len(second.completed(begun)), len(second.completed(waiting))) == (2, 1)
    assert len(list((state / "outputs").glob("*.png"))) == 5
    assert list((state / "outputs" / ".photos").iterdir()) == []

    below = children(second.process.pid)
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0, second.said()
    assert not any(alive(pid) for pid in below)


@pytest.mark.slow
def test_a_fleet_on_redis_outlives_its_server_and_a_worker(redis_queue: Queue, start: Start) -> None:
    settings = redis_queue.settings
    flags = ("--broker", settings.broker, "--outputs", settings.outputs)
    redis_queue.worker()
    first = start(*flags)
    task = first.queue(**LONG, batch=2)
    first.drawing(task)
    first.kill()
    second = start(*flags)
    assert len(second.completed(task)) == 2
    assert len(redis_queue.pictures()) == 2

    task = second.queue(**LONG, batch=2)
    second.drawing(task)
    redis_queue.worker()
    redis_queue.workers[0].kill()
    assert len(second.completed(task)) == 2
    assert len(redis_queue.pictures()) == 4
    assert "Traceback" not in redis_queue.said(1) + second.said()


class Door:
    """Hears webhooks."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                heard.append((dict(self.headers), self.rfile.read(length)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/told"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def door() -> Iterator[Door]:
    heard = Door()
    yield heard
    heard.close()


def test_a_queued_task_is_followed_cancelled_and_told_to_its_webhook(
    redis_queue: Queue, door: Door, tmp_path: Path
) -> None:
    redis_queue.worker()
    settings = Settings(
        provider="cpu", allowed_hosts=frozenset({"127.0.0.1"}), webhook_secret=SECRET, outputs=tmp_path
    )
    runner = CeleryRunner.open(redis_queue.settings)
    with (
        serving(create_app(settings, store=runner.store, queue=runner)) as url,
        httpx.Client(base_url=url, timeout=SECONDS) as client,
    ):
        until(lambda: client.get("/readyz").status_code == 200, "the service is ready")

        def queue(**fields: Any) -> str:
            asked = {"image": DATA_URI, "celery": True, "webhook": door.url} | fields
            return str(client.post("/getImageToImage", json=asked).json()["task_id"])

        stopped = queue(**LONG, batch=4, preview_every=2)
        events = []
        with client.stream("GET", f"/tasks/{stopped}/events") as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    events.append(json.loads(line[5:]))
                    if events[-1]["step"] >= 10 and events[-1]["status"] == "running":
                        httpx.delete(f"{url}/tasks/{stopped}")
        finished = queue(num_inference_steps=1)
        until(lambda: len(door.heard) == 2, "both webhooks are told")
        answer = client.post("/getImage", json={"id": finished}).json()
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert [event["status"] for event in events][-1] == "cancelled"
    seen = [uri for event in events for uri in event["preview"] or ()]
    assert seen
    picture = Image.open(io.BytesIO(base64.b64decode(seen[0].partition(",")[2])))
    assert picture.size == (256, 256)
    told = {json.loads(body)["task_id"]: (headers, body) for headers, body in door.heard}
    assert json.loads(told[stopped][1])["status"] == "cancelled"
    headers, body = told[finished]
    assert json.loads(body) == answer
    assert (answer["status"], len(answer["output"])) == ("completed", 1)
    assert headers[SIGNATURE] == sign(SECRET, int(headers[TIMESTAMP]), body)


def test_a_server_whose_queue_is_away_says_so_and_draws_by_itself(redis_queue: Queue, tmp_path: Path) -> None:
    settings = replace(redis_queue.settings, broker=NOBODY, results=NOBODY)
    runner = CeleryRunner.open(settings)
    with (
        serving(create_app(Settings(provider="cpu", outputs=tmp_path), queue=runner)) as url,
        httpx.Client(base_url=url, timeout=SECONDS) as client,
    ):
        until(lambda: "does not answer" in client.get("/readyz").text, "the service says what is amiss")
        asked = {"image": DATA_URI, "num_inference_steps": 1}
        queued = client.post("/getImageToImage", json=asked | {"celery": True})
        drawn = client.post("/getImageToImage", json=asked)
    assert queued.status_code == 503
    assert queued.json()["error"] == "queue_unavailable"
    assert "result store redis://127.0.0.1:9/0 does not answer" in queued.json()["error_data"]["message"]
    assert "secret" not in queued.text
    assert (drawn.status_code, drawn.json()["status"]) == (200, "completed")
