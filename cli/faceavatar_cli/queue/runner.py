"""A TaskRunner that hands tasks to Celery's workers and reads the records that they write."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from redis.exceptions import RedisError

from faceavatar.image import refuse_large
from faceavatar.sources import read_remote, source_kind
from faceavatar_cli.http.problems import Busy, QueueUnavailable
from faceavatar_cli.http.tasks import Submission, TaskEvent, TaskRecord
from faceavatar_cli.http.threads import in_pool, standing_pool
from faceavatar_cli.queue.app import Bell, close_app, make_app, open_records, unreachable
from faceavatar_cli.queue.records import NewTask
from faceavatar_cli.queue.settings import QueueSettings
from faceavatar_cli.queue.stores import SharedStore, new_name, open_store
from faceavatar_cli.queue.sweep import Sweeper
from faceavatar_cli.queue.work import Photos

if TYPE_CHECKING:
    from celery import Celery

THREADS = 8
NO_PREVIEWS: tuple[bytes, ...] = ()
_POLL_SECONDS = 0.2
_ROOM_AFTER_SECONDS = 5.0
_TELL_SECONDS = 1.0
_TELL_AGAIN_SECONDS = 900.0  # longer than all tries of a delivery, and its wait for a thread
# A data URI's place in the record; the photo itself lies in the output store until the task has ended.
_STORED = "data:,"

Got = TypeVar("Got")
log = logging.getLogger(__name__)


class CeleryRunner:
    """Tasks in a Celery queue; make one with CeleryRunner.open, and close it."""

    def __init__(self, app: Celery, store: SharedStore, settings: QueueSettings, photos: Photos) -> None:
        self.store, self._app = store, app
        records, bell = open_records(app, settings), Bell(app, settings)
        self._records, self._bell, self._settings, self._photos = records, bell, settings, photos
        self._threads = standing_pool(THREADS, "queue")
        self._sweeper = Sweeper(records, bell, store)

    @classmethod
    def open(cls, settings: QueueSettings, photos: Photos | None = None) -> CeleryRunner:
        """Begins to sweep; the broker need not answer yet. Raises MissingExtra, InvalidRequest."""
        runner = cls(make_app(settings), open_store(settings.outputs), settings, photos or Photos())
        runner._sweeper.start()
        return runner

    async def close(self) -> None:
        """Tasks stay in the queue."""
        await asyncio.to_thread(self._sweeper.stop)
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        await asyncio.to_thread(close_app, self._app)

    async def submit(self, submission: Submission) -> TaskRecord:
        """Queue a task. Raises Busy, QueueUnavailable, InvalidRequest, ImageError, CannotWrite."""
        return await self._in_thread(lambda: self._submit(submission))

    async def record(self, task_id: str) -> TaskRecord | None:
        """How a task stands; None for one that is unknown or forgotten. Raises QueueUnavailable."""
        return await self._in_thread(lambda: self._records.record(task_id))

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """End a waiting task, stop a running one between two steps."""
        return await self._in_thread(lambda: self._records.cancel(task_id))

    async def events(self, task_id: str) -> AsyncIterator[TaskEvent]:
        """What happens to a task, as seen five times a second."""
        told, seen = None, 0
        while True:
            record = await self.record(task_id)
            if record is None:
                return
            times, previews = seen, NO_PREVIEWS
            if record.status == "running":
                times, previews = await self._in_thread(lambda: self._records.seen(task_id))
            if record != told or times != seen:
                yield TaskEvent(record, previews if times != seen else NO_PREVIEWS)
            if record.ended:
                return
            told, seen = record, times
            await asyncio.sleep(_POLL_SECONDS)

    async def waiting(self) -> int:
        """How many tasks wait."""
        return await self._in_thread(self._records.waiting)

    async def ready(self) -> str | None:
        """None where a worker lives and the result store answers, else what is amiss."""
        try:
            workers = await self._in_thread(lambda: self._records.alive("", 0))
        except QueueUnavailable as error:
            return str(error)
        return None if workers else "no worker is there: start one with `faceavatar worker`"

    async def tell_ended(self, tell: Callable[[TaskRecord, str, str], Awaitable[object]]) -> None:
        """Webhooks, several at once; a result store that is away for a while is waited for."""

        async def tell_one(record: TaskRecord, webhook: Mapping[str, str]) -> None:
            try:
                await tell(record, webhook["url"], webhook["base_url"])
                await self._in_thread(lambda: self._records.told(record.id))
            except QueueUnavailable as error:
                log.warning("the webhook of task %s may be told twice: %s", record.id, error)

        telling = set[asyncio.Task[None]]()
        try:
            while True:
                with suppress(QueueUnavailable):
                    due = await self._in_thread(lambda: self._records.due_webhooks(_TELL_AGAIN_SECONDS))
                    for record, webhook in due:
                        task = asyncio.create_task(tell_one(record, webhook))
                        telling.add(task)
                        task.add_done_callback(telling.discard)
                await asyncio.sleep(_TELL_SECONDS)
        finally:
            for task in telling:
                task.cancel()

    def _submit(self, submission: Submission) -> TaskRecord:
        request = submission.request
        if request.seed is None:  # drawn here, so that a task that is begun twice makes the same pictures
            request = request.model_copy(update={"seed": secrets.randbelow(2**32)})
        echo = request.echo()
        photo = None
        if source_kind(request.image) == "data":
            photo = read_remote(request.image, self._photos.rules)
            refuse_large(photo, self._photos.pixels, "the picture")
            request = request.model_copy(update={"image": _STORED})
        request.to_avatar_request(photo)
        task_id, names = uuid4().hex, tuple(new_name() for _ in range(request.batch))
        first = TaskRecord(
            task_id, submission.app_id, request.refID, submission.token, "queued", echo, created=0.0
        )
        work = {"request": request.model_dump(mode="json"), "app_id": submission.app_id, "names": names}
        webhook = None
        if request.webhook is not None:
            webhook = {"url": request.webhook, "base_url": submission.base_url}
        task = NewTask(
            first, names, work, webhook, submission.priority, photo is not None, submission.waiting
        )
        return self._take_in(task, photo)

    def _take_in(self, task: NewTask, photo: bytes | None) -> TaskRecord:
        """Record, photo, message, in this order: what is left of a crash in between is swept up."""
        task_id, taken = task.record.id, self._records.submit(task)
        if taken == "full":
            raise Busy(f"{self._settings.limit} tasks wait already, the most that may", _ROOM_AFTER_SECONDS)
        if taken == "enough":
            raise Busy(f"{task.most} tasks of yours wait or run, the most that may", _ROOM_AFTER_SECONDS)
        record = self._records.record(task_id)
        if record is None:
            raise QueueUnavailable(f"task {task_id} is gone from the result store; does it evict keys?")
        try:
            if photo is not None:
                self.store.keep_photo(task_id, photo)
            self._bell.ring(task_id, task.record.app_id, task.priority)
        except Exception:
            self._records.forget(task_id)  # its caller is told that there is no task
            raise
        self._records.rung(task_id)
        return record

    async def _in_thread(self, work: Callable[[], Got]) -> Got:
        got: Got = await in_pool(self._threads, self._guarded, work)
        return got

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except RedisError as error:
            raise unreachable("result store", self._settings.results, error) from error
