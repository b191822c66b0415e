"""A task on its way through this process: its record now, who listens, and what was made of it so far."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from faceavatar.drawing import Prepared
from faceavatar_cli.http.tasks import Submission, TaskEvent, TaskRecord


@dataclass(eq=False)
class Job:
    """Lives on the event loop; only `stopped` is read by the engine's thread."""

    submission: Submission
    record: TaskRecord
    done: asyncio.Future[TaskRecord]
    photo: bytes | None = field(default=None, repr=False)  # fetched, and not yet prepared
    prepared: Prepared | None = None
    number: int = field(default_factory=count().__next__)  # of its arrival
    listeners: set[asyncio.Queue[TaskEvent]] = field(default_factory=set)

    @property
    def caller(self) -> str:
        """Whose turn it takes."""
        return self.submission.token

    @property
    def pictures(self) -> int:
        """How many it draws at once, as far as that is known: best_of has them drawn in rounds."""
        return self.submission.request.batch if self.prepared is None else self.prepared.pictures

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.record.ended

    def change(self, previews: Sequence[bytes] = (), **changes: Any) -> None:
        """A new record, told to all that listen; an ended one changes no more."""
        if self.record.ended:
            return
        self.record = replace(self.record, **changes)
        event = TaskEvent(self.record, tuple(previews))
        for listener in self.listeners:
            listener.put_nowait(event)
        if self.record.ended:
            self.photo = self.prepared = None
            if not self.done.done():
                self.done.set_result(self.record)
