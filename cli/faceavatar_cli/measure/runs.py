"""Cases in one process: warmed up, timed several times, held to the work and to the machine's peak."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faceavatar import AvatarEngine, FaceAvatarError
from faceavatar.stopwatch import STAGES
from faceavatar_cli.measure.subject import Case, Work, draw, work_of


@dataclass(frozen=True)
class Timed:
    """One case. Seconds are medians of `runs`; FLOP/s are None where the work was not counted.

    stages: seconds of each stage, of all pictures. spread: the interquartile range over the median.
    busy: processor seconds over the wall's, which lies near the number of threads on a quiet machine.
    """

    case: Case
    runs: tuple[float, ...]
    seconds: float
    spread: float
    stages: dict[str, float]
    busy: float
    step_seconds: float
    decode_seconds: float
    work: Work | None
    step_flops: float | None
    decode_flops: float | None

    @property
    def steps_per_second(self) -> float:
        """Guidance steps of the whole batch."""
        return 1 / self.step_seconds


@dataclass(frozen=True)
class Skipped:
    """A case that the time did not suffice for, and how long it was expected to take."""

    case: Case
    seconds: float


def time_case(engine: AvatarEngine, case: Case, runs: int, work: Work | None) -> Timed:
    """One run to warm up, which the numbers leave out, then `runs`."""
    draw(engine, case, 0)
    wall, stages, begun = [], [], time.process_time()
    for number in range(1, runs + 1):
        start = time.perf_counter()
        result = draw(engine, case, number)
        wall.append(time.perf_counter() - start)
        stages.append(result.timings)
    busy = (time.process_time() - begun) / sum(wall)
    medians = {stage: statistics.median(one[stage] for one in stages) for stage in STAGES}
    step, decode = medians["denoise"] / case.steps, medians["decode"] / case.batch
    return Timed(
        case=case,
        runs=tuple(wall),
        seconds=statistics.median(wall),
        spread=_spread(wall),
        stages=medians,
        busy=busy,
        step_seconds=step,
        decode_seconds=decode,
        work=work,
        step_flops=None if work is None else work.step / step,
        decode_flops=None if work is None else work.decode / decode,
    )


def time_cases(
    engine: AvatarEngine,
    cases: Sequence[Case],
    runs: int,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Timed], list[Skipped], str | None]:
    """All cases in order, as far as the seconds suffice; at last why the work is not counted, if it is not.

    A case that is expected to go beyond them is skipped and told, and a smaller one after it still runs. The
    first one always runs.
    """
    until = time.perf_counter() + seconds
    timed: list[Timed] = []
    skipped: list[Skipped] = []
    uncounted: str | None = None
    for case in cases:
        work: Work | None = None
        try:
            work = work_of(engine.pack, case)
        except FaceAvatarError as error:
            uncounted = str(error)
        expected = _expected(timed, case, work) * (runs + 1)
        if timed and time.perf_counter() + expected > until:
            skipped.append(Skipped(case, expected))
            continue
        say(f"{case} ...")
        timed.append(time_case(engine, case, runs, work))
    return timed, skipped, uncounted


def growth(base: Timed, others: Sequence[Timed]) -> Mapping[str, float]:
    """How much more a case costs than its work says it should, held to `base`: 1 is as the work grows.

    Below 1 a larger case is the cheaper one for each operation. Only of cases whose work is counted.
    """
    if base.work is None:
        return {}
    return {
        str(one.case): (one.seconds / base.seconds) / (one.work.of(one.case) / base.work.of(base.case))
        for one in others
        if one.work is not None
    }


def _expected(timed: Sequence[Timed], case: Case, work: Work | None) -> float:
    """Seconds of one run, from the first case's by work, or by pixels and steps."""
    if not timed:
        return 0.0
    first = timed[0]
    if work is not None and first.work is not None:
        return first.seconds * max(1.0, work.of(case) / first.work.of(first.case))
    size = [one.batch * one.height * one.width * one.steps for one in (case, first.case)]
    return first.seconds * max(1.0, size[0] / size[1])


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle
