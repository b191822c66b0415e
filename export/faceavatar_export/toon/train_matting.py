"""Trains the matting net on drawn figures over random backgrounds, a quarter of them through the autoencoder.

`python -m faceavatar_export.toon.train_matting DATA RUN`, or `torchrun --nproc-per-node N -m ...` for N
processes that share their gradients (DATA: a set drawn with --size 512 --alpha; RUN holds autoencoder.pt).
With `--warm WARM.pt` (written by warm_start.py) a first start takes the weights of a finished pack.
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
from faceavatar_export.toon.matting_net import MattingNet
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Stage,
    channels_last,
    choose_device,
    data_workers,
    endless,
    join_processes,
    load_checkpoint,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [matting]; `latent_noise` is what the UNet leaves of error in pictures that it makes."""

    minutes: float
    batch: int
    lr: float
    latent_noise: float


def make_batch(pictures: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """image (count, 3, 256, 256) in -1..1 and alpha (count, 1, 256, 256) in 0..1."""
    rows = np.sort(rng.integers(0, len(pictures), count))
    rgba = torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255
    backs = np.stack([backdrop.sample(rng, *rgba.shape[-2:]) for _ in range(count)])
    back = torch.from_numpy(backs).permute(0, 3, 1, 2) / 255
    alpha = rgba[:, 3:]
    image = F.avg_pool2d(rgba[:, :3] * alpha + back * (1 - alpha), 2) * 2 - 1
    return image, F.avg_pool2d(alpha, 2)


@torch.no_grad()
def as_made(image: Tensor, codec: Autoencoder, latent_noise: float) -> Tensor:
    """The images with the first quarter of them as the decoder would give them."""
    some = image[: len(image) // 4]
    with torch.autocast(image.device.type, torch.bfloat16):
        latents = codec.encode(some)
        decoded = codec.decoder(latents + latent_noise * torch.randn_like(latents)).float()
    return torch.cat([F.avg_pool2d(decoded.clamp(-1, 1), 2), image[len(some) :]])


def losses(net: MattingNet, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its mean squared error."""
    logits = net.logits(image)
    guess = torch.sigmoid(logits)
    loss = F.binary_cross_entropy_with_logits(logits, alpha) + (guess - alpha).abs().mean()
    return loss, (guess.detach() - alpha).square().mean()


def train(data: Path, run: Path, settings: Settings, device: torch.device, warm: Path | None = None) -> None:
    """Trains for the settings' minutes of wall clock; RUN/matting.pt is the checkpoint."""
    team = join_processes(device)
    pictures = np.load(data / "pictures.npy", mmap_mode="r")
    codec = Autoencoder()
    if load_checkpoint(run / "autoencoder.pt", model=codec)[0] == 0:
        raise FileNotFoundError(f"{run / 'autoencoder.pt'}: not there; run train_autoencoder first")
    codec = codec.to(device)
    torch.manual_seed(0)  # the same first weights in every process
    net = MattingNet()
    if warm is not None:
        net.load_state_dict(torch.load(warm, weights_only=True)["matting"])
    net = channels_last(net.to(device))
    optimizer = torch.optim.AdamW(net.parameters(), settings.lr, weight_decay=1e-4, fused=True)
    stage = Stage(run / "matting.pt", ("loss", "mse"), settings, team, net, optimizer)
    torch.manual_seed(1000 * stage.step + stage.rank)
    make = partial(make_batch, pictures, settings.batch)
    figures = endless(make, (6, stage.step, stage.rank), data_workers(device))
    for _ in stage.steps(log_every=25, save_every=100):
        image, alpha = (part.to(device) for part in next(figures))
        loss, mse = losses(net, as_made(image, codec, settings.latent_noise), alpha)
        stage.learn(loss, clip=float("inf"))
        stage.note(loss=loss, mse=mse)


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--warm", type=Path, help="warm.pt of warm_start, for the first start")
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "matting", device.type, args.config, vars(args))
    train(args.data, args.run, settings, device, args.warm)


if __name__ == "__main__":
    main()
