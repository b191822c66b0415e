"""What goes wrong between a client and the service, beside the engine's own errors.

FaceAvatarError
 └ ServiceError              service_error         a fault of the server, or an answer that is none
    ├ Unauthorized           unauthorized          the token is missing, unknown or not enough
    ├ RateLimited            rate_limited          too much at once; `retry_after` seconds
    ├ Unavailable            service_unavailable   no connection, not ready yet, or the queue is away
    ├ TaskNotFound           task_not_found        no such task, or no longer
    ├ TaskCancelled          cancelled             somebody cancelled the task
    └ TimedOut               timed_out             the task was not done in time; it goes on

The second column is the class's code; an error that the server told carries the server's own, which is finer:
`queue_full` is a RateLimited as well. An error of the engine (`no_face`, `invalid_request`, ...) is raised
as the very class that the engine raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faceavatar import errors
from faceavatar.errors import (
    DeadlineExceeded,
    FaceAvatarError,
    InvalidRequest,
    MissingExtra,
    NumericalError,
    OutOfMemory,
    OverBudget,
)


class ServiceError(FaceAvatarError):
    """Something is wrong between here and the server's engine.

    `code` is the server's word for it, `status` the HTTP status or None where nothing was answered, `data`
    the answer's error_data, `retry_after` the seconds after which to come back, None where that was not said.
    """

    code = "service_error"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        status: int | None = None,
        data: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code, status, data, retry_after)
        self.message = message
        if code is not None:
            self.code = code  # type: ignore[misc]  # the server's code is finer than the class's
        self.status = status
        self.data = dict(data or {})
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class Unauthorized(ServiceError):
    """The token is missing or unknown (401), or may not do this (403)."""

    code = "unauthorized"


class RateLimited(ServiceError):
    """More requests than the token may send, or a full queue (429); `retry_after` says when to come again."""

    code = "rate_limited"


class Unavailable(ServiceError):
    """The server cannot be reached, is not ready, or cannot reach its queue (503, 502, 504)."""

    code = "service_unavailable"


class TaskNotFound(ServiceError):
    """The server knows no such task, or has forgotten it, or it is another caller's (404)."""

    code = "task_not_found"


class TaskCancelled(ServiceError):
    """The task was cancelled before it was done."""

    code = "cancelled"


class TimedOut(ServiceError):
    """The time that the caller gave is over. The task goes on: wait again, or cancel it."""

    code = "timed_out"


_OF_THE_SERVICE: Mapping[str, type[ServiceError]] = {
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
_BY_STATUS: Mapping[int, type[ServiceError]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
_OF_THE_ENGINE: Mapping[str, type[FaceAvatarError]] = {
    kind.code: kind
    for kind in (getattr(errors, name) for name in errors.__all__)
    if kind is not FaceAvatarError
}


def error_of(
    code: str | None, data: Mapping[str, Any], status: int | None, retry_after: float | None = None
) -> FaceAvatarError:
    """The error that an answer tells: the engine's own class where it has one, or a ServiceError.

    code: the answer's `error`, None where the answer was none of the service's; data: its error_data.
    """
    message = str(data.get("message") or code or f"the server answered {status}")
    kind = _OF_THE_ENGINE.get(code or "")
    if kind is not None and (mirrored := _mirrored(kind, message, data)) is not None:
        return mirrored
    service = _OF_THE_SERVICE.get(code or "") or _BY_STATUS.get(status or 0, ServiceError)
    return service(message, code, status, data, retry_after)


def _mirrored(kind: type[FaceAvatarError], message: str, data: Mapping[str, Any]) -> FaceAvatarError | None:
    """The engine's error anew; None where the answer lacks what that class is made from."""
    parts: Mapping[type[FaceAvatarError], tuple[str, ...]] = {
        InvalidRequest: ("field", "got", "allowed"),
        OverBudget: ("field", "got", "allowed", "needed", "budget"),
        NumericalError: ("stage", "step"),
        OutOfMemory: ("what", "needed"),
        DeadlineExceeded: ("stage", "seconds", "step"),
        MissingExtra: ("extra", "package"),
    }
    names = parts.get(kind)
    if names is None:
        return kind(message)
    return kind(*(data[name] for name in names)) if all(name in data for name in names) else None
