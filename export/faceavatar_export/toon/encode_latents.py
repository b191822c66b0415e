"""Turns drawn pictures into the latents that the UNet trains on: DATA/latents.npy, float16 (N, 64, 8, 8).

`python -m faceavatar_export.toon.encode_latents DATA AUTOENCODER.pt`, on the GPU where torch sees one, else
in as many processes of one thread as there are cores. The file appears when all of it is there.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from faceavatar_export.toon.autoencoder import LATENT_CHANNELS, Autoencoder
from faceavatar_export.toon.training import channels_last, choose_device, load_checkpoint

PART = 2000


def encode_range(
    data: Path, checkpoint: Path, file: Path, start: int, stop: int, device: torch.device, batch: int
) -> int:
    """Encodes pictures start..stop-1 into `file`, an array that exists; returns how many."""
    pictures, out = np.load(data / "pictures.npy", mmap_mode="r"), np.load(file, mmap_mode="r+")
    model = Autoencoder().eval()
    load_checkpoint(checkpoint, model=model)
    model = channels_last(model.to(device))
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for i in range(start, stop, batch):
            part = np.asarray(pictures[i : min(i + batch, stop)], np.float32)
            image = torch.from_numpy(part).permute(0, 3, 1, 2).to(device)
            out[i : i + len(part)] = model.encode(image / 127.5 - 1).float().cpu().numpy()
    out.flush()
    return stop - start


def encode(data: Path, checkpoint: Path, count: int | None, device: torch.device, processes: int) -> None:
    """Encodes the first `count` pictures (all by default); `processes` of them where there is no GPU."""
    if load_checkpoint(checkpoint, model=Autoencoder())[0] == 0:
        raise FileNotFoundError(f"{checkpoint}: no trained autoencoder; run train_autoencoder first")
    total = len(np.load(data / "pictures.npy", mmap_mode="r")[:count])
    file = data / "latents.part.npy"
    np.lib.format.open_memmap(file, "w+", np.float16, (total, LATENT_CHANNELS, 8, 8)).flush()
    ranges = [(start, min(start + PART, total)) for start in range(0, total, PART)]
    if device.type == "cuda":
        for start, stop in ranges:
            encode_range(data, checkpoint, file, start, stop, device, 256)
    else:
        _encode_in_processes(data, checkpoint, file, ranges, processes)
    os.replace(file, data / "latents.npy")  # half of it must not be trained on


def _encode_in_processes(
    data: Path, checkpoint: Path, file: Path, ranges: list[tuple[int, int]], processes: int
) -> None:
    # Forked children of a process with threads may hang.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        jobs = [
            pool.submit(encode_range, data, checkpoint, file, *r, torch.device("cpu"), 32) for r in ranges
        ]
        done = 0
        for job in jobs:
            done += job.result()
            print(f"{done}/{ranges[-1][1]}", flush=True)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="where there is no GPU")
    args = parser.parse_args()
    encode(args.data, args.checkpoint, args.count, choose_device(args.device), args.processes)


if __name__ == "__main__":
    main()
