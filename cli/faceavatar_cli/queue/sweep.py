"""What was left lying: tasks of dead workers, messages not sent or lost, photos, old pictures.

Every worker and every server sweeps; each change is one step in the result store, so that they may do it at
the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from redis.exceptions import RedisError

from faceavatar_cli.http.problems import QueueUnavailable
from faceavatar_cli.queue.app import Bell
from faceavatar_cli.queue.owner import surely_dead
from faceavatar_cli.queue.records import Records
from faceavatar_cli.queue.stores import SharedStore

EVERY_SECONDS = 1.0
ALIVE_SECONDS = 20.0  # how long a worker counts as alive after it has said so
_SAY_SECONDS = 5.0  # each time is a write to the broker's disk
_TIDY_SECONDS = 10.0

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps in a thread of its own from start() to stop()."""

    def __init__(self, records: Records, bell: Bell, store: SharedStore, worker: str = "") -> None:
        """worker: under which name it counts as a living worker; "" for a server."""
        self._records, self._bell, self._store, self._worker = records, bell, store, worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._tidied = self._said = float("-inf")

    def start(self) -> None:
        """Begins at once."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the sweep that is going on is over."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """One round. Raises redis' errors and QueueUnavailable."""
        now = time.monotonic()
        if self._worker and now - self._said > _SAY_SECONDS:
            self._said = now
            self._records.alive(self._worker, ALIVE_SECONDS)
        self._take_from_the_dead()
        self._ring(self._records.due_bells())
        if now - self._tidied > _TIDY_SECONDS:
            self._tidied = now
            self._ring_for_lost_messages()
            self._tidy()

    def _run(self) -> None:
        quiet = False
        while not self._stop.is_set():
            try:
                self.sweep()
                quiet = False
            except (RedisError, QueueUnavailable, OSError) as error:
                if not quiet:
                    log.warning("the queue cannot be swept: %s", error)
                quiet = True
            except Exception:
                log.exception("a fault in the sweeper")
            self._stop.wait(EVERY_SECONDS)

    def _take_from_the_dead(self) -> None:
        for running in self._records.running():
            if running.silent or surely_dead(running.owner):
                outcome = self._records.reclaim(running)
                if outcome != "moved on":
                    log.warning("the worker of task %s died: %s", running.id, outcome)

    def _ring(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            record, priority = self._records.record(task_id), self._records.priority(task_id)
            if record is not None and record.status == "queued":
                self._bell.ring(task_id, record.app_id, priority)
                self._records.rung(task_id)

    def _ring_for_lost_messages(self) -> None:
        packs = self._records.waiting_packs()
        if packs and self._bell.silent(packs):
            self._ring(self._records.due_bells(broker_is_empty=True))

    def _tidy(self) -> None:
        for task_id in self._records.photos():
            self._try("photo", self._store.drop_photo, task_id)
            self._records.photo_gone(task_id)
        for task_id in self._records.forgettable():
            for name in self._records.names(task_id):
                self._try("picture", self._store.drop, name)
            self._records.forget(task_id)

    def _try(self, what: str, remove: Any, name: str) -> None:
        try:
            remove(name)
        except Exception as error:
            log.warning("a %s could not be removed: %s", what, type(error).__name__)
            raise
