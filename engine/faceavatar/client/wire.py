"""The service's routes as calls and answers, without a connection: what is asked, and what an answer means.

A trip that takes several calls is a generator: it yields a Call, is sent the Answered, and returns what it
was for. So the client that blocks and the one that awaits make the very same trips.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import numpy as np

from faceavatar.client.errors import ServiceError, TaskCancelled, error_of
from faceavatar.client.results import Avatars, Task
from faceavatar.errors import InvalidRequest
from faceavatar.image import ImageSource, encode_png
from faceavatar.request import AvatarRequest, Gender, SchedulerName
from faceavatar.sources import read_bytes, source_kind

Done = TypeVar("Done")
_SEEDS = 2**32
_UNREADABLE = "is no answer of a faceavatar service; check the URL"


class Asked(TypedDict, total=False):
    """The fields of a request beside its image, as in AvatarRequest; the server fills in what is left out."""

    app_id: str | None
    prompt: str | None
    negative_prompt: str | None
    batch: int
    height: int
    width: int
    num_inference_steps: int | None
    guidance_scale: float | None
    gender: Gender | None
    remove_background: bool
    bg_color: str | None
    seed: int | None
    scheduler: SchedulerName | None
    face_scale: float | None
    controlnet_scale: float | None
    preview_every: int
    face_index: int | None
    strength: float | None
    guidance_interval: tuple[float, float] | None
    step_cache: int
    best_of: int


@dataclass(frozen=True)
class Call:
    """One HTTP request. harmless: making it twice does no harm. slow: it lasts as long as the pictures do."""

    method: str
    path: str
    content: Mapping[str, Any] | None = None  # goes as JSON, or as a form where there is a photo
    photo: bytes | None = field(default=None, repr=False)
    harmless: bool = True
    slow: bool = False


@dataclass(frozen=True)
class Answered:
    """What came back: the body, and its JSON object where it holds one."""

    body: bytes = field(repr=False)
    content: Mapping[str, Any] | None


Trip = Generator[Call, Answered, Done]


def request_call(image: ImageSource, celery: bool, further: Mapping[str, str | None], asked: Asked) -> Call:
    """The call that asks for avatars. Raises InvalidRequest and ImageError before anything is sent.

    A URL is passed on for the server to fetch; all else is uploaded: files and bytes as they are, arrays and
    PIL images as PNG.
    """
    AvatarRequest(image=image, **asked)  # the engine's own judge
    content: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    content |= {name: value for name, value in further.items() if value is not None}
    if celery:
        content["celery"] = True
    if isinstance(image, str) and source_kind(image) == "url":
        content["image"] = image
        return Call("POST", "getImageToImage", content, harmless=False, slow=not celery)
    return Call("POST", "getImageToImage", content, _bytes_of(image), harmless=False, slow=not celery)


def _bytes_of(image: ImageSource) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return read_bytes(image)
    if isinstance(image, np.ndarray):
        return encode_png(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def form_fields(content: Mapping[str, Any]) -> dict[str, str]:
    """Fields as a form holds them: all of it text."""

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {name: text(value) for name, value in content.items()}


def generate(image: ImageSource, further: Mapping[str, str | None], **asked: Unpack[Asked]) -> Trip[Avatars]:
    """Ask, wait for the answer, fetch the pictures."""
    answer = yield request_call(image, False, further, asked)
    return (yield from collect(task_of(answer.content)))


def submit(image: ImageSource, further: Mapping[str, str | None], **asked: Unpack[Asked]) -> Trip[Task]:
    """Queue the request."""
    answer = yield request_call(image, True, further, asked)
    return task_of(answer.content)


def look_up(task_id: str) -> Trip[Task]:
    """How a task stands."""
    answer = yield Call("GET", f"tasks/{quote(task_id, safe='')}")
    return task_of(answer.content)


def cancel(task_id: str) -> Trip[Task]:
    """Stop a task."""
    answer = yield Call("DELETE", f"tasks/{quote(task_id, safe='')}")
    return task_of(answer.content)


def events_path(task_id: str) -> str:
    """Where a task's events are streamed."""
    return f"tasks/{quote(task_id, safe='')}/events"


def collect(task: Task) -> Trip[Avatars]:
    """The pictures of a task that has ended; raises what it failed with, or TaskCancelled."""
    if task.status == "cancelled":
        raise TaskCancelled(f"task {task.id} was cancelled", status=None, data=task.error_data)
    if task.status != "completed":
        raise error_of(task.error, task.error_data, None)
    files = []
    for url in task.urls:
        if source_kind(url) == "data":
            files.append(read_bytes(url))
        else:
            files.append((yield Call("GET", url)).body)
    seed = task.input.get("seed")
    seeds = tuple((seed + index) % _SEEDS for index in range(len(files))) if isinstance(seed, int) else ()
    return Avatars(tuple(files), seeds, task)


def task_of(content: Mapping[str, Any] | None) -> Task:
    """The task that an answer's fields tell. Raises ServiceError where they are not those of the service."""
    if content is None or not isinstance(content.get("task_id"), str) or "status" not in content:
        raise ServiceError(f"the answer {_UNREADABLE}")
    return Task(
        id=content["task_id"],
        status=content["status"],
        app_id=content.get("app_id"),
        ref_id=content.get("refID"),
        step=content.get("step") or 0,
        total=content.get("total") or 0,
        queue_position=content.get("queue_position"),
        seconds=content.get("time_required") or 0.0,
        urls=tuple(content.get("output") or ()),
        error=content.get("error"),
        error_data=content.get("error_data") or {},
        input=content.get("input") or {},
        warnings=tuple(content.get("warnings") or ()),
        previews=tuple(_preview(each) for each in content.get("preview") or ()),
    )


class EventReader:
    """Puts the lines of an event stream together: `feed` gives the task of an event once it is whole."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> Task | None:
        """line: without its end. Comments, ids and names of events say nothing here."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        if line or not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        try:
            return task_of(json.loads(text))
        except ValueError:
            raise ServiceError(f"an event of the task {_UNREADABLE}") from None


def _preview(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def refusal(status: int, content: Mapping[str, Any] | None, retry_after: str | None) -> Exception | None:
    """The error that an answer tells, None where it tells none. retry_after: the header of that name."""
    if status < 400:  # a failed task's record is no failed question
        return None
    error = None if content is None else content.get("error")
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
    data = (content or {}).get("error_data") or {
        "message": f"the server answered {status}, which {_UNREADABLE}"
    }
    return error_of(error, data, status, seconds)


def check_address(url: str) -> str:
    """The server's URL with a slash at its end. Raises InvalidRequest."""
    if source_kind(url) != "url":
        raise InvalidRequest("url", url, "the http(s) URL of a faceavatar service")
    return url.rstrip("/") + "/"
