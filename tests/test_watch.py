"""A run ends in time, or when its caller wishes: within one step, at any stage, and nothing is left of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceavatar import AvatarEngine, AvatarRequest, DeadlineExceeded, InvalidRequest
from faceavatar.watch import Watch, current

PHOTO = Path(__file__).parent / "fixtures" / "photos" / "astronaut.jpg"


def ask(**fields: Any) -> AvatarRequest:
    return AvatarRequest(**{"image": PHOTO, "seed": 1, **fields})


EVERYTHING = ask(
    batch=2, best_of=3, similarity=True, preview_every=2, bg_color="#123456", num_inference_steps=2
)


class Stop(Exception):
    """The caller has had enough."""


class After:
    """A check that is passed so many times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.left -= 1
        if self.left < 0:
            raise Stop


def test_a_callers_check_ends_a_run_before_any_of_its_pieces_and_harms_no_other(tiny: Path) -> None:
    engine = AvatarEngine.load(tiny, provider="cpu", threads=1)
    passed = After(10**6)
    wanted = engine.generate(EVERYTHING, check=passed)
    # Two rounds of candidates in 2 steps each, previewed, decoded and compared; two pictures cut out.
    assert passed.calls > 20
    once_more, ended = EVERYTHING.model_copy(update={"seed": 2}), 0
    for times in range(0, passed.calls, 6):
        stop = After(times)
        try:
            engine.generate(once_more, check=stop)
        except Stop:
            ended += 1
            assert stop.calls == times + 1
        else:  # words and faces were remembered: it has fewer pieces than the first
            break
    assert ended > 2
    again = engine.generate(EVERYTHING)
    for one, other in zip(wanted.images, again.images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_time_that_is_over_stops_before_the_next_step_and_is_told(engine: AvatarEngine) -> None:
    steps = engine.stream(ask(num_inference_steps=50, guidance_scale=2.0), timeout=2.0)
    begun = time.monotonic()
    assert next(steps).index == 0
    time.sleep(max(0.0, 2.0 - (time.monotonic() - begun)))
    with pytest.raises(DeadlineExceeded, match=r"not done after 2 s: stopped before unet at step 1") as told:
        next(steps)
    assert (told.value.stage, told.value.step, told.value.seconds) == ("unet", 1, 2.0)
    assert engine.generate(ask(), timeout=100.0).images


def test_no_time_at_all_begins_nothing(engine: AvatarEngine) -> None:
    with pytest.raises(DeadlineExceeded, match="stopped before load_image"):
        engine.generate(ask(), timeout=1e-9)


def test_each_of_the_parts_of_a_joined_run_has_its_own_time(engine: AvatarEngine) -> None:
    prepared = [engine.prepare(ask(seed=seed), timeout=60.0) for seed in (1, 2)]
    assert len(engine.generate_together(prepared, timeout=60.0)) == 2
    with pytest.raises(DeadlineExceeded, match="unet at step 0"):
        engine.generate_together(prepared, timeout=1e-9)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "2"])
def test_a_time_that_is_none_is_refused(engine: AvatarEngine, timeout: Any) -> None:
    with pytest.raises(InvalidRequest, match="timeout: got"):
        engine.stream(ask(), timeout=timeout)


class _Slow(BaseHTTPRequestHandler):
    """Sends a byte now and then, for ever."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            try:
                self.wfile.write(b".")
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/photo.jpg"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_photo_that_does_not_come_is_waited_for_no_longer_than_that(
    engine: AvatarEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEAVATAR_ALLOW_PRIVATE_URLS", "1")
    with slow_server() as url:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="load_image"):
            engine.generate(ask(image=url), timeout=0.5)
        assert time.monotonic() - begun < 5


def test_leaving_the_loop_leaves_no_watch_no_thread_and_no_file_open(engine: AvatarEngine) -> None:
    engine.generate(ask())
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        for step in engine.stream(ask(num_inference_steps=10), timeout=60.0):
            if step.index == 1:
                break
    assert current().seconds_left == float("inf")
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


def test_what_takes_a_step_works_under_no_watch_itself() -> None:
    seen = []

    def work() -> Iterator[float]:
        for _ in range(2):
            yield current().seconds_left

    for inside in Watch(60.0).over(work()):
        seen.append((inside <= 60.0, current().seconds_left == float("inf")))
    assert seen == [(True, True), (True, True)]
