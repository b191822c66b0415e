"""The figures that this project set itself, beside what was measured: each met or missed, none left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Medians = Mapping[str, Mapping[str, Any]]
FAST, PLAIN = "faceavatar openvino bf16", "faceavatar cpu fp32"
EAGER, HALF = "diffusers fp32", ("diffusers bf16", "diffusers bf16 compiled")
GENAI = "openvino-genai bf16"


@dataclass(frozen=True)
class Target:
    """words: what is asked. got: the figure, None where something was not measured. met: whether it holds."""

    words: str
    wanted: float
    got: float | None
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the figure is there and on the right side."""
        return self.got is not None and (
            self.got >= self.wanted if self.at_least else self.got <= self.wanted
        )


def peer_targets(found: Medians) -> Iterator[Target]:
    """Those that are measured beside the peers, from medians by engine and column."""

    def of(engine: str, column: str) -> float | None:
        value = found.get(engine, {}).get(column)
        return None if value is None else float(value)

    def ratio(column: str, peers: tuple[str, ...], ours: str) -> float | None:
        """The quickest of the peers over ours."""
        known = [value for peer in peers if (value := of(peer, column)) is not None]
        mine = of(ours, column)
        return min(known) / mine if known and mine is not None else None

    yield Target("step: openvino bf16 over diffusers fp32", 2.3, ratio("step", (EAGER,), FAST))
    yield Target("step: openvino bf16 over diffusers' best bf16", 1.3, ratio("step", HALF, FAST))
    yield Target("step: cpu fp32 over diffusers fp32", 1.3, ratio("step", (EAGER,), PLAIN))
    yield Target("picture: openvino bf16 over diffusers fp32", 2.2, ratio("picture", (EAGER,), FAST))
    yield Target("picture: openvino bf16 over diffusers' best bf16", 1.25, ratio("picture", HALF, FAST))
    for size in ("512", "256"):
        column = f"process {size}"
        yield Target(f"process at {size}: over diffusers fp32", 2.0, ratio(column, (EAGER,), FAST))
        yield Target(f"process at {size}: over diffusers bf16", 1.6, ratio(column, HALF, FAST))
        yield Target(f"process at {size}: over openvino-genai bf16", 1.0, ratio(column, (GENAI,), FAST))
    yield Target("step: openvino bf16 over openvino-genai bf16", 0.97, ratio("step", (GENAI,), FAST))
    yield Target("import, seconds", 0.3, of(FAST, "import"), at_least=False)
    yield Target("warm load, seconds", 3.0, of(FAST, "load warm"), at_least=False)
    peak = of("diffusers bf16", "peak GB")
    if peak is not None:
        yield Target("peak memory below diffusers bf16's, GB", peak, of(FAST, "peak GB"), at_least=False)


def toon_targets(report: Mapping[str, Any]) -> Iterator[Target]:
    """Those of the embedded pack, from the JSON of `faceavatar bench toon`."""
    one, eight = _seconds(report, 1), _seconds(report, 8)
    yield Target("toon at its defaults, seconds", 1.2, one, at_least=False)
    yield Target("toon, first picture of a fresh process, seconds", 3.0, _first(report), at_least=False)
    ratio = None if one is None or eight is None else eight / one
    yield Target("toon, batch 8 over batch 1", 5.5, ratio, at_least=False)


def _seconds(report: Mapping[str, Any], batch: int) -> float | None:
    """Of the case at the pack's defaults, with so many pictures."""
    for one in report["cases"]:
        case = one["case"]
        if (case["batch"], case["height"], case["steps"]) == (batch, 512, 4):
            return float(one["seconds"])
    return None


def _first(report: Mapping[str, Any]) -> float | None:
    fresh = report.get("fresh")
    return None if fresh is None else float(fresh["to_first_picture"])


def rows(targets: Iterator[Target]) -> Iterator[str]:
    """A Markdown row each."""
    for one in targets:
        sign = "≥" if one.at_least else "≤"
        got = "not measured" if one.got is None else f"{one.got:.2f}"
        yield f"| {one.words} | {sign} {one.wanted:.2f} | {got} | {'met' if one.met else 'missed'} |"
