"""Fills docs/performance.md from the files that the benchmarks wrote: no number there is typed in.

    python benchmarks/report.py [--peers OUT/peers.json] [--toon toon.json] [--sd sd.json]
        [--growth growth.json] [--docs docs/performance.md]

--toon and --sd are `faceavatar bench PACK --json FILE`, --growth the last line of benchmarks/growth.py. Each
fills the part of the page between its two comments, <!-- peers --> and <!-- /peers --> and so on; parts whose
file is not given stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def fill(page: str, part: str, lines: Iterator[str]) -> str:
    """The page with a part's lines replaced. Raises ValueError where it has no such part."""
    block = f"<!-- {part} -->\n" + "\n".join(lines) + f"\n<!-- /{part} -->"
    changed, count = re.subn(rf"<!-- {part} -->.*?<!-- /{part} -->", lambda _: block, page, flags=re.S)
    if count != 1:
        raise ValueError(f"the page has {count} parts called {part}, expected 1")
    return changed


def peers(report: Mapping[str, Any]) -> Iterator[str]:
    """Medians by engine, ratios, what could not run."""
    from summary import COLUMNS

    yield f"Measured on {_machine(report['machine'])}. Seconds, medians; the runs of each stand in brackets."
    yield ""
    yield "| engine | " + " | ".join(COLUMNS) + " | PSNR, dB |"
    yield "|---" * (len(COLUMNS) + 2) + "|"
    for name, of in report["medians"].items():
        cells = [_median(of, column) for column in COLUMNS]
        yield f"| {name} | {' | '.join(cells)} | {_number(report['psnr'].get(name), 1)} |"
    for name, of in report["medians"].items():
        for words in of["errors"]:
            yield f"\n{name} could not run: {words}"


def targets(report: Mapping[str, Any] | None, toon: Mapping[str, Any] | None) -> Iterator[str]:
    """What was set and what was reached."""
    from targets import peer_targets, rows, toon_targets

    yield "| | wanted | measured | |"
    yield "|---|---|---|---|"
    if report is not None:
        yield from rows(peer_targets(report["medians"]))
    if toon is not None:
        yield from rows(toon_targets(toon))


def bench(report: Mapping[str, Any]) -> Iterator[str]:
    """What `faceavatar bench` found of one pack."""
    kinds = " / ".join(sorted(set(report["precisions"].values())))
    how = f"{report['provider']} ({kinds}), {report['threads']} threads"
    yield f"{report['pack']} {report['pack_version']} on {how}: {_machine(report['machine'])}."
    peaks = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in report["peaks"].items())
    yield f"Matrix products in the same run, GFLOP/s: {peaks}."
    fresh = report["fresh"]
    if fresh is not None:
        imported, loaded = fresh["import_seconds"], fresh["load_seconds"]
        yield f"A fresh process: import {imported:.2f} s, load {loaded:.2f} s,"
        yield f"from its start to the first picture {fresh['to_first_picture']:.2f} s,"
        yield f"{fresh['peak_memory_mb']:.0f} MB at the peak."
    yield ""
    yield "| case | seconds | ± | steps a second | GFLOP/s | share of the peak | decoder's share | growth |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in report["cases"]:
        case = one["case"]
        name = f"{case['width']}x{case['height']}, batch {case['batch']}, {case['steps']} steps"
        flops = one["step_flops"]
        yield (
            f"| {name} | {one['seconds']:.3f} | {one['spread']:.0%} | {one['steps_per_second']:.2f} "
            f"| {_number(None if flops is None else flops / 1e9, 0)} | {_share(one['step_share'])} "
            f"| {_share(one['decode_share'])} | {_number(report['growth'].get(_key(case)), 2)} |"
        )
    yield ""
    stages = report["cases"][0]["stages"]
    whole = report["cases"][0]["seconds"]
    told = ", ".join(
        f"{stage} {value * 1000:.1f} ms ({value / whole:.0%})" for stage, value in stages.items() if value
    )
    yield f"Stages of the first case: {told}."


def growth(report: Mapping[str, Any]) -> Iterator[str]:
    """Cost beside work."""
    yield f"Provider {report['provider']}, medians of {report['rounds']} rounds."
    yield ""
    yield "| pack | case | work | cost | growth |"
    yield "|---|---|---|---|---|"
    for pack, of in report["packs"].items():
        for rows in of.values():
            for row in rows:
                case = _key(row["case"])
                yield f"| {pack} | {case} | x{row['work']:.2f} | x{row['cost']:.2f} | {row['growth']:.2f} |"


def _machine(machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    what = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    return f"{what}, {machine['system']}, {machine['python']}, {packages}"


def _key(case: Mapping[str, Any]) -> str:
    from faceavatar_cli.measure.subject import Case

    return str(Case(**case))


def _median(of: Mapping[str, Any], column: str) -> str:
    value = of.get(column)
    return "-" if value is None else f"{value:.2f} ({of['runs'][column]})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _read(path: Path | None) -> Any:
    """A JSON file; or the last line of one that begins with a table."""
    if path is None:
        return None
    text = path.read_text(encoding="utf-8").strip()
    return json.loads(text if text.startswith("{") else text.splitlines()[-1])


def main() -> None:
    import sys

    sys.path.append(str(Path(__file__).parent / "peers"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("peers", "toon", "sd", "growth"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--docs", type=Path, default=PAGE)
    args = parser.parse_args()
    found = {name: _read(getattr(args, name)) for name in ("peers", "toon", "sd", "growth")}
    page = args.docs.read_text(encoding="utf-8")
    if found["peers"] is not None:
        page = fill(page, "peers", peers(found["peers"]))
    if found["peers"] is not None or found["toon"] is not None:
        page = fill(page, "targets", targets(found["peers"], found["toon"]))
    for part in ("toon", "sd"):
        if found[part] is not None:
            page = fill(page, part, bench(found[part]))
    if found["growth"] is not None:
        page = fill(page, "growth", growth(found["growth"]))
    args.docs.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
