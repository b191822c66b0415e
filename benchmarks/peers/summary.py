"""Medians, ratios and distances between pictures, from the lines that run.py has written."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lineup import LINEUP, REFERENCE

# What is compared: name -> the measurement it comes from, and how it is read off one line of it.
COLUMNS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "step": ("step", lambda line: float(statistics.median(line["steps"]))),
    "picture": ("picture", lambda line: line["picture"]),
    "decode": ("picture", lambda line: line["decode"]),
    "process 512": ("process 512", lambda line: line["process"]),
    "process 256": ("process 256", lambda line: line["process"]),
    "import": ("process 512", lambda line: line["import"]),
    "load warm": ("process 512", lambda line: line["load"]),
    "load cold": ("process 512 cold", lambda line: line["load"]),
    "peak GB": ("process 512", lambda line: line["peak_mb"] / 1024),
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every measurement so far; a line that was cut off is passed over."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Adds a measurement at once; a last line that was cut off is ended first, so that it spoils no other."""
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(line) + "\n")


def medians(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each engine its medians by column, how many runs each has, and what it failed with."""
    found: dict[str, dict[str, Any]] = {engine.name: {"runs": {}, "errors": []} for engine in LINEUP}
    held = list(lines)
    worked = {(line["engine"], line["measure"]) for line in held if "numbers" in line}
    for line in held:
        if "error" in line and (line["engine"], line["measure"]) not in worked:
            words = f"{line['measure']}: {line['error']}"
            errors = found.setdefault(line["engine"], {"runs": {}, "errors": []})["errors"]
            if words not in errors:
                errors.append(words)
    for name, of in found.items():
        for column, (measure, read) in COLUMNS.items():
            values = [
                read(line["numbers"])
                for line in held
                if (line["engine"], line["measure"]) == (name, measure) and "numbers" in line
            ]
            known = [value for value in values if value is not None]
            if known:
                of[column], of["runs"][column] = statistics.median(known), len(known)
    return found


def distances(folder: Path) -> dict[str, float]:
    """Each engine's lowest PSNR, in dB, against the reference's pictures of the same numbers."""
    found: dict[str, float] = {}
    for engine in LINEUP:
        values = []
        for path in sorted(folder.glob(f"{slug(engine.name)}-picture-*.npy")):
            number = path.stem.rpartition("-")[2]
            other = folder / f"{slug(REFERENCE)}-picture-{number}.npy"
            if other.exists() and engine.name != REFERENCE:
                values.append(psnr(np.load(path), np.load(other)))
        if values:
            found[engine.name] = min(values)
    return found


def psnr(a: Any, b: Any) -> float:
    """Of two uint8 pictures, in dB; 99 for equal ones."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * math.log10(255**2 / error)


def slug(name: str) -> str:
    """An engine's name as a part of file names."""
    return name.replace(" ", "-")


def table(found: Mapping[str, Mapping[str, Any]], apart: Mapping[str, float]) -> Iterator[str]:
    """Medians in lines for people, then how many times as fast ours are as each peer."""
    yield f"{'':26}" + "".join(f"{column:>13}" for column in COLUMNS) + f"{'PSNR':>8}"
    for name, of in found.items():
        cells = "".join(_cell(of.get(column)) for column in COLUMNS)
        yield f"{name:<26}{cells}" + (f"{apart[name]:8.1f}" if name in apart else f"{'-':>8}")
    for column in ("step", "picture", "process 512", "process 256"):
        yield ""
        yield f"{column}: a peer's seconds over ours"
        ours = [engine.name for engine in LINEUP if engine.ours and column in found[engine.name]]
        yield f"{'':26}" + "".join(f"{name.removeprefix('faceavatar '):>16}" for name in ours)
        for engine in LINEUP:
            if not engine.ours and column in found[engine.name]:
                ratios = [found[engine.name][column] / found[name][column] for name in ours]
                yield f"{engine.name:<26}" + "".join(f"{ratio:16.2f}" for ratio in ratios)
    for name, of in found.items():
        for words in of["errors"]:
            yield f"{name} cannot run: {words}"


def _cell(value: float | None) -> str:
    return f"{'-':>13}" if value is None else f"{value:13.3f}" if value < 10 else f"{value:13.1f}"
