"""The server's own TaskRunner: tasks in memory, in front of the engines of this process."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping

from faceavatar import AvatarEngine
from faceavatar_cli.http.job import Job
from faceavatar_cli.http.lane import Lane, Workshop
from faceavatar_cli.http.problems import Busy, Interrupted, problem_of
from faceavatar_cli.http.settings import Limits
from faceavatar_cli.http.tasks import Submission, TaskEvent, TaskRecord

REMEMBERED = 10_000  # ended tasks, at most


class LocalRunner:
    """A TaskRunner. limits: what a token may do. told: hears of each submission that has ended."""

    def __init__(
        self,
        engines: Mapping[str, AvatarEngine],
        shop: Workshop,
        limits: Callable[[str], Limits],
        told: Callable[[Submission, TaskRecord], None],
    ) -> None:
        self._shop, self._limits, self._told = shop, limits, told
        self._lanes = {name: Lane(engine, shop, self._on_end) for name, engine in engines.items()}
        self._jobs: dict[str, Job] = {}
        self._open: Counter[str] = Counter()  # tasks that have not ended, by token
        self._bytes = 0  # of the requests of those

    async def submit(self, submission: Submission) -> TaskRecord:
        """Take a task in. Raises Busy where the queue is full, for all or for this token."""
        self._forget()
        lane, size = self._lanes[submission.app_id], len(submission.request.image)
        self._check_room(submission.token, lane, size)
        record = TaskRecord(
            id=uuid.uuid4().hex,
            app_id=submission.app_id,
            ref_id=submission.request.refID,
            token=submission.token,
            status="queued",
            input=submission.request.echo(),
            created=time.time(),
        )
        job = Job(submission, record, asyncio.get_running_loop().create_future())
        self._jobs[record.id] = job
        self._open[submission.token] += 1
        self._bytes += size
        lane.add(job)
        job.change(position=lane.position(job))
        return job.record

    async def record(self, task_id: str) -> TaskRecord | None:
        """How it stands, its place in the queue as of now."""
        job = self._jobs.get(task_id)
        if job is None:
            return None
        if job.record.status == "queued":
            job.change(position=self._lanes[job.record.app_id].position(job))
        return job.record

    async def wait(self, task_id: str) -> TaskRecord:
        """The record of a task once it has ended."""
        return await asyncio.shield(self._jobs[task_id].done)

    async def cancel(self, task_id: str) -> TaskRecord | None:
        """Stop it: out of the queue at once, out of a run at its next step if it runs alone."""
        job = self._jobs.get(task_id)
        if job is None:
            return None
        if not job.record.ended:
            job.change(status="cancelled", finished=time.time(), position=None)
            self._on_end(job)
            self._lanes[job.record.app_id].drop(job)
        return job.record

    async def events(self, task_id: str) -> AsyncGenerator[TaskEvent, None]:
        """From how it stands now to its end."""
        job = self._jobs.get(task_id)
        if job is None:
            return
        heard: asyncio.Queue[TaskEvent] = asyncio.Queue()
        job.listeners.add(heard)
        try:
            record = await self.record(task_id)
            while not heard.empty():  # what record() itself has told
                heard.get_nowait()
            event = TaskEvent(record or job.record)
            yield event
            while not event.record.ended:
                event = await heard.get()
                yield event
        finally:
            job.listeners.discard(heard)

    async def waiting(self) -> int:
        """In all lanes."""
        return sum(lane.waiting() for lane in self._lanes.values())

    async def ready(self) -> str | None:
        """Always."""
        return None

    async def close(self) -> None:
        """Ends what has not ended, as interrupted."""
        problem = problem_of(Interrupted("the server was stopped before the task was done; send it again"))
        for job in list(self._jobs.values()):
            if not job.record.ended:
                job.change(status="failed", error=problem.code, error_data=problem.data, finished=time.time())
        for lane in self._lanes.values():
            await lane.close()
        await asyncio.to_thread(self._shop.close)

    def _check_room(self, token: str, lane: Lane, size: int) -> None:
        settings, limits = self._shop.settings, self._limits(token)
        waiting = sum(one.waiting() for one in self._lanes.values())
        if waiting >= settings.queue or self._bytes + size > settings.waiting_bytes:
            raise Busy("the queue is full; wait as Retry-After says", lane.run_seconds)
        if self._open[token] >= limits.waiting:
            raise Busy(
                f"{limits.waiting} tasks of this token are not done yet; wait as Retry-After says",
                lane.run_seconds,
            )

    def _on_end(self, job: Job) -> None:
        token = job.submission.token
        self._open[token] -= 1
        if not self._open[token]:
            del self._open[token]
        self._bytes -= len(job.submission.request.image)
        record, metrics = job.record, self._shop.metrics
        metrics.ended(record.app_id, record.status, len(record.outputs))
        if record.error is not None:
            metrics.failed(record.error)
        self._told(job.submission, record)

    def _forget(self) -> None:
        """Ended tasks, the oldest first, once they are old or too many."""
        before = time.time() - self._shop.settings.keep_seconds
        for task_id, job in list(self._jobs.items()):
            finished = job.record.finished
            if finished is None:
                continue
            if finished >= before and len(self._jobs) < REMEMBERED:
                break
            del self._jobs[task_id]
