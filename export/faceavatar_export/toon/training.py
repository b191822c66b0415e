"""What training stages share: the device, clock and steps of a run, its log and checkpoint, averaged weights.

Gradients are shared between processes because two processes of one thread train faster on two cores than one
process of two threads. Knows no model and no data.
"""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B")


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

    def write(self, *values: float | None) -> None:
        """One row, in the order of the columns; None leaves a cell empty."""
        self._append(tuple("" if v is None else round(v, 6) for v in values))
        cells = zip(self._columns, values, strict=True)
        print("  ".join(f"{c} {v:.5g}" for c, v in cells if v is not None), flush=True)


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
    state = torch.load(path, map_location="cpu", weights_only=True)  # a GPU's run may go on without one
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


def choose_device(name: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", or "auto" for a GPU where torch sees one; says which it is.

    Under torchrun each process takes a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cpu")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("--device cuda: torch sees no GPU; use --device cpu, or a torch built for it")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    if os.environ.get("RANK", "0") == "0":
        print(f"device: {name}", flush=True)
    return device


def join_processes(device: torch.device | None = None) -> tuple[int, int]:
    """(rank, processes); joins the group that torchrun describes in the environment, alone without it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        cuda = device is not None and device.type == "cuda"
        # Clocks are agreed on the CPU, gradients shared where they lie.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
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


class _Endless(IterableDataset[B]):
    def __init__(self, make: Callable[[np.random.Generator], B], seed: tuple[int, ...]) -> None:
        self._make, self._seed = make, seed

    def __iter__(self) -> Iterator[B]:
        worker = get_worker_info()
        rng = np.random.default_rng(self._seed if worker is None else (*self._seed, worker.id))
        while True:
            yield self._make(rng)


def endless(make: Callable[[np.random.Generator], B], seed: tuple[int, ...], workers: int = 0) -> Iterator[B]:
    """What `make` gives, over and over; made by `workers` processes with a generator each, if not 0."""
    # batch_size None: `make` gives whole batches; the collate function keeps them as they are.
    return iter(DataLoader(_Endless(make, seed), None, num_workers=workers, collate_fn=_same))


def _same(batch: B) -> B:
    return batch


def data_workers(device: torch.device) -> int:
    """How many processes make batches: none where they train as well, up to eight beside a GPU, which would
    wait for them otherwise."""
    return 0 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))


class Pace(Protocol):
    """The settings that every stage has."""

    @property
    def minutes(self) -> float:
        """Wall clock of all starts together."""

    @property
    def lr(self) -> float:
        """The learning rate at its highest."""


class Stage:
    """A training run under way: its clock and learning rate, its steps, its log and its checkpoint.

    `for _ in stage.steps(): ...; stage.learn(loss); stage.note(loss=loss)`. A checkpoint found at `file` is
    gone on with. `parts` are saved beside "model" and "optimizer". All processes step; the first one writes.
    """

    def __init__(
        self,
        file: Path,
        columns: tuple[str, ...],
        pace: Pace,
        team: tuple[int, int],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **parts: nn.Module,
    ) -> None:
        self._file, self._pace, self._model, self._optimizer = file, pace, model, optimizer
        self.rank, self._processes = team
        self.parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "model": model,
            **parts,
            "optimizer": optimizer,
        }
        self.step, spent = load_checkpoint(file, **self.parts)
        self._start = time.time() - spent
        self._columns, self._noted = columns, dict[str, list[Tensor | float]]()
        self._log = RunLog(file.with_suffix(".csv"), ("step", "minutes", *columns))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def steps(self, log_every: int = 50, save_every: int = 200) -> Iterator[float]:
        """Yields the share of the time that is spent, until all of it is; logs and saves in between."""
        pace = self._pace
        while (elapsed := self._elapsed()) < pace.minutes:
            for group in self._optimizer.param_groups:
                group["lr"] = pace.lr * warm_cosine(elapsed / pace.minutes)
            yield elapsed / pace.minutes
            if self.leads and self.step % log_every == 0:
                self._write_row(elapsed)
            if self.step % save_every == 0:
                self.save()
        self.save()

    def learn(self, loss: Tensor, clip: float = 1.0) -> None:
        """One optimizer step on the mean of all processes' gradients, clipped to the norm `clip`."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(self._model, self._processes)
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), clip)
        self._optimizer.step()
        self.step += 1

    def note(self, **values: Tensor | float) -> None:
        """Values for columns of the log; a row holds their means since the last. Does not wait for a GPU."""
        for name, value in values.items() if self.leads else ():
            value = value.detach() if isinstance(value, Tensor) else value
            self._noted.setdefault(name, []).append(value)

    def save(self) -> None:
        """Writes the checkpoint."""
        if self.leads:
            save_checkpoint(self._file, self.step, time.time() - self._start, **self.parts)

    def _elapsed(self) -> float:
        return agreed((time.time() - self._start) / 60, self._processes)

    def _write_row(self, elapsed: float) -> None:
        means = {name: float(sum(values)) / len(values) for name, values in self._noted.items()}
        self._log.write(self.step, elapsed, *(means.get(name) for name in self._columns))
        self._noted.clear()
        if not all(math.isfinite(mean) for mean in means.values()):
            raise RuntimeError(f"step {self.step}: {means}; start again from the checkpoint, with a lower lr")
