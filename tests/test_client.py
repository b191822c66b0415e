"""The client against a real server on a socket of this machine."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from live_server import SECRET, serving, serving_one_caller
from PIL import Image

from faceavatar import (
    AvatarEngine,
    AvatarRequest,
    ImageError,
    InvalidRequest,
    NoFaceFound,
    PackNotFound,
    UrlRefused,
)
from faceavatar.client import (
    AsyncAvatarClient,
    AvatarClient,
    Patience,
    RateLimited,
    ServiceError,
    Task,
    TaskCancelled,
    TaskNotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.settings import Limits, Settings

PHOTOS = Path(__file__).resolve().parent / "fixtures" / "photos"
PHOTO = PHOTOS / "obama.jpg"
HASTY = Patience(tries=3, longest=0.05)


@pytest.fixture
def app(engine: AvatarEngine, tmp_path: Path) -> FastAPI:
    """A service without tokens, whose one pack is the tests' own."""
    settings = Settings(
        outputs=tmp_path / "outputs", allowed_hosts=frozenset({"localhost"}), limits=Limits(per_minute=6000)
    )
    return create_app(settings, engines={"tiny": engine})


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as running:
        yield running


@pytest.fixture
def client(url: str) -> Iterator[AvatarClient]:
    with AvatarClient(url) as made:
        yield made


@pytest.fixture
def guarded(engine: AvatarEngine, tmp_path: Path) -> Iterator[str]:
    with serving_one_caller({"tiny": engine}, tmp_path / "guarded") as running:
        yield running


class Wire(httpx2.BaseTransport):
    """The real transport, on which things happen.

    The mishaps are called in turn, each with a request before it is sent; one that raises keeps it from being
    sent. `after` is called with each response.
    """

    def __init__(
        self,
        *mishaps: Callable[[httpx2.Request], None],
        after: Callable[[httpx2.Response], httpx2.Response] = lambda response: response,
    ) -> None:
        self._real, self._mishaps, self._after = httpx2.HTTPTransport(), list(mishaps), after
        self.sent: list[tuple[str, str]] = []
        self.headers: list[httpx2.Headers] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append((request.method, request.url.path))
        self.headers.append(request.headers)
        if self._mishaps:
            self._mishaps.pop(0)(request)
        return self._after(self._real.handle_request(request))

    def close(self) -> None:
        self._real.close()


def breaks(kind: type[httpx2.TransportError]) -> Callable[[httpx2.Request], None]:
    def mishap(request: httpx2.Request) -> None:
        raise kind("the line broke", request=request)

    return mishap


def test_what_comes_back_is_what_the_engine_draws(client: AvatarClient, engine: AvatarEngine) -> None:
    avatars = client.generate(PHOTO, gender="man", batch=3, seed=4294967295, num_inference_steps=3)
    drawn = engine.generate(
        AvatarRequest(image=PHOTO, gender="man", batch=3, seed=4294967295, num_inference_steps=3)
    )
    assert avatars.seeds == drawn.seeds == (4294967295, 0, 1)
    assert len(avatars) == len(list(avatars)) == 3
    for found, expected in zip(avatars.arrays(), drawn.images, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [picture.size for picture in avatars.pictures()] == [(512, 512)] * 3
    assert avatars.task.status == "completed"
    assert avatars.task.app_id == "tiny"
    assert avatars.task.input["gender"] == "man"


def pil() -> Image.Image:
    return Image.open(PHOTO)


@pytest.mark.parametrize(
    "image",
    [
        PHOTO,
        str(PHOTO),
        PHOTO.read_bytes(),
        f"data:image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}",
        np.asarray(pil()),
        pil(),
    ],
    ids=["path", "path as text", "bytes", "data URI", "array", "PIL image"],
)
def test_a_photo_of_any_kind_is_uploaded(client: AvatarClient, image: Any, engine: AvatarEngine) -> None:
    (found,) = client.generate(image, seed=1, num_inference_steps=1).arrays()
    (expected,) = engine.generate(AvatarRequest(image=PHOTO, seed=1, num_inference_steps=1)).images
    np.testing.assert_array_equal(found, expected)


def test_a_url_is_passed_on_and_fetched_by_the_server(client: AvatarClient) -> None:
    asked: list[str] = []

    class Album(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(f"{self.headers['User-Agent']} {self.path}")

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Album, directory=PHOTOS)) as album:
        threading.Thread(target=album.serve_forever).start()
        try:
            avatars = client.generate(
                f"http://localhost:{album.server_port}/obama.jpg", num_inference_steps=1
            )
        finally:
            album.shutdown()
    assert asked == ["faceavatar /obama.jpg"]
    assert avatars.task.input["image"].startswith("http://localhost")


