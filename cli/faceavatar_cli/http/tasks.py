"""A task's record and the seams behind the app: who runs tasks, and who keeps their pictures.

Two runners stand behind TaskRunner: the server's own, in memory and in front of its engines, and Celery's.
They are handed the same Submission, all of it JSON, and tell the same records and events.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from faceavatar_cli.http.contract import FINISHED, ImageToImage, Status


@dataclass(frozen=True)
class Submission:
    """A checked request and who asks.

    app_id is a loaded pack's name, token the name of the caller's (or "local"). base_url, without a slash at
    its end, begins the pictures' URLs in what is told to a webhook. priority: 0..9, 9 first,
    in the queue of `celery: true`. waiting: how many of the token's tasks may wait or run there at once.
    """

    request: ImageToImage
    app_id: str
    token: str
    base_url: str
    priority: int = 4
    waiting: int = 64


@dataclass(frozen=True)
class TaskRecord:
    """All that is known of a task.

    input: the request's echo. outputs: names in the OutputStore. error: a stable code; error_data: its
    detail, `message` among it. created, started, finished: seconds since the epoch. step of total are done.
    position: how many tasks run before it, None where it does not wait or that is not known. warnings: what
    the engine did otherwise than one may expect, in sentences.
    """

    id: str
    app_id: str
    ref_id: str | None
    token: str
    status: Status
    input: Mapping[str, Any]
    created: float
    outputs: tuple[str, ...] = ()
    error: str | None = None
    error_data: Mapping[str, Any] | None = None
    started: float | None = None
    finished: float | None = None
    step: int = 0
    total: int = 0
    position: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINISHED

    def seconds(self) -> float:
        """From arrival to the end, or so far."""
        return max(0.0, (time.time() if self.finished is None else self.finished) - self.created)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict, for stores and queues."""
        return asdict(self) | {"outputs": list(self.outputs), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TaskRecord:
        """What to_json gave."""
        lists = {name: tuple(fields.get(name, ())) for name in ("outputs", "warnings")}
        return cls(**{**fields, **lists})


@dataclass(frozen=True)
class TaskEvent:
    """Something happened to a task: its record then, and previews (JPEG) where they were asked for.

    The first event of a stream tells how the task stands, the last has an ended record.
    """

    record: TaskRecord
    previews: tuple[bytes, ...] = field(default=(), repr=False)


class TaskRunner(Protocol):
    """Runs tasks. All methods are called on the event loop and must not block it."""

    async def submit(self, submission: Submission) -> TaskRecord:
        """Take a task in and give its record, status queued. Raises Busy (429) where the queue is full."""
        ...

    async def record(self, task_id: str) -> TaskRecord | None:
        """How a task stands; None for one that is unknown or forgotten."""
        ...

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """Stop a task between two steps; one that has ended stays as it is. Gives its record, or None."""
        ...

    def events(self, task_id: str) -> AsyncIterator[TaskEvent]:
        """What happens to a task from now on, until it has ended. Nothing for an unknown task."""
        ...

    async def waiting(self) -> int:
        """How many tasks wait."""
        ...

    async def ready(self) -> str | None:
        """None where tasks can be run, else why not, in words."""
        ...

    async def close(self) -> None:
        """The server ends; the runner is called no more."""
        ...


class QueueRunner(TaskRunner, Protocol):
    """A TaskRunner whose tasks outlive it, and may end while another server runs."""

    async def tell_ended(self, tell: Callable[[TaskRecord, str, str], Awaitable[object]]) -> None:
        """Call tell(record, webhook, base_url) for each ended task whose caller wants that, until cancelled.

        Once for each task among all servers, but again where a server died over it.
        """
        ...


class OutputStore(Protocol):
    """Keeps finished pictures under names that cannot be guessed. Methods block: they run in threads."""

    def put(self, task_id: str, index: int, png: bytes) -> str:
        """Keep picture `index` of a task; gives its name, [A-Za-z0-9_-]{32,64}.png, all random."""
        ...

    def open(self, name: str) -> bytes | None:
        """The picture of that name; None for one that is not there, whatever the name looks like."""
        ...

    def expire(self, seconds: float) -> int:
        """Remove pictures older than that, and say how many."""
        ...
