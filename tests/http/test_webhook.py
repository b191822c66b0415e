"""A webhook hears of a task's end: signed, told again after trouble, and only where fetching would go."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from service_client import EIGHT, Running

from faceavatar_cli.http.contract import EXAMPLE_ANSWER, Answer
from faceavatar_cli.http.webhook import deliver, sign

SECRET = "the webhook's own secret"
ANSWER = Answer.model_validate(EXAMPLE_ANSWER)
HERE = frozenset({"127.0.0.1"})


class Ear(ThreadingHTTPServer):
    """Remembers what it hears; answers with the statuses it was given, then 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.news = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?key=1"


class Handler(BaseHTTPRequestHandler):
    server: Ear

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((dict(self.headers), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url)
        self.end_headers()
        self.server.news.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def ear() -> Iterator[Ear]:
    with Ear() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [False, True])
async def test_the_answer_comes_signed(running: Running, photo_uri: str, ear: Ear, fails: bool) -> None:
    image = "data:,no picture" if fails else photo_uri
    async with running(webhook_secret=SECRET, allowed_hosts=HERE) as client:
        asked = {"image": image, "webhook": ear.url, "celery": True}
        queued = (await client.post("/getImageToImage", json=asked)).json()
        assert "key" not in queued["input"]["webhook"]
        await client.get(f"/tasks/{queued['task_id']}/events")
        from anyio.to_thread import run_sync

        assert await run_sync(ear.news.wait, 10)
        answer = (await client.post("/getImage", json={"id": queued["task_id"]})).json()
    ((headers, body),) = ear.heard
    assert json.loads(body) == answer
    assert set(answer) == EIGHT
    assert answer["status"] == ("failed" if fails else "completed")
    stamp = headers["X-Faceavatar-Timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["X-Faceavatar-Signature"] == f"sha256={wanted}"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.anyio
async def test_without_a_secret_webhooks_are_refused(running: Running, photo_uri: str) -> None:
    async with running() as client:
        asked = {"image": photo_uri, "webhook": "https://example.com/hook"}
        response = await client.post("/getImageToImage", json=asked)
    assert response.status_code == 422
    assert "no secret to sign webhooks with" in response.json()["error_data"]["message"]


def test_a_server_in_trouble_is_told_again(ear: Ear) -> None:
    ear.statuses = [500, 503]
    pauses: list[float] = []
    assert deliver(ear.url, ANSWER, SECRET, HERE, (1.0, 5.0, 25.0), pauses.append)
    assert pauses == [1.0, 5.0]
    assert len({body for _, body in ear.heard}) == 1


def test_it_is_given_up_in_the_end(ear: Ear) -> None:
    ear.statuses = [500] * 9
    assert not deliver(ear.url, ANSWER, SECRET, HERE, (0.0, 0.0), lambda seconds: None)
    assert len(ear.heard) == 3


@pytest.mark.parametrize("status", [302, 400, 410])
def test_a_refusal_and_a_redirect_are_taken_as_they_are(ear: Ear, status: int) -> None:
    ear.statuses = [status]
    assert not deliver(ear.url, ANSWER, SECRET, HERE)
    assert len(ear.heard) == 1


def test_an_address_that_is_not_public_hears_nothing(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not deliver(ear.url, ANSWER, SECRET)
    assert ear.heard == []
    assert "not a public address" in caplog.text
    assert "key" not in caplog.text


def test_nobody_there_is_told_again() -> None:
    pauses: list[float] = []
    assert not deliver("http://127.0.0.1:1/", ANSWER, SECRET, HERE, (2.0,), pauses.append)
    assert pauses == [2.0]


def test_a_signature_is_of_time_and_body() -> None:
    one = sign(SECRET, 1, b"body")
    assert one == "sha256=" + hmac.new(SECRET.encode(), b"1.body", hashlib.sha256).hexdigest()
    assert len({one, sign(SECRET, 2, b"body"), sign(SECRET, 1, b"other"), sign("else", 1, b"body")}) == 4
