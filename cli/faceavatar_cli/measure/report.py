"""What a benchmark found, as one JSON object and as tables for people."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from faceavatar.stopwatch import STAGES
from faceavatar_cli.measure.fresh import Fresh
from faceavatar_cli.measure.machine import Machine
from faceavatar_cli.measure.peak import peak_of
from faceavatar_cli.measure.runs import Skipped, Timed, growth

SCHEMA_VERSION = 1
_COLUMNS = {
    "s": 9,
    "±": 6,
    "a picture": 10,
    "steps/s": 9,
    "GFLOP/s": 9,
    "share": 7,
    "decode": 8,
    "growth": 8,
}


@dataclass(frozen=True)
class Report:
    """One benchmark. precisions: of the graphs, by role. peaks: FLOP/s of matrix products in the same run.

    load_before: the machine's load average when it began. missing: sentences about what is not there.
    """

    machine: Machine
    when: str
    version: str
    pack: str
    pack_version: str
    provider: str
    precisions: dict[str, str]
    threads: int
    load_before: float | None
    peaks: dict[str, float]
    fresh: Fresh | None
    cases: tuple[Timed, ...]
    skipped: tuple[Skipped, ...]
    missing: tuple[str, ...]

    @property
    def subject(self) -> dict[str, str | int]:
        """What has to be the same for two runs to be compared."""
        return {
            "pack": self.pack,
            "provider": self.provider,
            "precision": self.precisions["unet"],
            "threads": self.threads,
        }

    def share(self, flops: float | None, role: str) -> float | None:
        """FLOP/s of a graph as a share of the peak at its precision; None where either is not known."""
        peak = peak_of(self.peaks, self.precisions[role])
        return None if flops is None or peak is None else flops / peak

    def numbers(self) -> dict[str, float]:
        """What is kept and compared: seconds, and MB of memory, by name."""
        found: dict[str, float | None] = {}
        if self.fresh is not None:
            found = {
                "import": self.fresh.import_seconds,
                "load": self.fresh.load_seconds,
                "start to first picture": self.fresh.to_first_picture,
                "second picture": self.fresh.second_picture,
                "peak memory MB": self.fresh.peak_memory_mb,
            }
        found |= {str(one.case): one.seconds for one in self.cases}
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain values; seconds, FLOP/s, and shares of 1."""
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: value for name, value in asdict(self).items() if name not in {"machine", "cases"}},
            "machine": {**asdict(self.machine), "key": self.machine.key},
            "cases": [self._case(one) for one in self.cases],
            "growth": dict(growth(self.cases[0], self.cases[1:])),
            "numbers": self.numbers(),
        }

    def _case(self, one: Timed) -> dict[str, Any]:
        return {
            **asdict(one),
            "steps_per_second": one.steps_per_second,
            "step_share": self.share(one.step_flops, "unet"),
            "decode_share": self.share(one.decode_flops, "vae_decoder"),
        }


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def table(report: Report) -> Iterator[str]:
    """The report in lines for people."""
    how = f"{report.provider}, {_precisions(report.precisions)}, {report.threads} threads"
    yield f"{report.pack} {report.pack_version} on {how}"
    yield str(report.machine)
    if report.load_before is not None and report.load_before > 0.5:
        yield f"the machine was busy before (load {report.load_before:.1f}): compare these numbers with care"
    if report.peaks:
        peaks = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in report.peaks.items())
        yield f"matrix products, GFLOP/s: {peaks}"
    if report.fresh is not None:
        yield ""
        yield from _fresh(report.fresh)
    if report.cases:
        yield ""
        yield from _stages(report.cases[0])
        yield ""
        yield from _cases(report)
    for one in report.skipped:
        yield f"skipped: {one.case} would take {one.seconds:.0f} s; --minutes gives more time"
    for sentence in report.missing:
        yield f"missing: {sentence}"


def _precisions(precisions: Mapping[str, str]) -> str:
    kinds = sorted(set(precisions.values()))
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{role} {kind}" for role, kind in precisions.items())


def _fresh(fresh: Fresh) -> Iterator[str]:
    yield f"a fresh process (median of {fresh.runs})"
    rows: Sequence[tuple[str, float | None, str]] = (
        ("import", fresh.import_seconds, "s"),
        ("load", fresh.load_seconds, "s"),
        ("first picture", fresh.first_picture, "s"),
        ("second picture", fresh.second_picture, "s"),
        ("start to first picture", fresh.to_first_picture, "s"),
        ("peak memory", fresh.peak_memory_mb, "MB"),
    )
    for name, value, unit in rows:
        if value is not None:
            yield f"  {name:<24}{value:10.{0 if unit == 'MB' else 3}f} {unit}"


def _stages(timed: Timed) -> Iterator[str]:
    yield f"stages of {timed.case}"
    for stage in STAGES:
        seconds = timed.stages[stage]
        if seconds:
            yield f"  {stage:<24}{seconds:10.4f} s  {seconds / timed.seconds:6.1%}"


def _cases(report: Report) -> Iterator[str]:
    grown = growth(report.cases[0], report.cases[1:])
    yield " " * 32 + "".join(f"{name:>{width}}" for name, width in _COLUMNS.items())
    for one in report.cases:
        share = report.share(one.step_flops, "unet")
        decode = report.share(one.decode_flops, "vae_decoder")
        cells = (
            f"{one.seconds:9.3f}",
            f"{one.spread:6.0%}",
            f"{one.seconds / one.case.batch:10.3f}",
            f"{one.steps_per_second:9.2f}",
            _or_dash(None if one.step_flops is None else f"{one.step_flops / 1e9:.0f}", 9),
            _or_dash(None if share is None else f"{share:.0%}", 7),
            _or_dash(None if decode is None else f"{decode:.0%}", 8),
            _or_dash(f"{grown[str(one.case)]:.2f}" if str(one.case) in grown else None, 8),
        )
        yield f"{one.case!s:<32}{''.join(cells)}"
    yield "±: interquartile range over the median. GFLOP/s and share: of the guidance steps, of the peak at"
    yield "their precision; decode: the decoder's share. growth: seconds over work, the first row being 1."


def _or_dash(text: str | None, width: int) -> str:
    return f"{'-' if text is None else text:>{width}}"
