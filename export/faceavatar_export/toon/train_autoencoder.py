"""Trains the autoencoder on crops of drawn figures over random backgrounds; restarts from its checkpoint.

`python -m faceavatar_export.toon.train_autoencoder DATA OUT --minutes 20`
(DATA: a set drawn with --size 512 --alpha).
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

from faceavatar_export.toon import colors
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.training import (
    RunLog,
    channels_last,
    load_checkpoint,
    save_checkpoint,
    warm_cosine,
)

LATENT_NOISE = 0.1


def random_backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """Plain or vertical-gradient colour, float32 (size, 1, 3) in 0..255."""
    named = [colors.hex_to_rgb(c) for c in colors.BACKGROUND_COLORS.values()]
    pick = [
        named[rng.integers(len(named))] if rng.random() < 0.7 else rng.uniform(0, 255, 3) for _ in range(2)
    ]
    if rng.random() < 0.8:
        pick[1] = pick[0]
    t = np.linspace(0, 1, size)[:, None]
    return (pick[0] * (1 - t) + pick[1] * t).astype(np.float32)[:, None, :]


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
        out[i] = part[..., :3] * alpha + random_backdrop(rng, size)[y : y + crop] * (1 - alpha)
    return torch.from_numpy(out).permute(0, 3, 1, 2) / 127.5 - 1


def picture_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """L1, plus L1 of finite differences: edges, eyes and mouths weigh as much as large plain areas."""
    loss = (decoded - target).abs().mean()
    for dim in (2, 3):
        loss = loss + 1.5 * (decoded.diff(dim=dim) - target.diff(dim=dim)).abs().mean()
    wide = F.avg_pool2d(decoded - target, 4).abs().mean()
    return loss + wide


def measure_latents(model: Autoencoder, pictures: np.ndarray, rng: np.random.Generator) -> None:
    """Sets the decoder's mean and std from 512 whole pictures."""
    with torch.no_grad():
        latents = torch.cat(
            [model.encoder(F.avg_pool2d(batch(pictures, rng, 16, pictures.shape[1]), 2)) for _ in range(32)]
        )
    model.decoder.mean.copy_(latents.mean((0, 2, 3)))
    model.decoder.std.copy_(latents.std((0, 2, 3)))


def train(data: Path, out: Path, minutes: float, batch_size: int, crop: int, lr: float) -> None:
    """Trains for `minutes` of wall clock with a warm-up and cosine decay over that time."""
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    model = channels_last(Autoencoder())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=1e-4)
    step, spent = load_checkpoint(out / "autoencoder.pt", model=model, optimizer=optimizer)
    if not bool((model.decoder.std == 1).all()):
        raise ValueError(
            f"{out / 'autoencoder.pt'}: finished, and its latents' statistics are fixed, since other stages "
            "stand on them; go on with refine_decoder, or train anew in an empty folder"
        )
    rng = np.random.default_rng((5, step))
    log, start = RunLog(out / "autoencoder.csv", ("step", "minutes", "loss", "l1")), time.time() - spent
    while (elapsed := (time.time() - start) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        target = batch(pictures, rng, batch_size, crop).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            raw = model.encoder(F.avg_pool2d(target, 2))
            noisy = raw + LATENT_NOISE * torch.randn_like(raw)
            decoded = model.decoder(noisy)
        decoded = decoded.float()
        loss = picture_loss(decoded, target) + 0.002 * F.relu(raw.float().square() - 4).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            l1 = float((decoded - target).abs().mean())
            log.write(step, elapsed, float(loss), l1)
            if not math.isfinite(float(loss)):
                raise RuntimeError(f"loss is {float(loss)} at step {step}")
        if step % 300 == 0:
            save_checkpoint(
                out / "autoencoder.pt", step, time.time() - start, model=model, optimizer=optimizer
            )
    # The noise above is relative to raw latents near unit scale; their statistics are fixed only now.
    measure_latents(model, pictures, rng)
    save_checkpoint(out / "autoencoder.pt", step, time.time() - start, model=model, optimizer=optimizer)


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
    args = parser.parse_args()
    train(args.data, args.out, args.minutes, args.batch, args.crop, args.lr)


if __name__ == "__main__":
    main()
