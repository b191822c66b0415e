"""The service behind the routes: engines, runners, store, tokens; opened and closed with the app.

Knows what a task's life is; knows no HTTP but the URLs that pictures have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from faceavatar import AvatarEngine, InvalidRequest, PackNotFound
from faceavatar_cli.http.answers import answer_of, outputs_of
from faceavatar_cli.http.contract import Answer, ImageToImage
from faceavatar_cli.http.local import LocalRunner
from faceavatar_cli.http.metrics import Metrics
from faceavatar_cli.http.problems import NotReady, TaskNotFound
from faceavatar_cli.http.rates import Rates
from faceavatar_cli.http.settings import Limits, Settings, Token
from faceavatar_cli.http.steadily import steadily
from faceavatar_cli.http.store import FolderStore
from faceavatar_cli.http.tasks import OutputStore, QueueRunner, Submission, TaskRecord, TaskRunner
from faceavatar_cli.http.tokens import Keyring
from faceavatar_cli.http.webhook import Teller
from faceavatar_cli.http.workshop import Workshop
from faceavatar_cli.running import Running

SWEEP_SECONDS = 600.0
_log = logging.getLogger(__name__)


class Service:
    """All of a server's state. queue: who runs tasks of `celery: true`; None: this process, in memory."""

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, AvatarEngine] | None,
        store: OutputStore | None,
        queue: QueueRunner | None,
    ) -> None:
        self.settings, self._given, self._queue = settings, engines, queue
        self.store: OutputStore = store or FolderStore(settings.outputs)
        self.keyring, self.rates, self.metrics = Keyring(settings.tokens), Rates(), Metrics()
        self._limits = {token.name: token.limits for token in settings.tokens}
        secret = settings.webhook_secret
        self._teller = None if secret is None else Teller(secret, settings.allowed_hosts)
        self._engines: Mapping[str, AvatarEngine] = {}
        self._local: LocalRunner | None = None
        self._failed: str | None = None
        self._work: list[asyncio.Task[None]] = []
        self._telling: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to load the packs; requests are refused as not_ready until that is done."""
        if self._given is not None:
            self._take(self._given)
        else:
            self._work.append(asyncio.create_task(self._load()))
        self._work.append(asyncio.create_task(steadily("the removal of old pictures", self._sweep)))
        if self._queue is not None and self._teller is not None:
            telling = partial(self._queue.tell_ended, self._deliver)
            self._work.append(asyncio.create_task(steadily("the telling of webhooks", telling)))

    async def close(self) -> None:
        """Stop; tasks in memory end as interrupted."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._local is not None:
            await self._local.close()
        if self._queue is not None:
            await self._queue.close()
        await asyncio.gather(*self._telling, return_exceptions=True)
        if self._teller is not None:
            self._teller.close()

    async def not_ready(self) -> str | None:
        """Why no task can be run now, or None."""
        if self._failed is not None:
            return self._failed
        if self._local is None:
            return "the packs are being loaded"
        return None if self._queue is None else await self._queue.ready()

    @property
    def app_ids(self) -> tuple[str, ...]:
        """Of the packs that are loaded, the default first."""
        return tuple(self._engines)

    def check(self, asked: ImageToImage, token: Token) -> str:
        """The pack's name for a request. Raises PackNotFound, InvalidRequest, NotReady."""
        if self._local is None:
            raise NotReady(self._failed or "the packs are being loaded; try again in a moment")
        name = asked.app_id if asked.app_id is not None else next(iter(self._engines))
        if name not in self._engines:
            raise PackNotFound(
                f"app_id: no pack {name[:80]!r} is loaded here, only {', '.join(self._engines)}"
            )
        pixels, most = asked.drawn * asked.height * asked.width, token.limits.pixels
        if pixels > most:
            raise InvalidRequest("batch", f"{asked.drawn} of {asked.width}x{asked.height}", f"{most} pixels")
        if asked.webhook is not None and self._teller is None:
            raise InvalidRequest("webhook", "a URL", "null: this server has no secret to sign webhooks with")
        return name

    async def submit(self, asked: ImageToImage, app_id: str, token: Token, base_url: str) -> TaskRecord:
        """Take a checked request in: to the queue if it asks for that, else to this process."""
        limits = token.limits
        submission = Submission(asked, app_id, token.name, base_url, limits.priority, limits.waiting)
        runner = self._queue if asked.celery and self._queue is not None else self._runner
        return await runner.submit(submission)

    async def wait(self, task_id: str) -> TaskRecord:
        """The record of a task of this process, once it has ended."""
        return await self._runner.wait(task_id)

    async def find(self, task_id: str, token: Token) -> tuple[TaskRunner, TaskRecord]:
        """A token's own task and who runs it. Raises TaskNotFound."""
        for runner in (self._local, self._queue):
            record = None if runner is None else await runner.record(task_id)
            if runner is not None and record is not None and record.token == token.name:
                return runner, record
        raise TaskNotFound("there is no such task of yours; tasks are forgotten some time after their end")

    async def waiting(self) -> dict[str, int]:
        """How many tasks wait, by queue."""
        counts = {} if self._local is None else {"local": await self._local.waiting()}
        return counts if self._queue is None else counts | {"celery": await self._queue.waiting()}

    async def answer(self, record: TaskRecord, base_url: str) -> Answer:
        """A task's eight fields."""
        return answer_of(record, await self.outputs(record, base_url))

    async def outputs(self, record: TaskRecord, base_url: str) -> list[str]:
        """Its pictures: URLs, or data URIs where the server is set to inline."""
        return await outputs_of(record, base_url, self.store if self.settings.inline else None)

    @property
    def _runner(self) -> LocalRunner:
        if self._local is None:
            raise NotReady("the packs are being loaded; try again in a moment")
        return self._local

    async def _load(self) -> None:
        settings, engines = self.settings, dict[str, AvatarEngine]()
        try:
            for pack in settings.packs:
                engine = await asyncio.to_thread(_opened, pack, settings)
                engines[engine.pack.name] = engine
        except Exception as error:
            _log.exception("a pack could not be loaded")
            self._failed = f"a pack could not be loaded: {error}"
            return
        self._take(engines)

    def _take(self, engines: Mapping[str, AvatarEngine]) -> None:
        shop = Workshop.open(self.settings, self.store, self.metrics)
        self._engines = engines
        self._local = LocalRunner(engines, shop, self._limits_of, self._on_end)

    def _limits_of(self, token: str) -> Limits:
        return self._limits.get(token, self.settings.limits)

    def _on_end(self, submission: Submission, record: TaskRecord) -> None:
        url = submission.request.webhook
        if url is not None and self._teller is not None:
            task = asyncio.create_task(self._tell(self._teller, url, submission, record))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, teller: Teller, url: str, submission: Submission, record: TaskRecord) -> None:
        teller.tell(url, await self.answer(record, submission.base_url))

    async def _deliver(self, record: TaskRecord, url: str, base_url: str) -> None:
        """Tell of a task of the queue; returns once it is told or cannot be."""
        if self._teller is not None:
            await self._teller.delivered(url, await self.answer(record, base_url))

    async def _sweep(self) -> None:
        """Old pictures go."""
        while True:
            with suppress(OSError):
                await asyncio.to_thread(self.store.expire, self.settings.keep_seconds)
            await asyncio.sleep(SWEEP_SECONDS)


def _opened(pack: str, settings: Settings) -> AvatarEngine:
    """A pack with all of its graphs open: a server is ready when nothing is left to fail."""
    running = Running(
        *(settings.provider, settings.threads, settings.precision, settings.engines),
        *(settings.memory_budget, settings.tiling),
    )
    return running.load(pack).wait_until_open()
