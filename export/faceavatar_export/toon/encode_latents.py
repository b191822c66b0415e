"""Turns drawn pictures into the latents that the UNet trains on: DATA/latents.npy, float16 (N, 64, 8, 8).

`python -m faceavatar_export.toon.encode_latents DATA AUTOENCODER.pt`, on the GPU where torch sees one, else
in two processes of one thread.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from faceavatar_export.toon.autoencoder import LATENT_CHANNELS, Autoencoder
from faceavatar_export.toon.training import channels_last, choose_device, load_checkpoint

PART = 2000


def encode_range(data: Path, checkpoint: Path, start: int, stop: int, device_name: str, batch: int) -> int:
    """Encodes pictures start..stop-1 into DATA/latents.npy, which must exist; returns how many."""
    device = torch.device(device_name)
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    out = np.load(data / "latents.npy", mmap_mode="r+")
    model = channels_last(Autoencoder()).eval()
    load_checkpoint(checkpoint, model=model)
    model = model.to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for i in range(start, stop, batch):
            part = np.asarray(pictures[i : min(i + batch, stop)], np.float32)
            image = torch.from_numpy(part).permute(0, 3, 1, 2).to(device)
            out[i : i + len(part)] = model.encode(image / 127.5 - 1).float().cpu().numpy()
    out.flush()
    return stop - start


def encode(data: Path, checkpoint: Path, count: int | None, device: torch.device, processes: int = 2) -> None:
    """Encodes the first `count` pictures (all by default)."""
    if load_checkpoint(checkpoint, model=Autoencoder())[0] == 0:
        raise FileNotFoundError(f"{checkpoint}: no trained autoencoder; run train_autoencoder first")
    total = len(np.load(data / "pictures.npy", mmap_mode="r")[:count])
    np.lib.format.open_memmap(data / "latents.npy", "w+", np.float16, (total, LATENT_CHANNELS, 8, 8)).flush()
    ranges = [(start, min(start + PART, total)) for start in range(0, total, PART)]
    if device.type == "cuda":
        for start, stop in ranges:
            encode_range(data, checkpoint, start, stop, str(device), 256)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        jobs = [pool.submit(encode_range, data, checkpoint, *r, "cpu", 32) for r in ranges]
        done = 0
        for job in jobs:
            done += job.result()
            print(f"{done}/{total}", flush=True)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()
    encode(args.data, args.checkpoint, args.count, choose_device(args.device))


if __name__ == "__main__":
    main()
