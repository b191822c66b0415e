"""What both clients tell httpx: addresses, headers, bodies, time limits; and how they read a response."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from faceavatar.client.errors import TimedOut
from faceavatar.client.library import httpx2
from faceavatar.client.patience import Patience, unreachable
from faceavatar.client.results import Task
from faceavatar.client.wire import Answered, Call, check_address, form_fields, refusal
from faceavatar.errors import InvalidRequest

_CONNECT_SECONDS = 10.0
_QUESTION_SECONDS = 60.0
_QUIET_SECONDS = 60.0  # the server says at least a comment every few seconds while a task waits


@dataclass(frozen=True)
class Connection:
    """Where a client calls, as whom, and how long it waits: see AvatarClient."""

    url: str
    token: str | None = field(repr=False)
    timeout: float
    patience: Patience

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise InvalidRequest("timeout", self.timeout, "seconds above 0")
        object.__setattr__(self, "url", check_address(self.url))

    def arguments(self, call: Call) -> dict[str, Any]:
        """What httpx's `request` takes for a call."""
        url = urljoin(self.url, call.path)
        fields: dict[str, Any] = {"headers": self.headers(url), "timeout": self._limits(call)}
        if call.photo is not None:
            fields |= {"data": form_fields(call.content or {}), "files": {"image": ("photo", call.photo)}}
        elif call.content is not None:
            fields["json"] = call.content
        return {"method": call.method, "url": url, **fields}

    def stream_arguments(self, path: str, deadline: float | None) -> dict[str, Any]:
        """What httpx's `stream` takes for a task's events."""
        url = urljoin(self.url, path)
        quiet = max(0.001, within(_QUIET_SECONDS, deadline))
        limits = httpx2.Timeout(quiet, connect=min(_CONNECT_SECONDS, quiet))
        headers = self.headers(url) | {"Accept": "text/event-stream"}
        return {"method": "GET", "url": url, "headers": headers, "timeout": limits}

    def pause_or_raise(self, error: Exception, tried: int, harmless: bool) -> float:
        """Seconds until a call is made again; where it must not be, raises the error as a FaceAvatarError."""
        pause = self.patience.pause(error, tried, harmless)
        if pause is not None:
            return pause
        if isinstance(error, httpx2.TransportError):
            raise unreachable(error, self.url) from error
        raise error

    def headers(self, url: str) -> dict[str, str]:
        """The token goes to the server alone, never to another host that keeps its pictures."""
        if self.token is None or urlsplit(url)[:2] != urlsplit(self.url)[:2]:
            return {}
        return {"Authorization": f"Bearer {self.token}"}

    def _limits(self, call: Call) -> httpx2.Timeout:
        return httpx2.Timeout(self.timeout if call.slow else _QUESTION_SECONDS, connect=_CONNECT_SECONDS)


def read(response: httpx2.Response) -> Answered:
    """The answer that a response holds. Raises the error that it tells."""
    content = content_of(response)
    error = refusal(response.status_code, content, response.headers.get("Retry-After"))
    if error is not None:
        raise error
    return Answered(response.content, content)


def seconds_left(deadline: float | None) -> float | None:
    """Until a moment of time.monotonic(); None where there is no deadline."""
    return None if deadline is None else deadline - time.monotonic()


def within(pause: float, deadline: float | None) -> float:
    """A pause that ends with the deadline."""
    left = seconds_left(deadline)
    return pause if left is None else max(0.0, min(pause, left))


def check_time(deadline: float | None, task_id: str) -> None:
    """Raises TimedOut once the deadline is over."""
    left = seconds_left(deadline)
    if left is not None and left <= 0:
        raise TimedOut(f"task {task_id} is not done in the time given; it goes on: wait again, or cancel it")


def id_of(task: Task | str) -> str:
    """A task's id."""
    return task if isinstance(task, str) else task.id


def further(ref_id: str | None, webhook: str | None) -> Mapping[str, str | None]:
    """The fields that the engine does not know, by their names on the wire."""
    return {"refID": ref_id, "webhook": webhook}


def content_of(response: httpx2.Response) -> Mapping[str, Any] | None:
    """The JSON object in a body, None where there is none."""
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        return None
    try:
        found = json.loads(response.content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