def test_a_task_is_submitted_watched_and_fetched(client: AvatarClient, engine: AvatarEngine) -> None:
    task = client.submit(PHOTO, batch=2, seed=9, num_inference_steps=6, preview_every=2, ref_id="mine")
    assert task.status in {"queued", "running"}
    seen: list[Task] = []
    avatars = client.wait(task, on_step=seen.append)
    drawn = engine.generate(AvatarRequest(image=PHOTO, batch=2, seed=9, num_inference_steps=6))
    for found, expected in zip(avatars.arrays(), drawn.images, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {each.ref_id for each in seen} == {"mine"}
    steps = [each.step for each in seen]
    assert steps == sorted(steps)
    assert not any(each.ended for each in seen)
    assert {each.total for each in seen} <= {0, 6}
    again = client.task(task.id)
    assert (again.status, again.step, again.ended, len(again.urls)) == ("completed", 6, True, 2)
    assert client.wait(task.id).files == avatars.files


def test_previews_are_handed_to_on_step(client: AvatarClient) -> None:
    previews: list[bytes] = []
    task = client.submit(PHOTO, batch=2, num_inference_steps=30, preview_every=1)
    client.wait(task, on_step=lambda now: previews.extend(now.previews))
    assert previews
    assert len(previews) % 2 == 0
    assert all(Image.open(io.BytesIO(data)).format == "JPEG" for data in previews)


def slow(client: AvatarClient) -> Task:
    return client.submit(PHOTO, batch=8, best_of=8, num_inference_steps=50)


def test_a_cancelled_task_ends_the_wait_for_it(client: AvatarClient) -> None:
    task = slow(client)
    with pytest.raises(TaskCancelled, match=f"task {task.id} was cancelled") as caught:
        client.wait(task, on_step=lambda now: client.cancel(now))
    assert caught.value.code == "cancelled"
    assert client.task(task).status == "cancelled"
    assert client.cancel(task).status == "cancelled", "once more does no harm"


def test_a_wait_can_end_before_its_task_which_goes_on(client: AvatarClient) -> None:
    task = slow(client)
    began = time.monotonic()
    with pytest.raises(TimedOut, match="it goes on: wait again, or cancel it"):
        client.wait(task, timeout=0.1)
    assert time.monotonic() - began < 2
    assert not client.task(task).ended
    client.cancel(task)


def test_what_on_step_raises_comes_out_and_the_wait_is_over(client: AvatarClient) -> None:
    task = slow(client)

    def tired(now: Task) -> None:
        raise KeyError(now.id)

    with pytest.raises(KeyError, match=task.id):
        client.wait(task, on_step=tired)
    client.cancel(task)


def test_a_request_out_of_range_is_refused_before_anything_is_sent(url: str) -> None:
    wire = Wire()
    with AvatarClient(url, transport=wire) as client:
        with pytest.raises(InvalidRequest, match=r"batch: got 9, allowed a whole number 1\.\.8"):
            client.generate(PHOTO, batch=9)
        with pytest.raises(InvalidRequest, match=r"image: got 'nowhere\.jpg'"):
            client.submit("nowhere.jpg")
        with pytest.raises(InvalidRequest, match="steps: got 3, allowed these fields only"):
            client.generate(PHOTO, steps=3)  # type: ignore[call-arg]
    assert wire.sent == []


def test_errors_of_the_engine_come_back_as_themselves(client: AvatarClient) -> None:
    with pytest.raises(NoFaceFound, match="no face in"):
        client.generate(np.full((300, 300, 3), 90, np.uint8))
    with pytest.raises(ImageError, match="no picture"):
        client.generate(b"no picture")
    with pytest.raises(UrlRefused, match="only from public addresses"):
        client.generate("http://127.0.0.1:9/me.jpg")
    with pytest.raises(PackNotFound, match="no pack 'sd15' is loaded here, only tiny"):
        client.generate(PHOTO, app_id="sd15")
    with pytest.raises(NoFaceFound):
        client.wait(client.submit(np.full((300, 300, 3), 90, np.uint8)))


def test_what_only_the_server_can_refuse_comes_back_as_invalid_request(client: AvatarClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.generate(PHOTO, webhook="https://example.com/told")
    assert (caught.value.field, caught.value.got) == ("webhook", "a URL")
    assert "secret to sign webhooks with" in caught.value.allowed


def test_a_task_that_is_not_there_is_told(client: AvatarClient) -> None:
    for ask in (client.task, client.cancel, client.wait):
        with pytest.raises(TaskNotFound, match="no such task of yours") as caught:
            ask("nobody knows ?this")
        assert (caught.value.code, caught.value.status) == ("task_not_found", 404)


def test_without_its_token_a_client_is_told_so(guarded: str) -> None:
    for token in (None, "a wrong secret of good length"):
        with (
            AvatarClient(guarded, token) as client,
            pytest.raises(Unauthorized, match="a known token") as caught,
        ):
            client.generate(PHOTO)
        assert caught.value.status == 401
    with AvatarClient(guarded, SECRET) as client:
        assert len(client.generate(PHOTO, num_inference_steps=1)) == 1
        assert SECRET not in repr(client._to)


def test_a_token_that_asks_too_often_is_told_when_to_come_again(guarded: str) -> None:
    with AvatarClient(guarded, SECRET, patience=HASTY) as client:
        for _ in range(5):
            client.generate(PHOTO, num_inference_steps=1)
        with pytest.raises(RateLimited, match="more than 1 requests a minute") as caught:
            client.generate(PHOTO)
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert 30 < caught.value.retry_after <= 61


def test_a_server_that_asks_for_a_moment_is_given_it(tmp_path: Path) -> None:
    settings = Settings(
        outputs=tmp_path / "outputs", provider="cpu", threads=1
    )  # loads its pack after the start
    with serving(create_app(settings)) as url:
        with AvatarClient(url, patience=Patience(tries=1)) as client:
            with pytest.raises(Unavailable) as caught:
                client.generate(PHOTO)
            assert (caught.value.code, caught.value.retry_after) == ("not_ready", 2)
        with AvatarClient(url, patience=Patience(tries=20)) as client:
            assert len(client.generate(PHOTO)) == 1


def test_a_server_that_is_not_there_is_told_and_what_to_do(url: str) -> None:
    with AvatarClient("http://127.0.0.1:9", patience=HASTY) as client:
        with pytest.raises(Unavailable, match=r"http://127.0.0.1:9/: cannot be reached .*`faceavatar serve`"):
            client.generate(PHOTO)
        with pytest.raises(Unavailable):
            client.wait("some task")


def test_a_request_that_never_left_is_sent_again(url: str) -> None:
    wire = Wire(breaks(httpx2.ConnectError), breaks(httpx2.ConnectTimeout))
    with AvatarClient(url, transport=wire, patience=HASTY) as client:
        assert len(client.generate(PHOTO, num_inference_steps=1)) == 1
    assert [path for _, path in wire.sent[:3]] == ["/getImageToImage"] * 3


@pytest.mark.parametrize("kind", [httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.ReadTimeout])
def test_a_request_that_may_have_arrived_is_never_sent_twice(url: str, kind: Any) -> None:
    wire = Wire(breaks(kind))
    with AvatarClient(url, transport=wire, patience=HASTY) as client:
        with pytest.raises(Unavailable):
            client.generate(PHOTO)
        assert [path for _, path in wire.sent] == ["/getImageToImage"]


def test_a_question_is_asked_again_until_patience_ends(url: str) -> None:
    with AvatarClient(url) as plain:
        task = plain.submit(PHOTO, num_inference_steps=1)
        plain.wait(task)
    wire = Wire(breaks(httpx2.ReadError), breaks(httpx2.ReadTimeout))
    with AvatarClient(url, transport=wire, patience=HASTY) as client:
        assert client.task(task).status == "completed"
    wire = Wire(*[breaks(httpx2.ReadError)] * 3)
    with AvatarClient(url, transport=wire, patience=HASTY) as client, pytest.raises(Unavailable):
        client.task(task)
    assert len(wire.sent) == 3


class Cut(httpx2.SyncByteStream):
    """A body that breaks off amid its first piece: no event of it is whole, so none can be the last one."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def __iter__(self) -> Iterator[bytes]:
        piece = next(iter(self._whole))
        yield piece[: len(piece) // 2 if piece.count(b"\n\n") == 1 else piece.index(b"\n\n") // 2]
        raise httpx2.ReadError("the line broke")

    def close(self) -> None:
        self._whole.close()


def test_events_that_break_off_are_taken_up_again(url: str) -> None:
    cut: list[str] = []

    def cut_twice(response: httpx2.Response) -> httpx2.Response:
        if response.headers["content-type"].startswith("text/event-stream") and len(cut) < 2:
            cut.append("once more")
            return httpx2.Response(
                response.status_code, headers=response.headers, stream=Cut(response.stream)
            )
        return response

    wire = Wire(after=cut_twice)
    with AvatarClient(url, transport=wire, patience=HASTY) as client:
        avatars = client.wait(client.submit(PHOTO, batch=4, num_inference_steps=20, seed=2))
    assert avatars.seeds == (2, 3, 4, 5)
    assert sum(path.endswith("/events") for _, path in wire.sent) == 3


def test_the_token_goes_to_the_server_and_to_nobody_else(guarded: str) -> None:
    wire = Wire()
    with AvatarClient(guarded, SECRET, transport=wire) as client:
        client.generate(PHOTO, num_inference_steps=1)
        assert {headers.get("authorization") for headers in wire.headers} == {f"Bearer {SECRET}"}
        for foreign in ("https://example.com/a.png", guarded.replace("http:", "https:"), f"{guarded}0/a.png"):
            assert client._to.headers(foreign) == {}


def test_pictures_that_are_answered_inline_are_taken_as_they_are(
    engine: AvatarEngine, tmp_path: Path
) -> None:
    settings = Settings(outputs=tmp_path / "outputs", inline=True)
    wire = Wire()
    with (
        serving(create_app(settings, engines={"tiny": engine})) as url,
        AvatarClient(url, transport=wire) as client,
    ):
        (data,) = client.generate(PHOTO, num_inference_steps=1).files
    assert Image.open(io.BytesIO(data)).size == (512, 512)
    assert len(wire.sent) == 1


def test_avatars_are_saved_byte_for_byte(client: AvatarClient, tmp_path: Path) -> None:
    avatars = client.generate(PHOTO, batch=2, seed=5, num_inference_steps=1)
    in_folder = avatars.save(tmp_path / "new" / "folder")
    assert [path.name for path in in_folder] == ["avatar-5.png", "avatar-6.png"]
    as_files = avatars.save(tmp_path / "me.png")
    assert [path.name for path in as_files] == ["me-0.png", "me-1.png"]
    for paths in (in_folder, as_files):
        assert tuple(path.read_bytes() for path in paths) == avatars.files
    (tmp_path / "taken").write_text("a file, no folder")
    with pytest.raises(ImageError, match="inside: cannot be written"):
        avatars.save(tmp_path / "taken" / "inside")


def test_something_else_at_that_address_is_not_taken_for_the_service() -> None:
    class Stranger(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if self.path.startswith("/200") else 502)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>hello")

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever).start()
        try:
            for path, kind, words in (
                ("200/", ServiceError, "the answer is no answer of a faceavatar service"),
                ("502/", Unavailable, "answered 502, which is no answer of a faceavatar service"),
            ):
                with (
                    AvatarClient(f"http://127.0.0.1:{stranger.server_port}/{path}", patience=HASTY) as client,
                    pytest.raises(kind, match=words),
                ):
                    client.generate(PHOTO)
        finally:
            stranger.shutdown()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "localhost:8000"}, "url: got 'localhost:8000', allowed the http"),
        ({"timeout": 0}, "timeout: got 0, allowed seconds above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        AvatarClient(**settings)


def test_the_async_client_does_the_same(url: str, engine: AvatarEngine) -> None:
    steps: list[int] = []

    async def on_step(now: Task) -> None:
        await asyncio.sleep(0)
        steps.append(now.step)

    async def trip() -> None:
        async with AsyncAvatarClient(url, patience=HASTY) as client:
            ones = await asyncio.gather(
                *(client.generate(PHOTO, seed=seed, num_inference_steps=2) for seed in (1, 2, 3))
            )
            for seed, avatars in enumerate(ones, 1):
                (expected,) = engine.generate(
                    AvatarRequest(image=PHOTO, seed=seed, num_inference_steps=2)
                ).images
                np.testing.assert_array_equal(avatars.arrays()[0], expected)
            task = await client.submit(PHOTO, batch=2, seed=7, num_inference_steps=20)
            assert (await client.wait(task, on_step=on_step)).seeds == (7, 8)
            assert (await client.task(task)).status == "completed"
            task = await client.submit(PHOTO, batch=8, best_of=8, num_inference_steps=50)
            with pytest.raises(TimedOut):
                await client.wait(task, timeout=0.1)
            assert (await client.cancel(task)).status == "cancelled"
            with pytest.raises(TaskCancelled):
                await client.wait(task, on_step=steps.append)
            with pytest.raises(NoFaceFound):
                await client.generate(np.full((300, 300, 3), 90, np.uint8))
            with pytest.raises(TaskNotFound):
                await client.wait("nobody")
        async with AsyncAvatarClient("http://127.0.0.1:9", patience=HASTY) as client:
            with pytest.raises(Unavailable):
                await client.generate(PHOTO)

    asyncio.run(trip())
    assert steps == sorted(steps)
    assert steps
