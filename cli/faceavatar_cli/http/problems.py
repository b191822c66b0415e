"""What can go wrong in the service, and the one table of error codes and HTTP statuses.

The engine's errors come through as they are, with their own codes; those here are the service's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faceavatar.errors import (
    DeadlineExceeded,
    FaceAvatarError,
    InvalidRequest,
    MissingExtra,
    NumericalError,
    OutOfMemory,
    OverBudget,
    UrlRefused,
)
from faceavatar_cli.exits import CannotWrite

# HTTP status -> the error codes that are answered with it.
STATUSES: Mapping[int, tuple[str, ...]] = {
    400: ("unreadable_body",),
    401: ("unauthorized",),
    403: ("forbidden",),
    404: ("not_found", "task_not_found", "pack_not_found", "output_not_found"),
    405: ("method_not_allowed",),
    408: ("body_too_slow",),
    409: ("cancelled",),
    413: ("body_too_large",),
    415: ("unsupported_media_type",),
    422: (
        "invalid_request",
        "over_budget",
        "unreadable_image",
        "url_refused",
        "no_face",
        "missing_graph",  # the packs were opened whole at the start: the pack cannot do what is asked
    ),
    429: ("rate_limited", "queue_full"),
    500: (
        "internal",
        "error",
        "pack_error",
        "pack_invalid",
        "hash_mismatch",
        "signature_mismatch",
        "engine_stale",
        "missing_extra",
        "numerical_error",
        "cannot_write",
        "usage",
        "worker_lost",
        "time_limit",
        "out_of_memory",
    ),
    503: ("not_ready", "provider_unavailable", "queue_unavailable", "interrupted", "state_in_use"),
    504: ("timeout",),
}
# The engine's own words name the address that a name led to: a stranger could map a network by them.
REFUSED_URL = (
    "this URL is not fetched: only http and https, without a user name or password, and only from public "
    "addresses, redirects included; upload the picture instead, or have the server allow the host by name"
)
# Where the server keeps its pictures is told in its log only.
NOT_KEPT = "the server's store is full or out of reach; nothing could be kept: send the request again later"
STATUS_OF: Mapping[str, int] = {code: status for status, codes in STATUSES.items() for code in codes}


class ServiceError(FaceAvatarError):
    """Base of what the service itself answers with; `more` goes into error_data beside the message."""

    code = "internal"

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more

    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the answer."""
        return {}


class Unauthorized(ServiceError):
    """No token, or none that is known; which of the two is not told."""

    code = "unauthorized"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ServiceError):
    """This caller may not call here at all."""

    code = "forbidden"


class UnreadableBody(ServiceError):
    """The body is not the JSON object or the form that its content type promises."""

    code = "unreadable_body"


class BodyTooLarge(ServiceError):
    """More bytes than are taken."""

    code = "body_too_large"


class BodyTooSlow(ServiceError):
    """It did not arrive in time."""

    code = "body_too_slow"


class UnsupportedMediaType(ServiceError):
    """Neither JSON nor a form."""

    code = "unsupported_media_type"


class TaskNotFound(ServiceError):
    """No such task, or not this caller's, or forgotten by now; which of them is not told."""

    code = "task_not_found"


class OutputNotFound(ServiceError):
    """No such picture, or no longer."""

    code = "output_not_found"


class Cancelled(ServiceError):
    """The task was cancelled while its caller waited for it."""

    code = "cancelled"


class NotReady(ServiceError):
    """The engine is still being loaded, or the server is going down."""

    code = "not_ready"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class Interrupted(ServiceError):
    """The server stopped before the task was done."""

    code = "interrupted"


class Busy(ServiceError):
    """Too much at once; `after` seconds from now there may be room."""

    code = "queue_full"

    def __init__(self, message: str, after: float, **more: Any) -> None:
        super().__init__(message, **more)
        self.after = after

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(max(1, round(self.after + 0.5)))}


class RateLimited(Busy):
    """More requests than this token may send in its time."""

    code = "rate_limited"


class QueueUnavailable(ServiceError):
    """The broker behind `celery: true` does not answer."""

    code = "queue_unavailable"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


@dataclass(frozen=True)
class Problem:
    """An error as an answer tells it: a code, its detail, an HTTP status and headers."""

    code: str
    data: Mapping[str, Any]
    status: int
    headers: Mapping[str, str]


def problem_of(error: BaseException) -> Problem:
    """The answer to an error; one that nobody raised on purpose is told as `internal`, without its words."""
    if isinstance(error, MemoryError):
        error = OutOfMemory("the server has none left for this request")
    if not isinstance(error, FaceAvatarError):
        return Problem("internal", {"message": "a fault of the server; its log says more"}, 500, {})
    data: dict[str, Any] = {"message": _told(error)}
    headers: Mapping[str, str] = {}
    if isinstance(error, InvalidRequest):
        data |= {"field": error.field, "got": _plain(error.got), "allowed": error.allowed}
    if isinstance(error, OverBudget):
        data |= {"needed": error.needed, "budget": error.budget}
    if isinstance(error, OutOfMemory):
        data |= {"what": error.what, "needed": error.needed}
    if isinstance(error, DeadlineExceeded):
        data |= {"stage": error.stage, "seconds": error.seconds, "step": error.step}
    if isinstance(error, NumericalError):
        data |= {"stage": error.stage, "step": error.step}
    if isinstance(error, MissingExtra):
        data |= {"extra": error.extra, "package": error.package}
    if isinstance(error, ServiceError):
        data |= error.more
        headers = error.headers()
    return Problem(error.code, data, STATUS_OF.get(error.code, 500), headers)


def _told(error: FaceAvatarError) -> str:
    if isinstance(error, UrlRefused):
        return REFUSED_URL
    return NOT_KEPT if isinstance(error, CannotWrite) else str(error)


def _plain(value: object) -> object:
    """A value as it may stand in JSON, cut short."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
