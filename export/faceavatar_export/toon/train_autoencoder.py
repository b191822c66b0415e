"""Trains the autoencoder on crops of drawn figures over random backgrounds; restarts from its checkpoint.

`python -m faceavatar_export.toon.train_autoencoder DATA OUT`, or `torchrun --nproc-per-node N -m
...` for N processes that share their gradients (DATA: a set drawn with --size 512 --alpha).

With `--warm WARM.pt` (written by warm_start.py) a first start takes the decoder and the latents' statistics
of a finished pack: a new encoder learns to speak to it, frozen, for a third of the time, and both are trained
after that. Latents then keep the meaning that the pack's UNet knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import backdrop
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Stage,
    channels_last,
    choose_device,
    data_workers,
    endless,
    join_processes,
)

STATISTICS_BATCHES = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [autoencoder]."""

    minutes: float
    batch: int
    crop: int
    lr: float
    latent_noise: float
    frozen_share: float


def batch(pictures: np.ndarray, count: int, crop: int, rng: np.random.Generator) -> Tensor:
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
    device, size = model.decoder.mean.device, pictures.shape[1]
    with torch.no_grad():
        latents = torch.cat(
            [
                model.encoder(F.avg_pool2d(batch(pictures, 16, size, rng).to(device), 2))
                for _ in range(STATISTICS_BATCHES)
            ]
        )
    model.decoder.mean.copy_(latents.mean((0, 2, 3)))
    model.decoder.std.copy_(latents.std((0, 2, 3)))


def losses(model: Autoencoder, target: Tensor, latent_noise: float) -> tuple[Tensor, Tensor]:
    """The loss of a batch of crops, with noise on the latents and a pull on large ones; and its plain L1."""
    with torch.autocast(target.device.type, torch.bfloat16):
        latents = model.encode(F.avg_pool2d(target, 2))
        decoded = model.decoder(latents + latent_noise * torch.randn_like(latents))
    decoded = decoded.float()
    loss = picture_loss(decoded, target) + 0.002 * F.relu(latents.float().square() - 9).mean()
    return loss, (decoded.detach() - target).abs().mean()


def start_warm(model: Autoencoder, warm: Path) -> None:
    """Fills the decoder and the latents' statistics from a finished pack's."""
    model.decoder.load_state_dict(torch.load(warm, weights_only=True)["decoder"])


def prepare(
    out: Path, settings: Settings, device: torch.device, warm: Path | None
) -> tuple[Stage, Autoencoder]:
    """A fresh, a warm or a restored run on its device; ValueError where it is finished for good."""
    team = join_processes(device)
    torch.manual_seed(0)  # the same first weights in every process
    model = Autoencoder()
    file = out / "autoencoder.pt"
    if warm is not None and not file.exists():
        start_warm(model, warm)
    model = channels_last(model.to(device))
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, (0.9, 0.95), weight_decay=1e-4, fused=True)
    stage = Stage(file, ("loss", "l1"), settings, team, model, optimizer)
    if warm is None and not bool((model.decoder.std == 1).all()):
        raise ValueError(
            f"{file}: finished, and its latents' statistics are fixed, since other stages stand on them; "
            "go on with refine_decoder, or train anew in an empty folder"
        )
    return stage, model


def train(data: Path, out: Path, settings: Settings, device: torch.device, warm: Path | None = None) -> None:
    """Trains for the settings' minutes of wall clock; OUT/autoencoder.pt is the checkpoint."""
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    stage, model = prepare(out, settings, device, warm)
    torch.manual_seed(1000 * stage.step + stage.rank)
    make = partial(batch, pictures, settings.batch, settings.crop)
    crops = endless(make, (5, stage.step, stage.rank), data_workers(device))
    for share in stage.steps(save_every=300):
        model.decoder.requires_grad_(warm is None or share > settings.frozen_share)
        target = next(crops).to(device, memory_format=torch.channels_last)
        loss, l1 = losses(model, target, settings.latent_noise)
        stage.learn(loss)
        stage.note(loss=loss, l1=l1)
    if stage.leads and warm is None:
        # The noise is relative to raw latents near unit scale; statistics are fixed only now.
        measure_latents(model, pictures, np.random.default_rng((5, stage.step)))
        stage.save()


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--warm", type=Path, help="warm.pt of warm_start, at every start")
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "autoencoder", device.type, args.config, vars(args))
    train(args.data, args.out, settings, device, args.warm)


if __name__ == "__main__":
    main()
