"""What watches over one run while it works: its deadline, its caller's wish to stop, and what was done anew.

A Watch is worn by the thread that works, from stage to stage; whoever is about to run a graph asks it first.
So no stage hands it on to the next, and none can forget it. Knows no stage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from faceavatar.errors import DeadlineExceeded, InvalidRequest

Item = TypeVar("Item")


@dataclass(frozen=True)
class Rerun:
    """A graph that gave NaN or infinite values in `precision`, and finite ones in fp32. step: 0-based."""

    stage: str
    precision: str
    step: int | None = None


class Watch:
    """One run's. timeout: seconds from now, None for no end. check: called before each piece of work; what
    it raises ends the run.

    Raises InvalidRequest for a timeout that is no number above 0.
    """

    def __init__(self, timeout: float | None = None, check: Callable[[], object] | None = None) -> None:
        if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
            raise InvalidRequest("timeout", timeout, "seconds above 0, or None for no end")
        self.timeout = timeout
        self._end = math.inf if timeout is None else time.monotonic() + timeout
        self._check = check
        self._reruns: list[Rerun] = []

    @property
    def seconds_left(self) -> float:
        """Until the deadline; infinite without one."""
        return self._end - time.monotonic()

    def ask(self, stage: str) -> None:
        """Whether `stage` may begin. Raises DeadlineExceeded, and what the caller's check raises."""
        if self._check is not None:
            self._check()
        if self.timeout is not None and self.seconds_left <= 0:
            raise DeadlineExceeded(stage, self.timeout, _step.get())

    def note(self, rerun: Rerun) -> None:
        """Remember it for the result's warnings."""
        self._reruns.append(rerun)

    def take(self) -> list[Rerun]:
        """What was noted since the last time."""
        taken, self._reruns = self._reruns, []
        return taken

    @contextmanager
    def worn(self) -> Iterator[None]:
        """This thread works under this watch inside the with block."""
        before = _worn.set(self)
        try:
            yield
        finally:
            _worn.reset(before)

    def over(self, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items on; the watch is worn while one is made, and not by whoever takes it."""
        try:
            while True:
                with self.worn():
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()


class _Idle(Watch):
    def note(self, rerun: Rerun) -> None:
        pass


_worn: ContextVar[Watch | None] = ContextVar("worn", default=None)
_step: ContextVar[int | None] = ContextVar("step", default=None)


def current() -> Watch:
    """The watch that this thread works under, or one that stops nothing and forgets."""
    return _worn.get() or _Idle()


@contextmanager
def at_step(index: int) -> Iterator[None]:
    """What goes wrong inside the with block went wrong at this step, counted from 0."""
    before = _step.set(index)
    try:
        yield
    finally:
        _step.reset(before)


def current_step() -> int | None:
    """The step of the loop that this thread is at, or None outside of it."""
    return _step.get()


def with_reruns(make: Callable[[], Item]) -> tuple[Item, tuple[Rerun, ...]]:
    """What make() gives, and what it noted, which is not noted with the watch worn here."""
    watch = current()
    before = watch.take()
    try:
        made = make()
        return made, tuple(watch.take())
    finally:
        for rerun in before:
            watch.note(rerun)


def told(reruns: list[Rerun]) -> list[str]:
    """A sentence for each stage that was run again."""
    kinds = list(dict.fromkeys((one.stage, one.precision) for one in reruns))
    sentences = []
    for stage, precision in kinds:
        steps = {one.step for one in reruns if (one.stage, one.precision) == (stage, precision)}
        numbers = ", ".join(str(step) for step in sorted(step for step in steps if step is not None))
        where = f" at step{'s' if ',' in numbers else ''} {numbers}" if numbers else ""
        sentences.append(
            f"{stage} gave NaN or infinite values in {precision}{where}, and was run again in fp32 there"
        )
    return sentences
