"""The progress bar on stderr: how far, and how long still. Drawn on a terminal only, never into a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from faceavatar import AvatarResult, Step

_CELLS = 24


class Bar:
    """One line that is drawn over itself; draws nothing where `shown` is false."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._width = 0

    def show(self, text: str) -> None:
        """Replaces what the line says."""
        if self._shown:
            click.echo(f"\r{text:<{self._width}}", err=True, nl=False)
            self._width = len(text)

    def clear(self) -> None:
        """Leaves an empty line behind, for whatever is printed next."""
        if self._width:
            self.show("")
            click.echo("\r", err=True, nl=False)
            self._width = 0


def wants_bar(json: bool) -> bool:
    """A bar is for people: stderr is a terminal, and the answer is not JSON."""
    return not json and sys.stderr.isatty()


def follow(steps: Iterator[Step], bar: Bar, on_step: Callable[[Step], None]) -> AvatarResult:
    """Runs the steps to the end, showing each, and gives the result that the last one carries."""
    result = None
    for step in steps:
        bar.show(describe(step))
        on_step(step)
        result = step.result
    if result is None:
        raise RuntimeError("the last step carries no result")
    return result


def describe(step: Step) -> str:
    """Such as "[############------------] 10/20 steps, 1.4 s left"."""
    done = step.index + 1
    bar = ("#" * (_CELLS * done // step.total)).ljust(_CELLS, "-")
    return f"[{bar}] {done}/{step.total} steps, {_time(step.seconds_left)} left"


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
