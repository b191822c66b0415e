"""Which cases a benchmark has: one to begin with, then batches, sizes and steps, each with the rest held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faceavatar_cli.measure.subject import Case

MOST_STEPS = 4  # of the cases, where the pack's own number is larger: a step costs what a step costs


@dataclass(frozen=True)
class Sweep:
    """What is varied. base: the case that the others differ from in one thing."""

    base: Case
    batches: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    runs: int
    fresh_runs: int
    seconds: float

    def cases(self) -> list[Case]:
        """Every case once: the base, one thing varied at a time, then batches at the other sizes."""
        base = self.base
        batches = [Case(batch, base.height, base.width, base.steps) for batch in self.batches]
        sizes = [Case(base.batch, size, size, base.steps) for size in self.sizes]
        steps = [Case(base.batch, base.height, base.width, count) for count in self.steps]
        grid = [Case(batch, size, size, base.steps) for size in self.sizes for batch in self.batches]
        return list(dict.fromkeys([base, *batches, *sizes, *steps, *grid]))


def full_sweep(
    default_steps: int,
    steps: int | None = None,
    batches: Sequence[int] = (1, 2, 4, 8),
    sizes: Sequence[int] = (256, 512, 768, 1024),
    runs: int = 5,
    minutes: float = 15.0,
) -> Sweep:
    """Batches 1 to 8, sizes 256 to 1024, steps up to four times the base's."""
    count = steps or min(default_steps, MOST_STEPS)
    several = tuple(sorted({1, max(1, count // 2), count, min(50, 2 * count), min(50, 4 * count)}))
    base = Case(min(batches), _middle(sizes), _middle(sizes), count)
    return Sweep(base, tuple(batches), tuple(sizes), several, runs, 3, 60 * minutes)


def quick_sweep(
    default_steps: int,
    steps: int | None = None,
    batches: Sequence[int] = (1, 8),
    sizes: Sequence[int] = (256, 512),
    runs: int = 3,
    minutes: float = 0.5,
) -> Sweep:
    """Its ends alone, half a minute of them; with the fresh process and the peak it is a minute."""
    count = steps or min(default_steps, MOST_STEPS)
    base = Case(min(batches), _middle(sizes), _middle(sizes), count)
    return Sweep(base, tuple(batches), tuple(sizes), tuple(sorted({1, count})), runs, 1, 60 * minutes)


def _middle(sizes: Sequence[int]) -> int:
    """512, where it is among them."""
    return 512 if 512 in sizes else min(sizes)
