"""What the client makes of codes, texts and delays, and what importing it costs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any, get_type_hints

import httpx2
import pytest

from faceavatar import AvatarRequest, FaceAvatarError, InvalidRequest, MissingExtra, NumericalError, errors
from faceavatar.client import (
    Asked,
    Patience,
    RateLimited,
    ServiceError,
    TaskCancelled,
    TaskNotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from faceavatar.client.errors import error_of
from faceavatar.client.wire import EventReader, form_fields, refusal, request_call
from faceavatar_cli.http.problems import STATUS_OF, NotReady, problem_of
from faceavatar_cli.http.problems import RateLimited as ServersRateLimited

ENGINE = {
    getattr(errors, name).code: getattr(errors, name) for name in errors.__all__ if name != "FaceAvatarError"
}
SERVICE = {
    "unauthorized": Unauthorized,
    "forbidden": Unauthorized,
    "rate_limited": RateLimited,
    "queue_full": RateLimited,
    "not_ready": Unavailable,
    "queue_unavailable": Unavailable,
    "interrupted": Unavailable,
    "task_not_found": TaskNotFound,
    "cancelled": TaskCancelled,
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", sorted(STATUS_OF))
def test_every_code_of_the_server_becomes_an_error_of_its_kind(code: str) -> None:
    data = {"message": "words", "field": "batch", "got": 9, "allowed": "1..8", "stage": "unet", "step": 2}
    data |= {"needed": 2, "budget": 1, "what": "unet", "seconds": 3.0}
    error = error_of(code, data | {"extra": "queue", "package": "celery"}, STATUS_OF[code])
    expected = ENGINE.get(code, SERVICE.get(code))
    if expected is None:
        expected = Unavailable if STATUS_OF[code] == 503 else ServiceError
    assert type(error) is expected
    assert error.code == code
    assert str(error)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("height", 100, "a whole number 256..1536"),
        MissingExtra("queue", "celery"),
        NumericalError("unet", 3),
        errors.OverBudget("batch", "8 of 512x512", "2 of 512x512", 3_000_000_000, 2_000_000_000),
        errors.OutOfMemory("unet.onnx failed on cpu", None),
        errors.DeadlineExceeded("vae_decoder", 1.5, None),
        errors.NoFaceFound("no face in photo.jpg"),
        errors.MissingGraph("toon: no matting"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_of_the_engine_is_the_same_behind_the_wire(error: FaceAvatarError) -> None:
    told = problem_of(error)
    copy = error_of(told.code, json.loads(json.dumps(dict(told.data))), told.status)
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_the_servers_own_errors_keep_their_words_and_their_delay() -> None:
    told = problem_of(ServersRateLimited("too much at once", 7.2))
    answer = {"error": told.code, "error_data": dict(told.data)}
    error = refusal(told.status, answer, told.headers["Retry-After"])
    assert isinstance(error, RateLimited)
    assert (str(error), error.retry_after, error.status) == ("too much at once", 8, 429)
    told = problem_of(NotReady("the packs are being loaded"))
    error = refusal(
        told.status, {"error": told.code, "error_data": dict(told.data)}, told.headers["Retry-After"]
    )
    assert isinstance(error, Unavailable)
    assert (error.code, error.retry_after) == ("not_ready", 2)


def test_an_error_that_lacks_its_parts_is_told_all_the_same() -> None:
    error = error_of("invalid_request", {"message": "older servers say less"}, 422)
    assert type(error) is ServiceError
    assert (str(error), error.code, error.status) == ("older servers say less", "invalid_request", 422)


@pytest.mark.parametrize(
    "kind", [ServiceError, Unauthorized, RateLimited, Unavailable, TaskNotFound, TimedOut]
)
def test_an_error_survives_the_way_between_processes(kind: type[ServiceError]) -> None:
    error = kind("words", "queue_full", 429, {"message": "words"}, 3.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert vars(copy) == vars(error)
    assert kind("words").code == kind.code


def test_the_tree_at_the_top_of_the_errors_names_every_class_with_its_code() -> None:
    from faceavatar.client import errors as room

    kinds = [ServiceError, *ServiceError.__subclasses__()]
    ours = [kind for kind in kinds if kind.__module__ == room.__name__]
    assert len(ours) == 7
    for kind in ours:
        lines = (room.__doc__ or "").splitlines()
        assert any({kind.__name__, kind.code} <= set(line.split()) for line in lines), kind


def test_the_fields_that_are_asked_with_are_those_of_a_request() -> None:
    # The eight fields of an answer have no place for similarities: over the wire best_of alone uses them.
    elsewhere = {"image", "celery", "similarity"}
    assert set(get_type_hints(Asked)) == set(AvatarRequest.model_fields) - elsewhere
    for name, kind in get_type_hints(Asked).items():
        assert kind == AvatarRequest.model_fields[name].annotation, name


def test_a_url_is_asked_for_as_json_and_a_photo_as_a_form() -> None:
    by_url = request_call("https://example.com/me.jpg", False, {"refID": None}, {"batch": 2, "prompt": None})
    assert by_url.photo is None
    assert by_url.content == {"batch": 2, "image": "https://example.com/me.jpg"}
    by_form = request_call(
        b"a photo", True, {"refID": "mine"}, {"remove_background": True, "face_scale": 0.5}
    )
    assert by_form.photo == b"a photo"
    assert form_fields(by_form.content or {}) == {
        "remove_background": "true",
        "face_scale": "0.5",
        "refID": "mine",
        "celery": "true",
    }
    assert not by_form.harmless
    assert (by_url.slow, by_form.slow) == (True, False)


def test_events_are_read_whatever_else_stands_in_the_stream() -> None:
    reader = EventReader()
    lines = [
        ": still here",
        "",
        "event: task",
        "id: 3",
        'data: {"task_id": "a",',
        'data:"status": "running"}',
        "",
    ]
    (task,) = [task for line in lines if (task := reader.feed(line))]
    assert (task.id, task.status) == ("a", "running")
    with pytest.raises(ServiceError, match="an event of the task is no answer"):
        [reader.feed(line) for line in ("data: no JSON", "")]


def pauses(patience: Patience, error: Exception, harmless: bool) -> list[float | None]:
    return [patience.pause(error, tried, harmless) for tried in range(1, patience.tries + 1)]


@pytest.mark.parametrize(
    ("error", "once_more", "harmless_once_more"),
    [
        (httpx2.ConnectError("x"), True, True),
        (httpx2.ConnectTimeout("x"), True, True),
        (httpx2.PoolTimeout("x"), True, True),
        (httpx2.ReadTimeout("x"), False, True),
        (httpx2.ReadError("x"), False, True),
        (httpx2.WriteError("x"), False, True),
        (httpx2.RemoteProtocolError("x"), False, True),
        (RateLimited("x", "rate_limited", 429), True, True),
        (RateLimited("x", "queue_full", 429), True, True),
        (Unavailable("x", "not_ready", 503), True, True),
        (Unavailable("x", "queue_unavailable", 503), True, True),
        (Unavailable("a proxy's words", None, 502), False, True),
        (Unavailable("a proxy's words", None, 504), False, True),
        (Unavailable("x", "interrupted", 503), False, True),
        (ServiceError("x", "internal", 500), False, False),
        (Unauthorized("x", "unauthorized", 401), False, False),
        (TaskNotFound("x", "task_not_found", 404), False, False),
        (TaskCancelled("x", "cancelled", 409), False, False),
    ],
    ids=lambda value: (
        f"{type(value).__name__} {getattr(value, 'code', '')}" if isinstance(value, Exception) else None
    ),
)
def test_a_call_is_made_again_only_where_that_does_no_harm(
    error: Exception, once_more: bool, harmless_once_more: bool
) -> None:
    for harmless, expected in ((False, once_more), (True, harmless_once_more)):
        first, second, last = pauses(Patience(tries=3), error, harmless)
        assert (first is not None) is (second is not None) is expected
        assert last is None


def test_pauses_grow_and_heed_what_the_server_asks_for() -> None:
    for _ in range(50):
        grown = [
            pause for pause in pauses(Patience(tries=9, longest=10), httpx2.ConnectError("x"), False) if pause
        ]
        assert 0.15 < grown[0] < 0.35
        assert grown[3] > 4 * grown[0]
        assert max(grown) <= 10
    asked = RateLimited("x", "rate_limited", 429, None, 4.0)
    assert Patience().pause(asked, 1, False) == 4.0
    assert Patience(longest=3).pause(asked, 1, False) is None


@pytest.mark.parametrize(
    "settings", [{"tries": 0}, {"tries": 1.5}, {"longest": -1}, {"longest": float("nan")}]
)
def test_patience_that_makes_no_sense_is_refused(settings: Any) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(settings))):
        Patience(**settings)


def test_importing_faceavatar_does_not_bring_httpx_and_the_client_brings_no_engine() -> None:
    loaded = run("import sys, faceavatar; print(*sys.modules)").stdout.split()
    assert not {"httpx", "httpx2"} & set(loaded)
    loaded = run("import sys, faceavatar.client; print(*sys.modules)").stdout.split()
    assert "httpx2" in loaded
    assert not {"onnxruntime", "cv2", "tokenizers", "PIL", "faceavatar.engine"} & set(loaded)


def test_without_httpx_the_extra_that_brings_it_is_named() -> None:
    code = "import sys; sys.modules['httpx2'] = None\nfrom faceavatar.client import AvatarClient"
    assert "needs the package httpx2: pip install 'faceavatar[client]'" in run(code).stderr
