"""The queue of one machine without any set-up: an embedded broker and a worker, beneath the server.

Both end with the server, however it ends, and are started again where they end by themselves. What is queued
lies in the state folder and goes on when the next server takes it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from faceavatar.errors import FaceAvatarError
from faceavatar_cli.queue.embedded import EmbeddedBroker, socket_of, start_beneath
from faceavatar_cli.queue.settings import QueueSettings, queue_settings

_LOOK_SECONDS = 0.25
_WORKER_STOP_SECONDS = 15.0
_LONGEST_PAUSE = 10.0  # seconds: a start that fails costs little, and whoever waits waits that long twice
_STEADY_SECONDS = 60.0

log = logging.getLogger(__name__)


class StateInUse(FaceAvatarError):
    """Another server uses this state folder."""

    code = "state_in_use"


@dataclass(frozen=True)
class WorkerOptions:
    """How the worker is started: packs, provider, threads, and further flags of `faceavatar worker`."""

    packs: Sequence[str] = ("toon",)
    provider: str = "auto"
    threads: int | None = None
    flags: Sequence[str] = ()

    def command(self, settings: QueueSettings) -> list[str]:
        """The worker's command line; URLs go through the environment, where nobody else sees them."""
        packs = [part for pack in self.packs for part in ("--pack", pack)]
        threads = [] if self.threads is None else ["--threads", str(self.threads)]
        limits = ["--keep", str(settings.keep_seconds), "--attempts", str(settings.attempts)]
        limits += ["--task-seconds", str(settings.task_seconds)]
        start = [sys.executable, "-m", "faceavatar_cli", "worker"]
        return [*start, *packs, "--provider", self.provider, *threads, *limits, *self.flags]


def default_state() -> Path:
    """The user's folder for what programs keep."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "faceavatar"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "faceavatar"


def local_settings(state: Path, outputs: str | None = None, **limits: float) -> QueueSettings:
    """The settings of the queue in a state folder; outputs None: kept there too."""
    socket = socket_of(_broker_folder(state))
    place = str(state.absolute() / "outputs") if outputs is None else outputs
    return queue_settings(f"redis+socket://{socket}", place, None, **limits)


class LocalQueue:
    """An embedded broker and a worker that run; make one with LocalQueue.start, and stop it."""

    def __init__(self, state: Path, settings: QueueSettings, options: WorkerOptions, lock: IO[str]) -> None:
        self.settings = settings
        self._options, self._lock = options, lock
        self._broker = EmbeddedBroker(_broker_folder(state))
        self._worker: subprocess.Popen[bytes] | None = None
        self._stop, self._up = threading.Event(), threading.Event()
        self._failure: Exception | None = None
        # One thread starts both and lives as long as they do: the kernel ends them with this very thread.
        self._thread = threading.Thread(target=self._run, name="local queue", daemon=True)

    @classmethod
    def start(
        cls,
        state: Path,
        options: WorkerOptions | None = None,
        outputs: str | None = None,
        **limits: float,
    ) -> LocalQueue:
        """Returns once the broker answers; the worker comes up by itself.

        Raises StateInUse, QueueUnavailable, MissingExtra.
        """
        state = state.expanduser().absolute()
        lock = _hold(state)
        queue = cls(state, local_settings(state, outputs, **limits), options or WorkerOptions(), lock)
        queue._thread.start()
        queue._up.wait()
        if queue._failure is not None:
            lock.close()
            raise queue._failure
        return queue

    @property
    def pids(self) -> tuple[int | None, int | None]:
        """The process ids of broker and worker, None for one that is not there just now."""
        broker, worker = self._broker.pid, self._worker
        return broker, None if worker is None else worker.pid

    def stop(self) -> None:
        """End both; a task that is drawn is put back between two steps."""
        self._stop.set()
        self._thread.join()
        self._lock.close()

    def _run(self) -> None:
        try:
            self._broker.start()
        except Exception as error:
            self._failure = error
            return
        finally:
            self._up.set()
        try:
            self._watch()
        finally:
            self._end_worker()
            self._broker.stop()

    def _watch(self) -> None:
        """Keeps both running; what ends again and again is started more and more slowly."""
        pause, started = 0.0, time.monotonic()
        self._start_worker()
        while not self._stop.wait(_LOOK_SECONDS):
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = 0.0
            if self._broker.running() and self._worker is not None and self._worker.poll() is None:
                continue
            if self._stop.wait(pause):
                return
            pause, started = min(_LONGEST_PAUSE, 2 * pause + 0.5), time.monotonic()
            try:
                self._restart()
            except FaceAvatarError as error:
                log.warning("%s; it is tried again in %.0f s", error, pause)
            except Exception:
                log.exception("broker and worker do not come up; it is tried again in %.0f s", pause)

    def _restart(self) -> None:
        if not self._broker.running():
            log.warning("the embedded broker ended; it is started again")
            self._broker.start()
        if self._worker is None or (code := self._worker.poll()) is not None:
            log.warning("the worker ended (%s); it is started again", code)
            self._start_worker()

    def _start_worker(self) -> None:
        environment = os.environ | {
            "FACEAVATAR_BROKER": self.settings.broker,
            "FACEAVATAR_RESULTS": self.settings.results,
            "FACEAVATAR_OUTPUTS": self.settings.outputs,
        }
        self._worker = start_beneath(self._options.command(self.settings), env=environment)

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.terminate()
        try:
            worker.wait(_WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _broker_folder(state: Path) -> Path:
    return state.expanduser().absolute() / "broker"


def _hold(state: Path) -> IO[str]:
    """The lock on a state folder, held until it is closed. Raises StateInUse."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StateInUse(
            f"{state}: another server uses this state folder; stop it, or choose another with --state"
        ) from error
    return lock
