"""`faceavatar bench`: the flags. What is measured, and how, is in measure/, imported when it is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from faceavatar_cli.exits import debug_option, epilog

_PATH = click.Path(path_type=Path)


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers in a range, separated by commas."""

    name = "numbers"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: give whole numbers with commas between them, such as 1,4", param, ctx)
        if not all(self._low <= number <= self._high for number in numbers):
            self.fail(f"{value!r}: each must be {self._low} to {self._high}", param, ctx)
        return numbers


@click.command(epilog=epilog())
@click.argument("pack", default="toon")
@click.option("--provider", default="auto", show_default=True, help="What runs it, as for generate.")
@click.option("--precision", help="What to compute in: fp32, bf16 or fp16 (as the graphs are stored).")
@click.option(
    "--engines", metavar="FOLDER|ignore", help="Compiled engines: a folder, or ignore those in the pack."
)
@click.option("--threads", type=click.IntRange(min=1), help="How many threads (one for each physical core).")
@click.option("--batches", type=_Numbers(1, 8), help="Pictures at once (1,2,4,8).")
@click.option("--sizes", type=_Numbers(256, 1536), help="Sides in pixels (256,512,768,1024).")
@click.option("--steps", type=click.IntRange(1, 50), help="Of each case (the pack's own, at most 4).")
@click.option("--runs", type=click.IntRange(1, 1000), help="How often each case is timed (5).")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Of the cases in all: those that would not fit are skipped and named (15).",
)
@click.option("--quick", is_flag=True, help="A minute's version: fewer of everything.")
@click.option("--json", "json_file", metavar="FILE", type=_PATH, help="Write it all there.")
@click.option("--plot", "folder", metavar="FOLDER", type=_PATH, help="Draw PNGs there.")
@click.option("--history", is_flag=True, help="Show what changed since this machine's last run.")
@debug_option
def bench(
    pack: str,
    provider: str,
    precision: str | None,
    engines: str | None,
    threads: int | None,
    batches: tuple[int, ...] | None,
    sizes: tuple[int, ...] | None,
    steps: int | None,
    runs: int | None,
    minutes: float | None,
    quick: bool,
    json_file: Path | None,
    folder: Path | None,
    history: bool,
) -> None:
    """Measure how fast a pack is on this machine.

    PACK is a pack's name or folder (toon). Fresh processes, each stage, batches, sizes and steps, and the
    share of what this machine's matrix products reach in the same run. Nothing else should run meanwhile.
    """
    from faceavatar_cli.measure.bench import Bench
    from faceavatar_cli.measure.cases import full_sweep, quick_sweep
    from faceavatar_cli.measure.history import changes, keep, last_run
    from faceavatar_cli.measure.report import table
    from faceavatar_cli.output import check_folder

    for place in (json_file and json_file.parent, folder):
        if place is not None:
            check_folder(place)
    asked = {"steps": steps, "batches": batches, "sizes": sizes, "runs": runs, "minutes": minutes}
    given = {name: value for name, value in asked.items() if value is not None}
    work = Bench(pack, provider, precision, engines, threads, lambda words: click.echo(words, err=True))
    report = work.run(quick_sweep if quick else full_sweep, given)
    before = last_run(report)
    kept = keep(report)
    for line in table(report):
        click.echo(line)
    if history:
        click.echo()
        for line in changes(report, before) if before else [f"no earlier run of this in {kept}"]:
            click.echo(line)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    if folder is not None:
        from faceavatar_cli.measure.plots import plot

        for path in plot(report, folder):
            click.echo(str(path))
