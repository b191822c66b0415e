"""The Celery task, and the worker process around it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from faceavatar.errors import FaceAvatarError
from faceavatar_cli.queue.app import TASK, Bell, make_app, open_records, queue_of
from faceavatar_cli.queue.settings import QueueSettings
from faceavatar_cli.queue.stores import open_store
from faceavatar_cli.queue.sweep import Sweeper
from faceavatar_cli.queue.work import Engines, Photos, Worker

if TYPE_CHECKING:
    from celery import Celery


def register(app: Celery, worker: Worker) -> None:
    """Gives the app its one task: the argument is a task's id, all else is in its record."""
    from celery import states
    from celery.exceptions import Ignore

    @app.task(name=TASK, bind=True, throws=(FaceAvatarError,))
    def draw(self: Any, task_id: str) -> dict[str, str]:
        """Celery's own result tells how the task ended; a message that found nothing to do leaves none."""
        outcome = worker.hear(task_id)
        if outcome == "cancelled":
            self.update_state(state=states.REVOKED)
        if outcome != "completed":
            raise Ignore
        return {"status": outcome}


def run_worker(settings: QueueSettings, engines: Engines, photos: Photos, pool: str = "solo") -> int:
    """Draws tasks until it is told to stop; gives the exit code.

    pool: "solo" draws in this process; "prefork" in one child, which is replaced when it crashes.
    """
    from celery import signals
    from celery.worker import state

    app = make_app(settings)
    records, store = open_records(app, settings), open_store(settings.outputs)
    worker = Worker(
        records,
        store,
        engines,
        settings.lease_seconds,
        settings.task_seconds,
        photos,
        stopping=lambda: state.should_stop is not None or state.should_terminate is not None,
    )
    register(app, worker)
    name = f"{os.getpid()}@{socket.gethostname()}"
    sweeper = Sweeper(records, Bell(app, settings), store, name)
    # After the fork of prefork's child, which must not inherit a thread's locks.
    ready: Callable[..., None] = lambda **_: sweeper.start()  # noqa: E731
    signals.worker_ready.connect(ready, weak=False)
    process = app.Worker(
        hostname=f"faceavatar-{name}",
        pool=pool,
        concurrency=1,
        queues=[queue_of(pack) for pack in engines.packs],
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    try:
        process.start()
    finally:
        sweeper.stop()
    return int(process.exitcode or 0)
