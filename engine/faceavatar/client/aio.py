"""AsyncAvatarClient, which awaits; AvatarClient in sync.py makes the same trips."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, Unpack

from faceavatar.client import wire
from faceavatar.client.connection import Connection, check_time, further, id_of, read, within
from faceavatar.client.errors import ServiceError
from faceavatar.client.library import httpx2
from faceavatar.client.patience import Patience
from faceavatar.client.results import Avatars, Task
from faceavatar.client.wire import Answered, Asked, Call, Trip
from faceavatar.image import ImageSource

Done = TypeVar("Done")
OnStep = Callable[[Task], Awaitable[object] | object]


class AsyncAvatarClient:
    """Asks a faceavatar service for avatars. Close it, or use it in `async with`; a loop's tasks share it.

    url: where the service is. token: the Bearer token, None for a service that asks for none. timeout:
    seconds that one `generate` may take. patience: when calls are made again. transport: httpx's own seam,
    for tests and proxies.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        timeout: float = 300.0,
        patience: Patience | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._to = Connection(url, token, timeout, patience or Patience())
        self._http = httpx2.AsyncClient(transport=transport)

    async def generate(
        self,
        image: ImageSource,
        *,
        ref_id: str | None = None,
        webhook: str | None = None,
        **asked: Unpack[Asked],
    ) -> Avatars:
        """Make avatars and wait for them, in one request.

        image: a URL, which the server fetches, or what is uploaded: a path, encoded bytes, a data URI, a PIL
        image, or a uint8 (H, W, 3) RGB array. asked: the fields of AvatarRequest.
        Raises the engine's errors (InvalidRequest, NoFaceFound, ...) and ServiceError.
        """
        return await self._travel(wire.generate(image, further(ref_id, webhook), **asked))

    async def submit(
        self,
        image: ImageSource,
        *,
        ref_id: str | None = None,
        webhook: str | None = None,
        **asked: Unpack[Asked],
    ) -> Task:
        """Queue a request as `generate` takes it, and come back at once. Raises as generate."""
        return await self._travel(wire.submit(image, further(ref_id, webhook), **asked))

    async def task(self, task: Task | str) -> Task:
        """How a task stands. Raises TaskNotFound and other ServiceErrors."""
        return await self._travel(wire.look_up(id_of(task)))

    async def cancel(self, task: Task | str) -> Task:
        """Stop a task between two steps; one that has ended stays as it is. Raises as task."""
        return await self._travel(wire.cancel(id_of(task)))

    async def wait(
        self, task: Task | str, on_step: OnStep | None = None, timeout: float | None = None
    ) -> Avatars:
        """Wait for a task and give its pictures; on_step, plain or async, is handed a Task at each step.

        A connection that breaks is taken up again. timeout: seconds, None for no end; after them TimedOut is
        raised and the task goes on. Raises what the task failed with, TaskCancelled, and ServiceErrors.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        async with aclosing(self._watch(id_of(task), deadline)) as seen:
            async for now in seen:
                if now.ended:
                    return await self._travel(wire.collect(now))
                if on_step is not None:
                    said = on_step(now)
                    if isinstance(said, Awaitable):
                        await said
        raise AssertionError("a watch ends with its task")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _watch(self, task_id: str, deadline: float | None) -> AsyncGenerator[Task]:
        """How the task stands, again and again until it has ended; broken connections are taken up again."""
        tried = 0
        while True:
            try:
                async with aclosing(self._events(task_id, deadline)) as events:
                    async for now in events:
                        tried = 0
                        yield now
                        if now.ended:
                            return
                raise httpx2.RemoteProtocolError("the events ended before the task")
            except (httpx2.TransportError, ServiceError) as error:
                check_time(deadline, task_id)
                tried += 1
                pause = within(self._to.pause_or_raise(error, tried, harmless=True), deadline)
            await asyncio.sleep(pause)

    async def _events(self, task_id: str, deadline: float | None) -> AsyncGenerator[Task]:
        reader = wire.EventReader()
        async with self._http.stream(
            **self._to.stream_arguments(wire.events_path(task_id), deadline)
        ) as response:
            if response.status_code != 200:
                await response.aread()
                read(response)
            async for line in response.aiter_lines():
                check_time(deadline, task_id)
                if (now := reader.feed(line)) is not None:
                    yield now

    async def _travel(self, trip: Trip[Done]) -> Done:
        try:
            call = next(trip)
            while True:
                call = trip.send(await self._send(call))
        except StopIteration as end:
            done: Done = end.value
            return done

    async def _send(self, call: Call) -> Answered:
        tried = 0
        while True:
            tried += 1
            try:
                return read(await self._http.request(**self._to.arguments(call)))
            except (httpx2.TransportError, ServiceError) as error:
                pause = self._to.pause_or_raise(error, tried, call.harmless)
            await asyncio.sleep(pause)
