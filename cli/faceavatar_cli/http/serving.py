"""One run of `faceavatar serve`: settings out of flags, the socket, the queue, and then uvicorn."""

from __future__ import annotations

import asyncio
import copy
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from faceavatar.budget import read_budget
from faceavatar.errors import InvalidRequest, MissingExtra
from faceavatar.sources import Rules
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.callers import is_loopback
from faceavatar_cli.http.connections import TimedHeads
from faceavatar_cli.http.settings import MEGABYTE, Limits, Settings, Token
from faceavatar_cli.http.tasks import OutputStore, QueueRunner
from faceavatar_cli.http.threads import standing_pool
from faceavatar_cli.http.tokens import VARIABLE, read_file, read_variable
from faceavatar_cli.running import Running

WEBHOOK_VARIABLE = "FACEAVATAR_WEBHOOK_SECRET"
DRAIN_SECONDS = 20  # that requests under way may take when the server is told to stop
HELPERS = 8  # threads that read pictures from the disk, and long bodies
_WEAKEST_WEBHOOK_SECRET = 16


@dataclass(frozen=True)
class Queueing:
    """Where tasks of `celery: true` go: a broker's URLs, the embedded one in a state folder, or memory."""

    broker: str | None = field(repr=False)
    results: str | None = field(repr=False)
    state: Path
    outputs: str | None
    memory: bool


