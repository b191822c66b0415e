"""Trains the autoencoder on crops of drawn figures over random backgrounds; restarts from its checkpoint.

`python -m faceavatar_export.toon.train_autoencoder DATA OUT --minutes 20`, or `torchrun --nproc-per-node N -m
...` for N processes that share their gradients (DATA: a set drawn with --size 512 --alpha).

With `--warm WARM.pt` (written by warm_start.py) a first start takes the decoder and the latents' statistics
of a finished pack: a new encoder learns to speak to it, frozen, for a third of the time, and both are trained
after that. Latents then keep the meaning that the pack's UNet knows.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import backdrop
from faceavatar_export.toon.autoencoder import Autoencoder
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

LATENT_NOISE = 0.1
FROZEN_SHARE = 0.33  # of the time that a warm decoder waits for its new encoder


def batch(pictures: np.ndarray, rng: np.random.Generator, count: int, crop: int) -> Tensor:
    """(count, 3, crop, crop) float32 in -1..1; crops lie on the 64 px latent grid, and favour the head."""
    out = np.empty((count, crop, crop, 3), np.float32)
    for i in range(count):
        rgba = pictures[rng.integers(len(pictures))]
        size = rgba.shape[0]
        steps = (size - crop) // 64
        y, x = (int(np.rint(rng.triangular(0, steps / 2, steps))) * 64 if steps else 0 for _ in range(2))
        part = rgba[y : y + crop, x : x + crop].astype(np.float32)
        alpha = part[..., 3:] / 255
        behind = backdrop.sample(rng, size, size)[y : y + crop, x : x + crop]
        out[i] = part[..., :3] * alpha + behind * (1 - alpha)
    return torch.from_numpy(out).permute(0, 3, 1, 2) / 127.5 - 1


def picture_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """L1, plus L1 of finite differences: edges, eyes and mouths weigh as much as large plain areas.

    The differences are taken of the logarithm too, because dark lines on dark skin are as much of a face as
    dark lines on pale skin, and plain numbers hardly see them.
    """
    loss = (decoded - target).abs().mean()
    for dim in (2, 3):
        loss = loss + 1.5 * (decoded.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
        loss = loss + 0.5 * (_log(decoded).diff(dim=dim) - _log(target).diff(dim=dim)).abs().mean()
    wide = F.avg_pool2d(decoded - target, 4).abs().mean()
    return loss + wide


def _log(picture: Tensor) -> Tensor:
    """Of pixels in -1..1; about as steep as they are in the light, five times steeper in the dark."""
    return torch.log((picture.clamp(-1, 1) + 1) / 2 + 0.15)


def measure_latents(model: Autoencoder, pictures: np.ndarray, rng: np.random.Generator) -> None:
    """Sets the decoder's mean and std from 512 whole pictures."""
    with torch.no_grad():
        latents = torch.cat(
            [model.encoder(F.avg_pool2d(batch(pictures, rng, 16, pictures.shape[1]), 2)) for _ in range(32)]
        )
    model.decoder.mean.copy_(latents.mean((0, 2, 3)))
    model.decoder.std.copy_(latents.std((0, 2, 3)))


def start_warm(model: Autoencoder, warm: Path) -> None:
    """Fills the decoder and the latents' statistics from a finished pack's."""
    model.decoder.load_state_dict(torch.load(warm, weights_only=True)["decoder"])


def train(
    data: Path, out: Path, minutes: float, batch_size: int, crop: int, lr: float, warm: Path | None = None
) -> None:
    """Trains for `minutes` of wall clock with a warm-up and cosine decay over that time."""
    rank, processes = join_processes()
    torch.manual_seed(0)  # the same first weights in every process
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    model = channels_last(Autoencoder())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=1e-4)
    step, spent = load_checkpoint(out / "autoencoder.pt", model=model, optimizer=optimizer)
    if warm is None and not bool((model.decoder.std == 1).all()):
        raise ValueError(
            f"{out / 'autoencoder.pt'}: finished, and its latents' statistics are fixed, since other stages "
            "stand on them; go on with refine_decoder, or train anew in an empty folder"
        )
    if warm is not None and step == 0:
        start_warm(model, warm)
    rng = np.random.default_rng((5, step, rank))
    torch.manual_seed(1000 * step + rank)
    log, start = RunLog(out / "autoencoder.csv", ("step", "minutes", "loss", "l1")), time.time() - spent
    while (elapsed := agreed((time.time() - start) / 60, processes)) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        model.decoder.requires_grad_(warm is None or elapsed > minutes * FROZEN_SHARE)
        target = batch(pictures, rng, batch_size, crop).contiguous(memory_format=torch.channels_last)
        loss, l1 = losses(model, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(model, processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if rank == 0 and step % 50 == 0:
            log.write(step, elapsed, loss.item(), l1.item())
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"loss is {loss.item()} at step {step}")
        if rank == 0 and step % 300 == 0:
            save_checkpoint(
                out / "autoencoder.pt", step, time.time() - start, model=model, optimizer=optimizer
            )
    if rank > 0:
        return
    if warm is None:  # the noise is relative to raw latents near unit scale; statistics are fixed only now
        measure_latents(model, pictures, rng)
    save_checkpoint(out / "autoencoder.pt", step, time.time() - start, model=model, optimizer=optimizer)


def losses(model: Autoencoder, target: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch of crops, with noise on the latents and a pull on large ones; and its plain L1."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encode(F.avg_pool2d(target, 2))
        decoded = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents))
    decoded = decoded.float()
    loss = picture_loss(decoded, target) + 0.002 * F.relu(latents.float().square() - 9).mean()
    return loss, (decoded.detach() - target).abs().mean()


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warm", type=Path)
    args = parser.parse_args()
    train(args.data, args.out, args.minutes, args.batch, args.crop, args.lr, args.warm)


if __name__ == "__main__":
    main()
