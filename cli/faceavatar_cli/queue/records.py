"""The tasks' records in the result store: what each change of a task is called, and what comes of it.

Knows Redis and the scripts, not Celery and not engines. Every method is one or two round trips and blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from faceavatar_cli.http.contract import Status
from faceavatar_cli.http.tasks import TaskRecord
from faceavatar_cli.queue import scripts
from faceavatar_cli.queue.settings import QueueSettings

Claim = Literal["claimed", "gone", "busy", "ended"]
Taken = Literal["taken", "full", "enough"]
Going = Literal["on", "cancel", "lost"]

# A message has to be sent within so long after a task was taken in, its photo stored: else a sweep sends it.
SENDING_SECONDS = 60.0
# A task that waits although its message was sent is rung for again after so long: a broker can lose one.
AGAIN_SECONDS = 600.0
# ... and after so long where the broker holds no message at all.
LOST_SECONDS = 10.0
LOST_WORKER = "worker_lost"


@dataclass(frozen=True)
class NewTask:
    """What is known of a task when it is taken in.

    record: its first record. names: of its pictures to be, one for each. work: what the worker needs, JSON.
    webhook: whom to tell when it has ended, JSON, or None. priority: 0..9, 9 first. photo: whether one is
    about to lie in the output store. most: how many of its token may wait or run at once.
    """

    record: TaskRecord
    names: tuple[str, ...]
    work: Mapping[str, Any]
    webhook: Mapping[str, Any] | None
    priority: int
    photo: bool
    most: int = 64


@dataclass(frozen=True)
class Running:
    """A task that is drawn: by whom, and whether that worker has been silent for too long."""

    id: str
    owner: str
    silent: bool


@dataclass(frozen=True)
class Error:
    """Why a task failed: a stable code, and its detail, `message` among it."""

    code: str
    data: Mapping[str, Any]


class Records:
    """The records of one queue."""

    def __init__(self, client: Redis, settings: QueueSettings) -> None:
        self._client: Any = client  # redis-py types each answer as all that it may be
        self._settings = settings
        self._prefix = settings.prefix

    def submit(self, task: NewTask) -> Taken:
        """Take a task in, unless as many wait as may, or as many of its token."""
        fixed = {
            "id": task.record.id,
            "app_id": task.record.app_id,
            "ref_id": task.record.ref_id,
            "token": task.record.token,
            "input": dict(task.record.input),
            "names": list(task.names),
        }
        word: Taken = self._run(
            scripts.SUBMIT,
            task.record.id,
            self._settings.limit,
            task.priority,
            _ms(SENDING_SECONDS),
            int(task.photo),
            "" if task.webhook is None else json.dumps(task.webhook),
            json.dumps(fixed),
            json.dumps(task.work),
            task.record.token,
            task.most,
        ).decode()
        return word

    def record(self, task_id: str) -> TaskRecord | None:
        """How a task stands, and its place in the queue."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._task(task_id))
            pipe.zrank(self._key("queued"), task_id)
            fields, position = pipe.execute()
        return _record(fields, position) if fields else None

    def priority(self, task_id: str) -> int:
        """0..9, 9 first."""
        return int(self._field(task_id, "priority") or 0)

    def names(self, task_id: str) -> tuple[str, ...]:
        """What a task's pictures are or would be called."""
        fixed = self._field(task_id, "fixed")
        return () if fixed is None else tuple(json.loads(fixed)["names"])

    def seen(self, task_id: str) -> tuple[int, tuple[bytes, ...]]:
        """How many times previews came, and the newest of them, as JPEG."""
        with self._client.pipeline() as pipe:
            pipe.hget(self._task(task_id), "seen")
            pipe.lrange(self._key("previews", task_id), 0, -1)
            times, previews = pipe.execute()
        return int(times or 0), tuple(previews)

    def claim(self, task_id: str, owner: str) -> tuple[Claim, dict[str, Any]]:
        """Take a waiting task for oneself; what is to be done, where it was."""
        lease = _ms(self._settings.lease_seconds)
        word, *work = self._run(scripts.CLAIM, task_id, owner, lease)
        return word.decode(), json.loads(work[0]) if work else {}

    def beat(self, task_id: str, owner: str) -> Going:
        """Say that its worker lives, and hear whether to go on."""
        return self._beat(task_id, owner)

    def step(self, task_id: str, owner: str, done: int, total: int, previews: Sequence[bytes] = ()) -> Going:
        """Tell how far a task is, with previews (JPEG) where there are any; and as `beat`."""
        return self._beat(task_id, owner, done, total, *previews)

    def complete(
        self, task_id: str, owner: str, outputs: Sequence[str], warnings: Sequence[str] = ()
    ) -> bool:
        """End a task with its pictures; False where it was no longer this owner's."""
        return self._end(task_id, owner, "completed", outputs, warnings=warnings)

    def fail(self, task_id: str, owner: str, error: Error) -> bool:
        """End a task with an error; False where it was no longer this owner's."""
        return self._end(task_id, owner, "failed", error=error)

    def cancelled(self, task_id: str, owner: str) -> bool:
        """End a task as its caller asked for; False where it was no longer this owner's."""
        return self._end(task_id, owner, "cancelled")

    def cancel(self, task_id: str) -> TaskRecord | None:
        """End a waiting task, tell a running one to; its record then, or None for an unknown one."""
        self._run(scripts.CANCEL, task_id, self._keep)
        return self.record(task_id)

    def release(self, task_id: str, owner: str) -> bool:
        """Put a task back in its old place; False where it was no longer this owner's."""
        return bool(self._run(scripts.RELEASE, task_id, owner))

    def reclaim(self, running: Running) -> str:
        """Take a task from a dead worker: "queued", "failed" after too many attempts, or "moved on"."""
        attempts = self._settings.attempts
        error = {"message": f"{attempts} workers died while they drew it; it is not tried again"}
        answer = self._run(
            scripts.RECLAIM,
            running.id,
            running.owner,
            attempts,
            LOST_WORKER,
            json.dumps(error),
            self._keep,
        )
        return str(answer.decode())

    def running(self) -> list[Running]:
        """All that is drawn now."""
        found = self._run(scripts.RUNNING, "")
        return [Running(task.decode(), owner.decode(), bool(silent)) for task, owner, silent in found]

    def due_bells(self, broker_is_empty: bool = False) -> list[str]:
        """Tasks for which a message has to be sent; nobody else is told them for the next seconds."""
        earlier = AGAIN_SECONDS - LOST_SECONDS if broker_is_empty else 0
        return self._ids(scripts.DUE_BELLS, "", _ms(earlier), _ms(LOST_SECONDS))

    def rung(self, task_id: str) -> None:
        """Its message was sent."""
        self._run(scripts.RUNG, task_id, _ms(AGAIN_SECONDS))

    def forgettable(self) -> list[str]:
        """Ended tasks whose time is over."""
        return self._ids(scripts.DUE, "", "ended")

    def forget(self, task_id: str) -> None:
        """Remove all of a task."""
        self._run(scripts.FORGET, task_id)

    def photos(self) -> list[str]:
        """Tasks whose photo lies in the output store although nobody needs it any more."""
        kept = [name.decode() for name in self._client.smembers(self._key("photos"))]
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in kept:
                pipe.hget(self._task(task_id), "status")
            states = pipe.execute()
        return [
            task for task, state in zip(kept, states, strict=True) if state not in (b"queued", b"running")
        ]

    def photo_gone(self, task_id: str) -> None:
        """Its photo was removed."""
        self._client.srem(self._key("photos"), task_id)

    def alive(self, worker: str, seconds: float) -> int:
        """Say that a worker lives ("" for none), for so long; how many do."""
        return int(self._run(scripts.ALIVE, worker, _ms(seconds)))

    def due_webhooks(self, again_seconds: float) -> list[tuple[TaskRecord, dict[str, Any]]]:
        """Ended tasks whose caller has to be told, and what SUBMIT was told of that."""
        found = []
        for task_id in self._ids(scripts.DUE_WEBHOOKS, "", _ms(again_seconds)):
            record, webhook = self.record(task_id), self._field(task_id, "webhook")
            if record is None or webhook is None:
                self.told(task_id)
            else:
                found.append((record, json.loads(webhook)))
        return found

    def told(self, task_id: str) -> None:
        """Its caller was told, or cannot be."""
        self._client.zrem(self._key("webhooks"), task_id)

    def waiting(self) -> int:
        """How many tasks wait."""
        return int(self._client.zcard(self._key("queued")))

    def waiting_packs(self) -> set[str]:
        """The packs of the first tasks that wait."""
        ids = self._client.zrange(self._key("queued"), 0, 99)
        with self._client.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.hget(self._task(task_id.decode()), "fixed")
            return {json.loads(fixed)["app_id"] for fixed in pipe.execute() if fixed}

    def ping(self) -> None:
        """Raises redis' own error where the store does not answer."""
        self._client.ping()

    @property
    def _keep(self) -> int:
        return _ms(self._settings.keep_seconds)

    def _beat(self, task_id: str, owner: str, *told: Any) -> Going:
        word: Going = self._run(
            scripts.BEAT, task_id, owner, _ms(self._settings.lease_seconds), *told
        ).decode()
        return word

    def _end(
        self,
        task_id: str,
        owner: str,
        status: Status,
        outputs: Sequence[str] = (),
        error: Error | None = None,
        warnings: Sequence[str] = (),
    ) -> bool:
        code, data = ("", "") if error is None else (error.code, json.dumps(error.data))
        names, said = json.dumps(list(outputs)), json.dumps(list(warnings))
        return bool(self._run(scripts.END, task_id, owner, status, names, code, data, self._keep, said))

    def _ids(self, script: str, *arguments: Any) -> list[str]:
        return [name.decode() for name in self._run(script, *arguments)]

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._client.register_script(script)(keys=[self._prefix], args=list(arguments))

    def _field(self, task_id: str, name: str) -> Any:
        return self._client.hget(self._task(task_id), name)

    def _task(self, task_id: str) -> str:
        return self._key("task", task_id)

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def _record(raw: Mapping[bytes, bytes], position: int | None) -> TaskRecord:
    fields = {name.decode(): value.decode() for name, value in raw.items()}
    fixed = json.loads(fields["fixed"])
    del fixed["names"]
    started, finished = (fields.get(name) for name in ("started", "finished"))
    return TaskRecord(
        **fixed,
        started=None if started is None else float(started),
        finished=None if finished is None else float(finished),
        status=fields["status"],  # type: ignore[arg-type]  # only our scripts write it
        created=float(fields.get("created", time.time())),
        outputs=tuple(json.loads(fields.get("outputs") or "[]")),
        warnings=tuple(json.loads(fields.get("warnings") or "[]")),
        error=fields.get("error") or None,
        error_data=json.loads(fields.get("error_data") or "null"),
        step=int(fields.get("step", 0)),
        total=int(fields.get("total", 0)),
        position=position if fields["status"] == "queued" else None,
    )


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