@dataclass(frozen=True)
class Serving:
    """Where to listen, the app's settings, and the queue."""

    host: str
    port: int
    settings: Settings
    queueing: Queueing

    @classmethod
    def of_flags(cls, flags: Mapping[str, Any], environment: Mapping[str, str]) -> Serving:
        """Raises InvalidRequest, before anything is opened."""
        limits = Limits(per_minute=flags["per_minute"], body=flags["body"] * MEGABYTE)
        tokens = _tokens(flags["tokens"], environment.get(VARIABLE, ""), limits)
        if not tokens and not is_loopback(flags["host"]):
            raise InvalidRequest(
                "--host",
                flags["host"],
                f"127.0.0.1 or the like while there are no tokens; give --tokens or {VARIABLE}",
            )
        secret = environment.get(WEBHOOK_VARIABLE) or None
        if secret is not None and len(secret) < _WEAKEST_WEBHOOK_SECRET:
            raise InvalidRequest(
                WEBHOOK_VARIABLE, "a short one", f"{_WEAKEST_WEBHOOK_SECRET} characters or more"
            )
        queueing = _queueing(flags, environment)
        settings = Settings(
            packs=flags["packs"] or ("toon",),
            provider=flags["provider"],
            threads=flags["threads"],
            precision=flags["precision"],
            engines=flags["engines"],
            tokens=tokens,
            limits=limits,
            inline=flags["inline"],
            public_url=flags["public_url"],
            outputs=Path(queueing.outputs or queueing.state / "outputs"),
            keep_seconds=flags["keep"],
            queue=flags["waiting"],
            together=flags["together"],
            gather_seconds=flags["gather"] / 1000,
            timeout=flags["timeout"],
            memory_budget=_budget(flags["memory_budget"]),
            tiling=flags["tiling"],
            allowed_hosts=frozenset(host.lower() for host in flags["hosts"]),
            webhook_secret=secret,
        )
        return cls(flags["host"], flags["port"], settings, queueing)

    def run(self, say: Callable[[str], object]) -> None:
        """Serves until it is told to stop. Raises InvalidRequest, MissingExtra, QueueUnavailable."""
        # uvicorn ends by raising the signal that stopped it once more: unheard, it would end this process
        # before the queue beneath it was closed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with self._listening() as door, self._queue(say) as (queue, store):
            app = create_app(self.settings, store=store, queue=queue)
            host, port = door.getsockname()[:2]
            say(f"faceavatar serves on http://{f'[{host}]' if ':' in host else host}:{port}")
            if not self.settings.tokens:
                say("no tokens are configured: only programs on this machine may call")
            config = uvicorn.Config(
                app,
                http=TimedHeads,
                ws="none",
                log_config=_logging(),
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.get_loop().set_default_executor(standing_pool(HELPERS, "help"))
                runner.run(uvicorn.Server(config).serve(sockets=[door]))

    @contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            door = socket.socket(family, kind, protocol)
        except OSError as error:
            raise InvalidRequest("--host", self.host, f"an address of this machine ({error})") from error
        with door:
            try:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                door.bind(address)
            except OSError as error:
                raise InvalidRequest(
                    "--port", self.port, f"a port that is free on {self.host} ({error.strerror})"
                ) from error
            yield door

    @contextmanager
    def _queue(self, say: Callable[[str], object]) -> Iterator[tuple[QueueRunner | None, OutputStore | None]]:
        """The queue's runner and its store; neither where tasks are queued in memory."""
        queueing = self.queueing
        if queueing.memory:
            say("tasks are queued in memory: those that are not done are lost when the server ends")
            yield None, None
            return
        try:
            from faceavatar_cli.queue.local import LocalQueue, WorkerOptions
            from faceavatar_cli.queue.runner import CeleryRunner
            from faceavatar_cli.queue.settings import queue_settings
            from faceavatar_cli.queue.work import Photos
        except ModuleNotFoundError as error:
            raise MissingExtra("queue", error.name or "celery") from error
        settings = self.settings
        photos = Photos(
            Rules(settings.allowed_hosts, settings.image_bytes, settings.fetch_seconds),
            settings.image_pixels,
        )
        limits = {"keep_seconds": settings.keep_seconds, "limit": settings.queue}
        if queueing.broker is not None:
            if queueing.outputs is None:
                raise InvalidRequest("--outputs", None, "a folder or fsspec URL that the workers reach too")
            reached = queue_settings(queueing.broker, queueing.outputs, queueing.results, **limits)
            runner = CeleryRunner.open(reached, photos)
            say(f"queue: {reached.told()}; start workers with `faceavatar worker`")
            yield runner, runner.store
            return
        flags = [part for host in sorted(settings.allowed_hosts) for part in ("--allow-host", host)]
        flags += Running(
            precision=settings.precision,
            engines=settings.engines,
            memory_budget=settings.memory_budget,
            tiling=settings.tiling,
        ).flags()
        options = WorkerOptions(settings.packs, settings.provider, settings.threads, flags)
        local = LocalQueue.start(queueing.state, options, queueing.outputs, **limits)
        try:
            say(f"queue: an embedded broker and a worker, kept in {queueing.state}")
            runner = CeleryRunner.open(local.settings, photos)
            yield runner, runner.store
        finally:
            local.stop()


def _logging() -> dict[str, Any]:
    """uvicorn's own, but all of it on stderr, and this package's warnings with it."""
    made: dict[str, Any] = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    made["handlers"]["access"]["stream"] = "ext://sys.stderr"
    made["loggers"]["faceavatar_cli"] = {"handlers": ["default"], "level": "WARNING", "propagate": False}
    return made


def _budget(words: str | None) -> str | None:
    """The words, once they can be read: before a pack is opened. Raises InvalidRequest."""
    try:
        read_budget(words)
    except InvalidRequest as error:
        raise InvalidRequest("--memory-budget", error.got, error.allowed) from None
    return words


def _tokens(path: Path | None, variable: str, limits: Limits) -> tuple[Token, ...]:
    found = () if path is None else read_file(path, limits)
    found += read_variable(variable, limits)
    names = [token.name for token in found]
    if len(set(names)) < len(names):
        raise InvalidRequest(
            "--tokens", "a name twice", f"each name once, in the file and {VARIABLE} together"
        )
    return found


def _queueing(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Queueing:
    broker = flags["broker"] or environment.get("FACEAVATAR_BROKER") or None
    if flags["no_queue"] and flags["broker"]:
        raise InvalidRequest("--no-queue", "--broker beside it", "one of the two")
    state = flags["state"] or environment.get("FACEAVATAR_STATE")
    if state is None:
        from faceavatar_cli.queue.local import default_state

        state = default_state()
    return Queueing(
        broker=broker,
        results=flags["results"] or environment.get("FACEAVATAR_RESULTS") or None,
        state=Path(state),
        outputs=flags["outputs"] or environment.get("FACEAVATAR_OUTPUTS") or None,
        memory=flags["no_queue"],
    )
