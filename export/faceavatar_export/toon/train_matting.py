"""Trains the matting net on drawn figures over random backgrounds, a quarter of them through the autoencoder.

`python -m faceavatar_export.toon.train_matting DATA RUN --minutes 6`
(DATA: a set drawn with --size 512 --alpha; RUN holds autoencoder.pt).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import backdrop
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.matting_net import MattingNet
from faceavatar_export.toon.training import (
    RunLog,
    channels_last,
    load_checkpoint,
    save_checkpoint,
    warm_cosine,
)


def make_batch(
    pictures: np.ndarray, codec: Autoencoder, rng: np.random.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """image (count, 3, 256, 256) in -1..1 and alpha (count, 1, 256, 256) in 0..1."""
    rows = np.sort(rng.integers(0, len(pictures), count))
    rgba = torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255
    backs = np.stack([backdrop.sample(rng, *rgba.shape[-2:]) for _ in range(count)])
    back = torch.from_numpy(backs).permute(0, 3, 1, 2) / 255
    alpha = rgba[:, 3:]
    small = F.avg_pool2d(rgba[:, :3] * alpha + back * (1 - alpha), 2) * 2 - 1
    half = count // 4
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = codec.encode(small[:half])
        decoded = codec.decoder(latents + 0.15 * torch.randn_like(latents)).float()
    image = torch.cat([F.avg_pool2d(decoded.clamp(-1, 1), 2), small[half:]])
    return image, F.avg_pool2d(alpha, 2)


def train(data: Path, run: Path, minutes: float, batch_size: int, lr: float) -> None:
    """Trains for `minutes` of wall clock; RUN/matting.pt is the checkpoint."""
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    codec = Autoencoder()
    load_checkpoint(run / "autoencoder.pt", model=codec)
    net = channels_last(MattingNet())
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4)
    step, spent = load_checkpoint(run / "matting.pt", model=net, optimizer=optimizer)
    rng = np.random.default_rng((6, step))
    log, start = RunLog(run / "matting.csv", ("step", "minutes", "loss", "mse")), time.time() - spent
    while (elapsed := (time.time() - start) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        image, alpha = make_batch(pictures, codec, rng, batch_size)
        logits = net.logits(image)
        guess = torch.sigmoid(logits)
        loss = F.binary_cross_entropy_with_logits(logits, alpha) + (guess - alpha).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 25 == 0:
            log.write(step, elapsed, loss.item(), (guess - alpha).square().mean().item())
        if step % 100 == 0:
            save_checkpoint(run / "matting.pt", step, time.time() - start, model=net, optimizer=optimizer)
    save_checkpoint(run / "matting.pt", step, time.time() - start, model=net, optimizer=optimizer)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    train(args.data, args.run, args.minutes, args.batch, args.lr)


if __name__ == "__main__":
    main()
