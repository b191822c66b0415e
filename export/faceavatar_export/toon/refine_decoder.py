"""Trains the decoder on, with the encoder frozen: latents already made stay valid, and pictures grow sharper.

`python -m faceavatar_export.toon.refine_decoder DATA RUN --minutes 15`, or
`torchrun --nproc-per-node N -m ...` for N processes that share their gradients, reads RUN/autoencoder.pt,
trains from where its decoder stands (DATA: a set drawn with --size 512 --alpha) and writes RUN/refined.pt,
which has the same parts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.train_autoencoder import batch, picture_loss
from faceavatar_export.toon.training import (
    RunLog,
    agreed,
    channels_last,
    join_processes,
    load_checkpoint,
    save_checkpoint,
    share_gradients,
    warm_cosine,
)

CELLS = 5  # latents a side of the crop that is decoded
NOISE = 0.15  # what the UNet leaves of error in normalised latents, roughly


def crop_pair(latents: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of latents (B, 64, 8, 8) and of pictures (B, 3, 512, 512); favours the head."""
    free = latents.shape[-1] - CELLS
    y, x = (int(np.rint(rng.triangular(0, free / 2, free))) for _ in range(2))
    cell = target.shape[-1] // latents.shape[-1]
    part = target[:, :, y * cell : (y + CELLS) * cell, x * cell : (x + CELLS) * cell]
    return latents[:, :, y : y + CELLS, x : x + CELLS], part


def refine(data: Path, run: Path, minutes: float, batch_size: int, lr: float) -> None:
    """Trains for `minutes` of wall clock; restarts from RUN/refined.pt where there is one."""
    rank, processes = join_processes()
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    model = channels_last(Autoencoder())
    load_checkpoint(run / "autoencoder.pt", model=model)
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=1e-4)
    step, spent = load_checkpoint(run / "refined.pt", model=model, optimizer=optimizer)
    rng = np.random.default_rng((15, step, rank))
    torch.manual_seed(1000 * step + rank)
    log, start = RunLog(run / "refined.csv", ("step", "minutes", "loss", "l1")), time.time() - spent
    losses: list[tuple[float, float]] = []
    while (elapsed := agreed((time.time() - start) / 60, processes)) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        whole = batch(pictures, rng, batch_size, pictures.shape[1]).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = model.encode(F.avg_pool2d(whole, 2))
            part, target = crop_pair(latents, whole, rng)
            decoded = model.decoder(part + NOISE * torch.rand(batch_size, 1, 1, 1) * torch.randn_like(part))
        decoded = decoded.float()
        loss = picture_loss(decoded, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(model.decoder, processes)
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        if rank > 0:
            continue
        losses.append((loss.item(), (decoded.detach() - target).abs().mean().item()))
        if step % 50 == 0:
            log.write(step, elapsed, *np.mean(losses, axis=0))
            losses.clear()
        if step % 200 == 0:
            save_checkpoint(run / "refined.pt", step, time.time() - start, model=model, optimizer=optimizer)
    if rank == 0:
        save_checkpoint(run / "refined.pt", step, time.time() - start, model=model, optimizer=optimizer)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    refine(args.data, args.run, args.minutes, args.batch, args.lr)


if __name__ == "__main__":
    main()
