"""A report as two pictures: shares of the peak, and seconds by batch and by size. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faceavatar import MissingExtra
from faceavatar_cli.measure.report import Report

_COLORS = ("#1c6b61", "#c9a227", "#8a3b3b", "#34608c", "#8a8f98")


def plot(report: Report, folder: Path) -> list[Path]:
    """Writes latency.png and, with shares known, roofline.png; gives their paths. Raises MissingExtra."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib", "bench") from error
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    written = [_latency(report, folder / "latency.png")]
    if any(report.share(one.step_flops, "unet") is not None for one in report.cases):
        written.append(_roofline(report, folder / "roofline.png"))
    return written


def _figure(columns: int) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(5.2 * columns, 3.8), layout="constrained")
    for one in axes if columns > 1 else [axes]:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, report: Report, path: Path) -> Path:
    import matplotlib.pyplot as plt

    precision = report.precisions["unet"]
    figure.suptitle(
        f"{report.pack} {report.pack_version}, {report.provider} {precision}, {report.machine.processor}"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _latency(report: Report, path: Path) -> Path:
    """Seconds by batch, one line a size; by pixels, one line a batch; by steps."""
    figure, (batches, sizes, steps) = _figure(3)
    base = report.cases[0].case
    held = [one for one in report.cases if one.case.steps == base.steps]
    for color, side in zip(_COLORS, sorted({one.case.height for one in held}), strict=False):
        some = sorted((one for one in held if one.case.height == side), key=lambda one: one.case.batch)
        batches.plot(
            *_xy([(one.case.batch, one.seconds) for one in some]), "o-", color=color, label=f"{side} px"
        )
    for color, batch in zip(_COLORS, sorted({one.case.batch for one in held}), strict=False):
        some = sorted((one for one in held if one.case.batch == batch), key=lambda one: one.case.height)
        pixels = [(one.case.height * one.case.width / 1e6, one.seconds) for one in some]
        sizes.plot(*_xy(pixels), "o-", color=color, label=f"batch {batch}")
    same = [one for one in report.cases if (one.case.batch, one.case.height) == (base.batch, base.height)]
    counts = sorted((one.case.steps, one.seconds) for one in same)
    steps.plot(*_xy(counts), "o-", color=_COLORS[0])
    for axes, words in ((batches, "pictures"), (sizes, "megapixels"), (steps, "steps")):
        axes.set_xlabel(words)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    batches.set_ylabel("seconds")
    batches.legend(fontsize=8)
    sizes.legend(fontsize=8)
    return _save(figure, report, path)


def _roofline(report: Report, path: Path) -> Path:
    """The share of the measured peak that steps and decoder reach, for each case."""
    figure, axes = _figure(1)
    figure.set_size_inches(9, 0.35 * len(report.cases) + 1.8)
    names = [str(one.case) for one in report.cases]
    for shift, role, color, words in (
        (-0.2, "unet", _COLORS[0], "guidance steps"),
        (0.2, "vae_decoder", _COLORS[1], "decoder"),
    ):
        flops = [one.step_flops if role == "unet" else one.decode_flops for one in report.cases]
        shares = [report.share(value, role) or 0.0 for value in flops]
        bars = axes.barh(
            [index + shift for index in range(len(names))], shares, 0.38, color=color, label=words
        )
        axes.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=8, padding=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=_COLORS[4], linestyle="--", linewidth=1)
    axes.set_xlabel("share of the measured matrix product's FLOP/s")
    axes.legend(fontsize=8)
    return _save(figure, report, path)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
