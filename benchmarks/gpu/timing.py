"""Seconds of a guidance step at one batch: every contender warmed, then all of them in turn, medians of
rounds.

In one process, so that clocks, heat and memory are the same for all. A contender that cannot run is
reported with its error and the others go on.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpu.clock import seconds_of
from gpu.loops import COMPILE_MODES, Loop, first_latents, our_contenders, torch_loop, torch_unet
from gpu.models import Model
from gpu.report import EAGER

_STEPS, _ROUNDS = 10, 5
_NARROW_STEPS, _NARROW_ROUNDS = 2, 2


def contenders(
    model: Model, providers: Mapping[str, str], engines: Mapping[str, Path], device: str
) -> Iterator[tuple[str, Callable[[], Loop]]]:
    """All of them, ours first; each with what makes it."""
    yield from our_contenders(model, providers, engines)

    def theirs(mode: str | None) -> Callable[[], Loop]:
        return lambda: torch_loop(
            torch_unet(model, torch.float16, device, mode), model, torch.float16, device
        )

    yield EAGER, theirs("eager")
    modes = list(COMPILE_MODES.items())
    for name, mode in modes[:1] if model.narrow else modes:
        yield name, theirs(mode)


def time_batch(
    model: Model,
    pictures: int,
    providers: Mapping[str, str],
    engines: Mapping[str, Path],
    device: str,
    peak: float,
) -> dict[str, Any]:
    """Seconds a step, FLOP/s and share of the peak for each contender; `failed` holds the others' errors."""
    steps, rounds = (_NARROW_STEPS, _NARROW_ROUNDS) if model.narrow else (_STEPS, _ROUNDS)
    flops, latents = model.flops(2 * pictures), first_latents(model, pictures)
    ready: dict[str, Loop] = {}
    failed: dict[str, str] = {}
    for name, make in contenders(model, providers, engines, device):
        try:
            ready[name] = make()
            ready[name](latents, 2)  # warms; compiles and records what is compiled and recorded
        except Exception as error:  # whatever another library raises is its result
            ready.pop(name, None)
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            gc.collect()
    took: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name, loop in ready.items():
            took[name].append(seconds_of(partial(loop, latents, steps), device) / steps)
    rows = {}
    for name, seconds in took.items():
        median = statistics.median(seconds)
        rows[name] = {
            "seconds_a_step": median,
            "spread": [min(seconds), max(seconds)],
            "steps_a_second": 1 / median,
            "flops_a_second": flops / median,
            "share_of_peak": flops / median / peak,
        }
    memory = torch.cuda.max_memory_reserved() if device == "cuda" else 0
    return {"flops_a_step": flops, "rows": rows, "failed": failed, "torch_memory": memory}
