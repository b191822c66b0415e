"""What the stages found, as a table for people. Imports nothing heavy: it is written after every stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Found = Mapping[str, Mapping[str, Any]]
EAGER, COMPILED = "diffusers eager", "diffusers compiled"  # of which there are several, all beginning so


def ratios(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """How many times faster each contender steps than the fastest of torch.compile's, or than eager."""
    compiled = [name for name in rows if name.startswith(COMPILED)]
    rivals = compiled or [name for name in rows if name == EAGER]
    if not rivals:
        return {}
    best = min(rows[name]["seconds_a_step"] for name in rivals)
    return {name: best / row["seconds_a_step"] for name, row in rows.items()}


def table(found: Found) -> str:
    """Markdown; found: each stage's record."""
    lines = [*_machine(found), *_parity(found)]
    for stage, record in found.items():
        if not stage.startswith("time"):
            continue
        lines += ["", f"## {stage}", ""]
        if not record["ok"]:
            lines.append(f"failed: {record['error']}")
            continue
        result = record["result"]
        against = ratios(result["rows"])
        lines += ["| contender | ms a step | x compiled | share of peak |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {row['seconds_a_step'] * 1e3:.2f} | {against.get(name, float('nan')):.2f} "
            f"| {row['share_of_peak']:.1%} |"
            for name, row in sorted(result["rows"].items(), key=lambda item: item[1]["seconds_a_step"])
        ]
        lines += [f"| {name} | could not run | | {error} |" for name, error in result["failed"].items()]
    return "\n".join(lines) + "\n"


def _machine(found: Found) -> list[str]:
    record = found.get("machine")
    if record is None or not record["ok"]:
        return ["The machine is not known."]
    result = record["result"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    peak = result["gemm"]["peak"] / 1e12
    return [
        f"{result['device']}, driver {result['driver'] or 'none'}; {versions}; "
        f"float16 products at most {peak:.3g} TFLOP/s"
    ]


def _parity(found: Found) -> list[str]:
    lines = [
        *("", "| model | provider | UNet error | PSNR | loops | batch | recorded | |"),
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage, record in found.items():
        if not stage.startswith("parity"):
            continue
        model = stage.split()[1]
        if not record["ok"]:
            lines.append(f"| {model} | all | failed: {record['error']} | | | | | |")
            continue
        for name, row in record["result"].items():
            said = row.get("refused") or row.get("failed")
            if said:
                lines.append(f"| {model} | {name} | | | | | | {said} |")
                continue
            lines.append(
                f"| {model} | {name} | {row['unet_error']:.2g} | {row['psnr']:.1f} dB "
                f"| {row['loops_error']:.2g} | {row['batch_error']:.2g} | {row['recorded_error']:.2g} "
                f"| {'misses ' + ', '.join(row['misses']) if row['misses'] else 'holds'} |"
            )
    return lines
