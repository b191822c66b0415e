"""What training stages share: checkpoints, a log, a learning-rate curve, averaged weights, shared gradients.

Gradients are shared between processes because two processes of one thread train faster on two cores than one
process of two threads.
"""

from __future__ import annotations

import copy
import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import distributed, nn

M = TypeVar("M", bound=nn.Module)


class RunLog:
    """Appends rows of numbers to a CSV file and prints them."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path, self._columns = path, columns
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            self._append(columns)

    def _append(self, row: tuple[object, ...]) -> None:
        with self._path.open("a", newline="") as out:
            csv.writer(out).writerow(row)

    def write(self, *values: float) -> None:
        """One row, in the order of the columns."""
        self._append(tuple(round(v, 6) for v in values))
        print("  ".join(f"{c} {v:.5g}" for c, v in zip(self._columns, values, strict=True)), flush=True)


def save_checkpoint(
    path: Path, step: int, seconds: float, **parts: nn.Module | torch.optim.Optimizer
) -> None:
    """Writes the parts' state dicts, step and seconds spent; atomic: a stopped run keeps its last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "seconds": seconds, **{name: part.state_dict() for name, part in parts.items()}}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(path: Path, **parts: nn.Module | torch.optim.Optimizer) -> tuple[int, float]:
    """Fills the parts from a checkpoint and returns (step, seconds spent); (0, 0.0) when there is none."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"]), float(state["seconds"])


def channels_last(module: M) -> M:
    """The module with its kernels in channels-last order, faster on CPUs; torch's stubs lack the argument."""
    convert: Callable[..., M] = module.to
    return convert(memory_format=torch.channels_last)


def warm_cosine(progress: float, warm: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor at `progress` (0..1): linear up over `warm`, half a cosine down to `floor`."""
    if progress < warm:
        return max(progress / warm, 0.01)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class Average(nn.Module, Generic[M]):
    """Exponential moving average of a module's weights; `decay` grows with the steps: early weights fade."""

    module: M

    def __init__(self, module: M, decay: float = 0.999) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: M, step: int) -> None:
        """Moves the average towards `module`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.module.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 1 - decay)
        for kept, now in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(now)


def join_processes() -> tuple[int, int]:
    """(rank, processes); joins the group that torchrun describes in the environment, alone without it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        distributed.init_process_group("gloo")
    return int(os.environ.get("RANK", "0")), processes


def share_gradients(module: nn.Module, processes: int) -> None:
    """Replaces every gradient by its mean over the processes."""
    if processes == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agreed(value: float, processes: int) -> float:
    """Process 0's value, in every process: clocks differ, and all must stop at the same step."""
    if processes == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return float(shared)
