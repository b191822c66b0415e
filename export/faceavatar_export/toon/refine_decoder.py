"""Trains the decoder on, with the encoder frozen: latents already made stay valid, and pictures grow sharper.

`python -m faceavatar_export.toon.refine_decoder DATA RUN`, or
`torchrun --nproc-per-node N -m ...` for N processes that share their gradients, reads RUN/autoencoder.pt,
trains from where its decoder stands (DATA: a set drawn with --size 512 --alpha) and writes RUN/refined.pt,
which has the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.train_autoencoder import batch, picture_loss
from faceavatar_export.toon.training import (
    Stage,
    channels_last,
    choose_device,
    data_workers,
    endless,
    join_processes,
    load_checkpoint,
)

CELLS = 5  # latents a side of the crop that is decoded


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [refine]."""

    minutes: float
    batch: int
    lr: float
    latent_noise: float


def crop_pair(latents: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The same random square of latents (B, 64, 8, 8) and of pictures (B, 3, 512, 512); favours the head."""
    free = latents.shape[-1] - CELLS
    y, x = (int(np.rint(rng.triangular(0, free / 2, free))) for _ in range(2))
    cell = target.shape[-1] // latents.shape[-1]
    part = target[:, :, y * cell : (y + CELLS) * cell, x * cell : (x + CELLS) * cell]
    return latents[:, :, y : y + CELLS, x : x + CELLS], part


def losses(
    model: Autoencoder, whole: Tensor, latent_noise: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The loss of whole pictures (B, 3, 512, 512), a crop of each decoded; and its plain L1."""
    with torch.autocast(whole.device.type, torch.bfloat16):
        with torch.no_grad():
            latents = model.encode(F.avg_pool2d(whole, 2))
        part, target = crop_pair(latents, whole, rng)
        strength = latent_noise * torch.rand(len(part), 1, 1, 1, device=part.device)
        decoded = model.decoder(part + strength * torch.randn_like(part))
    decoded = decoded.float()
    return picture_loss(decoded, target), (decoded.detach() - target).abs().mean()


def refine(data: Path, run: Path, settings: Settings, device: torch.device) -> None:
    """Trains for the settings' minutes of wall clock; RUN/refined.pt is the checkpoint."""
    team = join_processes(device)
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    model = Autoencoder()
    if load_checkpoint(run / "autoencoder.pt", model=model)[0] == 0:
        raise FileNotFoundError(f"{run / 'autoencoder.pt'}: not there; run train_autoencoder first")
    model = channels_last(model.to(device))
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.decoder.parameters(), settings.lr, (0.9, 0.95), weight_decay=1e-4, fused=True
    )
    stage = Stage(run / "refined.pt", ("loss", "l1"), settings, team, model, optimizer)
    torch.manual_seed(1000 * stage.step + stage.rank)
    seed = (15, stage.step, stage.rank)
    make = partial(batch, pictures, settings.batch, pictures.shape[1])
    wholes, rng = endless(make, seed, data_workers(device)), np.random.default_rng((*seed, 1))
    for _ in stage.steps():
        whole = next(wholes).to(device, memory_format=torch.channels_last)
        loss, l1 = losses(model, whole, settings.latent_noise, rng)
        stage.learn(loss)
        stage.note(loss=loss, l1=l1)


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "refine", device.type, args.config, vars(args))
    refine(args.data, args.run, settings, device)


if __name__ == "__main__":
    main()
