"""Draws the logs of a run, one panel a stage: losses and whatever else its .csv holds, over its steps.

`python -m faceavatar_export.toon.plot_training RUN --out FOLDER` writes FOLDER/training.png.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

CLOCKS = ("step", "minutes", "seconds")
Curve = tuple[list[int], list[float]]


def read_curves(log: Path) -> dict[str, Curve]:
    """A log's columns but the clocks: name -> (steps, values). Empty cells are left out.

    A run that fell back to its checkpoint wrote some steps twice: the later rows count.
    """
    rows: list[dict[str, str]] = []
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            while rows and int(float(rows[-1]["step"])) >= int(float(row["step"])):
                rows.pop()
            rows.append(row)
    curves: dict[str, Curve] = {}
    for row in rows:
        for name, cell in row.items():
            if name not in CLOCKS and cell:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(int(float(row["step"])))
                values.append(float(cell))
    return curves


def plot(run: Path, out: Path) -> Path:
    """One sheet of all logs in `run`; returns its file."""
    from matplotlib.figure import Figure  # not pyplot: no screen, no state

    logs = {log.stem: curves for log in sorted(run.glob("*.csv")) if (curves := read_curves(log))}
    if not logs:
        raise FileNotFoundError(f"{run}: no .csv log with a row; stages write them as they train")
    columns = min(3, len(logs))
    lines = -(-len(logs) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (name, curves) in zip(panels, logs.items(), strict=False):
        for label, (steps, values) in curves.items():
            panel.plot(steps, values, label=label, marker="." if len(steps) < 30 else None)
        if all(value > 0 for _, values in curves.values() for value in values):
            panel.set_yscale("log")
        panel.set(title=name, xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    for panel in panels[len(logs) :]:
        panel.set_visible(False)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "training.png", dpi=110)
    return out / "training.png"


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(plot(args.run, args.out))


if __name__ == "__main__":
    main()
