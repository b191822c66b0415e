"""The Celery task, and the worker process around it."""

from __future__ import annotations

import os
import socket
import warnings
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
    from celery.worker import state

    app = make_app(settings)
    records, store = open_records(app, settings), open_store(settings.outputs)
    lease, most = settings.lease_seconds, settings.task_seconds

    def stopping() -> bool:
        return state.should_stop is not None or state.should_terminate is not None

    register(app, Worker(records, store, engines, lease, most, photos, stopping))
    name = f"{os.getpid()}@{socket.gethostname()}"
    sweeper = Sweeper(records, Bell(app, settings), store, name)
    try:
        return _serve_queues(app, name, [queue_of(pack) for pack in engines.packs], pool, sweeper.start)
    finally:
        sweeper.stop()


def _serve_queues(app: Celery, name: str, queues: list[str], pool: str, ready: Callable[[], None]) -> int:
    """Celery's worker from its start to its end. ready: called once, after prefork's child was forked.

    That child must not inherit threads' locks.
    """
    from celery import signals

    # Of root and pickle: there is no pickle here, and join.py tells of root in one line.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    told: list[str] = []
    signals.worker_ready.connect(lambda **_: ready(), weak=False)
    signals.worker_shutting_down.connect(lambda how, **_: told.append(how), weak=False)
    worker = app.Worker(
        hostname=f"faceavatar-{name}",
        pool=pool,
        concurrency=1,
        queues=queues,
        loglevel="INFO",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return 0 if told == ["Warm"] else int(worker.exitcode or 0)  # Celery calls the first Ctrl-C a failure
