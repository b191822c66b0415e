"""One engine and the jobs in front of it: fetched, prepared in turn, joined where they fit, and drawn.

All of it lives on the event loop but for work in threads: fetching pictures, preparing (face and words),
drawing, and encoding, which the next run does not wait for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from faceavatar import AvatarEngine, AvatarResult, FaceAvatarError, Step
from faceavatar.drawing import Prepared
from faceavatar.image import encode_lossy, encode_png, refuse_large
from faceavatar.sources import read_remote, shown, source_kind
from faceavatar_cli.http.fair import FairQueue
from faceavatar_cli.http.job import Job
from faceavatar_cli.http.problems import problem_of
from faceavatar_cli.http.steadily import steadily
from faceavatar_cli.http.threads import in_pool, standing_pool
from faceavatar_cli.http.workshop import Workshop

FETCHERS_A_CALLER = 4  # a caller with slow URLs leaves threads for others
PREPARERS = 2
PNG_EFFORT = 4  # on few cores encoding takes its time from drawing
AHEAD = 16  # so many stand prepared at least; what more come wait as small as they came
_OWN_STAGES = ("load_image", "detect", "embed", "text", "decode", "matting")
_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Nobody waits any more for what is being made."""


class Lane:
    """An engine's jobs. `ended` is called with each job once it has ended."""

    def __init__(self, engine: AvatarEngine, shop: Workshop, ended: Callable[[Job], None]) -> None:
        self._engine, self._shop, self._ended = engine, shop, ended
        self._name = engine.pack.name
        self._coming: set[Job] = set()  # being fetched
        self._fetched: FairQueue[Job] = FairQueue()
        self._ready: FairQueue[Job] = FairQueue()
        self._preparing: set[Job] = set()
        self._to_prepare, self._to_draw = asyncio.Event(), asyncio.Event()
        self._fetching: dict[str, asyncio.Semaphore] = {}
        self._preparers = standing_pool(PREPARERS, "prepare")
        self._hand = standing_pool(1, "draw")
        self._tasks: set[asyncio.Task[None]] = set()
        self.run_seconds = 1.0  # of the last run
        for _ in range(PREPARERS):
            self._start(steadily(f"preparing for {self._name}", self._prepare_all))
        self._start(steadily(f"drawing with {self._name}", self._draw_all))

    def add(self, job: Job) -> None:
        """Take a job in."""
        if source_kind(job.submission.request.image) == "url":
            self._coming.add(job)
            self._start(self._fetch(job))
        else:
            self._fetched.put(job.caller, job, _arrival)
            self._to_prepare.set()

    def drop(self, job: Job) -> None:
        """Out of every line; a run that it is in goes on for its company only."""
        self._coming.discard(job)
        if self._fetched.remove(job.caller, job) or self._ready.remove(job.caller, job):
            self._moved()

    def position(self, job: Job) -> int | None:
        """How many are served before it, as things stand; None where it is served already."""
        if job.record.status != "queued":
            return None
        place = self._ready.position(job.caller, job)
        if place is not None:
            return place
        if job in self._preparing:
            return len(self._ready) + sum(other.number < job.number for other in self._preparing)
        before = len(self._ready) + len(self._preparing)
        place = self._fetched.position(job.caller, job)
        if place is not None:
            return before + place
        return before + len(self._fetched) if job in self._coming else 0

    def waiting(self) -> int:
        """How many wait."""
        return len(self._ready) + len(self._fetched) + len(self._coming) + len(self._preparing)

    async def close(self) -> None:
        """Stop all work; jobs that have not ended stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._preparers, self._hand):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, job: Job) -> None:
        limit = self._fetching.setdefault(job.caller, asyncio.Semaphore(FETCHERS_A_CALLER))
        async with limit:
            if job.stopped:
                return
            start, url = time.perf_counter(), job.submission.request.image
            try:
                job.photo = await in_pool(self._shop.fetchers, read_remote, url, self._shop.rules)
            except Exception as error:
                self._fail(job, error)
                return
            finally:
                self._coming.discard(job)
                self._shop.metrics.stage(self._name, "fetch", time.perf_counter() - start)
        if not job.stopped:
            self._fetched.put(job.caller, job, _arrival)
            self._to_prepare.set()

    async def _prepare_all(self) -> None:
        """Prepares whoever's turn it is, as long as not too many stand prepared."""
        while True:
            ahead = max(AHEAD, 2 * self._shop.settings.together)
            job = self._fetched.take() if len(self._ready) < ahead else None
            if job is None:
                self._to_prepare.clear()
                await self._to_prepare.wait()
                continue
            self._preparing.add(job)
            try:
                prepared = await in_pool(self._preparers, self._prepare, job)
                if not job.stopped:
                    job.photo, job.prepared = None, prepared
                    self._ready.put(job.caller, job, _arrival)
                    self._to_draw.set()
            except Exception as error:
                self._fail(job, error)
            finally:
                self._preparing.discard(job)

    def _prepare(self, job: Job) -> Prepared:
        """In a thread: bytes, the face in them, the words."""
        request, settings = job.submission.request, self._shop.settings
        photo = job.photo
        if photo is None:
            photo = read_remote(request.image, self._shop.rules)
        refuse_large(photo, settings.image_pixels, shown(request.image))
        return self._engine.prepare(
            request.to_avatar_request(photo), timeout=settings.timeout, check=partial(_go_on, [job])
        )

    async def _draw_all(self) -> None:
        while True:
            first = self._ready.take()
            if first is None:
                self._to_draw.clear()
                await self._to_draw.wait()
                continue
            taken = [first]
            try:
                await self._gather(taken)
                self._to_prepare.set()
                self._moved()
                jobs = [job for job in taken if not job.stopped]
                if jobs:
                    await self._draw(jobs)
            except Exception as error:  # in here, since what is drawn has its own: nobody may wait for ever
                for job in taken:
                    self._fail(job, error)
                raise

    async def _gather(self, jobs: list[Job]) -> None:
        """Those that can be drawn together with the first; waits a few milliseconds for more."""
        pictures = jobs[0].pictures
        deadline = time.monotonic() + self._shop.settings.gather_seconds
        while pictures < self._shop.settings.together:
            mate = self._ready.take(partial(self._fit, jobs, self._shop.settings.together - pictures))
            if mate is not None:
                jobs.append(mate)
                pictures += mate.pictures
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._to_draw.clear()
            try:
                await asyncio.wait_for(self._to_draw.wait(), left)
            except TimeoutError:
                break

    def _fit(self, jobs: Sequence[Job], room: int, other: Job) -> bool:
        """Whether it can join these: of their kind, and within the engine's memory budget."""
        if not _alike(jobs[0], room, other):
            return False
        return self._engine.fits([job.prepared for job in (*jobs, other) if job.prepared is not None])

    async def _draw(self, jobs: Sequence[Job]) -> None:
        prepared = [job.prepared for job in jobs if job.prepared is not None]
        now = time.time()
        for job in jobs:
            self._shop.metrics.stage(self._name, "queue", now - job.record.created)
            job.change(status="running", started=now, position=None)
        start = time.perf_counter()
        try:
            results = await in_pool(self._hand, self._run, jobs, prepared, asyncio.get_running_loop())
        except Exception as error:
            if len(jobs) == 1:
                self._fail(jobs[0], error)
            else:  # whose fault it was is not known: each by itself
                for job in jobs:
                    if not job.stopped:
                        await self._draw([job])
            return
        self.run_seconds = time.perf_counter() - start
        if results:
            self._count(jobs, results)
        for job, result in zip(jobs, results, strict=False):
            self._start(self._finish(job, result))

    def _run(
        self, jobs: Sequence[Job], prepared: Sequence[Prepared], loop: asyncio.AbstractEventLoop
    ) -> tuple[AvatarResult, ...]:
        """In the engine's thread: the results, or none where nobody waits any more."""
        limit, check = self._shop.settings.timeout, partial(_go_on, jobs)
        try:
            for steps in self._engine.stream_together(prepared, timeout=limit, check=check):
                previews = [_previews(job, step) for job, step in zip(jobs, steps, strict=True)]
                loop.call_soon_threadsafe(_tell, jobs, steps, previews)
        except Abandoned:
            return ()
        return tuple(step.result for step in steps if step.result is not None)

    def _count(self, jobs: Sequence[Job], results: Sequence[AvatarResult]) -> None:
        metrics, pictures = self._shop.metrics, sum(job.pictures for job in jobs)
        steps = results[0].request.num_inference_steps or 0
        metrics.drawn(self._name, len(jobs), pictures, steps, results[0].timings)
        for result in results:
            for stage in _OWN_STAGES:
                if result.timings.get(stage):
                    metrics.stage(self._name, stage, result.timings[stage])

    async def _finish(self, job: Job, result: AvatarResult) -> None:
        """Encodes and keeps the pictures."""
        start = time.perf_counter()
        try:
            names = await in_pool(self._shop.encoders, self._keep, job, result)
        except Exception as error:
            self._fail(job, error)
            return
        self._shop.metrics.stage(self._name, "encode", time.perf_counter() - start)
        if job.stopped:
            return
        told = {**job.record.input, "seed": result.request.seed}
        job.change(
            status="completed", outputs=names, finished=time.time(), input=told, warnings=result.warnings
        )
        self._ended(job)

    def _keep(self, job: Job, result: AvatarResult) -> tuple[str, ...]:
        names = []
        for index, image in enumerate(result.images):
            if job.stopped:
                break
            png = encode_png(image, result.metadata(index), PNG_EFFORT)
            names.append(self._shop.store.put(job.record.id, index, png))
        return tuple(names)

    def _fail(self, job: Job, error: Exception) -> None:
        if job.stopped:
            return
        problem = problem_of(error)
        if problem.status >= 500:
            trace = None if isinstance(error, FaceAvatarError) else error
            _log.error("task %s failed: %s", job.record.id, error, exc_info=trace)
        job.change(
            status="failed", error=problem.code, error_data=problem.data, finished=time.time(), position=None
        )
        self._ended(job)
        self._moved()

    def _moved(self) -> None:
        """The lines have moved: those who listen hear their new places."""
        for line in (self._ready, self._fetched):
            for job in line:
                if job.listeners:
                    job.change(position=self.position(job))


def _go_on(jobs: Sequence[Job]) -> None:
    """Between two pieces of work: raises Abandoned where nobody waits any more."""
    if all(job.stopped for job in jobs):
        raise Abandoned


def _arrival(job: Job) -> int:
    return job.number


def _alike(first: Job, room: int, other: Job) -> bool:
    a, b = first.prepared, other.prepared
    return a is not None and b is not None and other.pictures <= room and a.key == b.key


def _tell(jobs: Sequence[Job], steps: Sequence[Step], previews: Sequence[Sequence[bytes]]) -> None:
    for job, step, seen in zip(jobs, steps, previews, strict=True):
        job.change(seen, step=step.index + 1, total=step.total)


def _previews(job: Job, step: Step) -> tuple[bytes, ...]:
    """Encoded here, in the engine's thread, so that they come in order; nobody listening, none are made."""
    if not job.listeners or step.preview is None:
        return ()
    return tuple(encode_lossy(image, "jpeg") for image in step.preview)
