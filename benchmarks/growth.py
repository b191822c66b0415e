"""Whether cost grows faster than the work: batches, sizes and steps, held to the operations that are counted.

    python benchmarks/growth.py toon SD_PACK [--provider cpu] [--rounds 5] [--plot docs/images/growth.png]

A line a case: how many times the work of the first one it has, how many times its seconds, and the one over
the other, which is 1 where cost grows as the work does and less where more at once is cheaper. The cases take
turns, so that what else the machine does meets all of them. Then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faceavatar import AvatarEngine
from faceavatar_cli.measure.subject import Case, draw, work_of

BATCHES, SIZES, STEPS = (1, 2, 4, 8), (256, 384, 512, 768, 1024), (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Grown:
    """A case beside the first one of its sweep: work and cost as multiples of that one's."""

    case: Case
    seconds: float
    work: float
    cost: float

    @property
    def growth(self) -> float:
        """Cost over work."""
        return self.cost / self.work


def sweeps(sizes: bool, largest: int = max(SIZES)) -> dict[str, list[Case]]:
    """What is varied, one thing at a time. sizes: whether the pack draws what it is asked for."""
    size = 256 if sizes else 512
    found = {
        "batch": [Case(batch, size, size, 2) for batch in BATCHES],
        "steps": [Case(1, size, size, steps) for steps in STEPS],
    }
    if sizes:
        found["size"] = [Case(1, side, side, 2) for side in SIZES if side <= largest]
    return found


def grow(
    engine: AvatarEngine,
    cases: Sequence[Case],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Grown]:
    """Every case once a round, after one run that does not count; medians."""
    taken: dict[Case, list[float]] = {case: [] for case in cases}
    for case in cases:
        draw(engine, case, 0)
    for number in range(1, rounds + 1):
        for case in cases:
            start = clock()
            draw(engine, case, number)
            taken[case].append(clock() - start)
    work = {case: work_of(engine.pack, case).of(case) for case in cases}
    medians = {case: statistics.median(values) for case, values in taken.items()}
    first = cases[0]
    return [
        Grown(case, medians[case], work[case] / work[first], medians[case] / medians[first]) for case in cases
    ]


def plot(found: Mapping[str, Mapping[str, Sequence[Grown]]], path: Path) -> None:
    """Cost by work on logarithmic axes, a panel for each thing varied; the line is cost growing as work."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for of in found.values() for name in of))
    figure, panels = plt.subplots(1, len(names), figsize=(4.4 * len(names), 3.8), layout="constrained")
    for axes, name in zip(panels, names, strict=True):
        most = 1.0
        for color, (pack, of) in zip(("#1c6b61", "#c9a227", "#34608c"), found.items(), strict=False):
            rows = of.get(name, ())
            axes.plot([row.work for row in rows], [row.cost for row in rows], "o-", color=color, label=pack)
            most = max([most, *[row.work for row in rows]])
        axes.plot([1, most], [1, most], "--", color="#8a8f98", linewidth=1, label="as the work")
        axes.set(xscale="log", yscale="log", xlabel="work", ylabel="seconds", title=f"{name}, first = 1")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", nargs="+")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=max(SIZES))
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found: dict[str, dict[str, list[Grown]]] = {}
    for name in args.packs:
        engine = AvatarEngine.load(name, args.provider).wait_until_open()
        of = found.setdefault(engine.pack.name, {})
        for what, cases in sweeps(not engine.pack.manifest.sizes.native, args.largest).items():
            of[what] = grow(engine, cases, args.rounds)
            for row in of[what]:
                print(
                    f"{engine.pack.name:12} {row.case!s:32} {row.seconds:8.3f} s"
                    f"  work x{row.work:6.2f}  cost x{row.cost:6.2f}  growth {row.growth:5.2f}"
                )
    if args.plot is not None:
        plot(found, args.plot)
    told: dict[str, Any] = {
        pack: {what: [{**asdict(row), "growth": row.growth} for row in rows] for what, rows in of.items()}
        for pack, of in found.items()
    }
    print(json.dumps({"provider": args.provider, "rounds": args.rounds, "packs": told}))


if __name__ == "__main__":
    main()
