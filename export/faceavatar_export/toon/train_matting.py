"""Trains the matting net on drawn figures, and on figures as a pack or its codec makes them.

`python -m faceavatar_export.toon.train_matting DATA RUN`, or `torchrun --nproc-per-node N -m ...` for N
processes that share their gradients (DATA: a set drawn with --size 512 --alpha). The coarse half learns
first, on whole pictures of 128 pixels a side, then the fine half, on crops; `--half` trains one of them
alone. What
pictures look like that the pack makes, softer than drawings, they learn from a quarter of each batch going
through the codec, RUN's autoencoder.pt; or, with `--made FOLDER`, from figures of a finished pack
(keyed_figures.py) instead. With `--warm WARM.pt` (written by warm_start.py) a first start takes the weights
of a finished pack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export.toon.autoencoder import INPUT_SIZE, Autoencoder
from faceavatar_export.toon.matting_data import Figures, make_batch, shrunk
from faceavatar_export.toon.matting_net import CELL, SIZE, CoarseNet, MattingNet
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Average,
    Stage,
    channels_last,
    choose_device,
    data_workers,
    endless,
    join_processes,
    load_checkpoint,
)

HALVES = ("coarse", "fine")
CROP = 32  # cells a side of what the fine half is trained on
CROPS = 4  # of each picture
AT_EDGE = 0.75  # of them lie on the figure's rim, the others anywhere
Softer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [matting]; `latent_noise` is what the UNet leaves of error in pictures that it makes.

    coarse_share: of the time. made_share: of the figures, with --made. decay: of averaged weights, a step.
    """

    minutes: float
    batch: int
    lr: float
    decay: float
    latent_noise: float
    coarse_share: float
    made_share: float


def as_tensors(
    batch: tuple[np.ndarray, np.ndarray], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """image (B, 3, S, S) in -1..1 and alpha (B, 1, S, S) in 0..1, of a batch of matting_data."""
    image, alpha = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in batch)
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1, alpha[:, None].float() / 255


@torch.no_grad()
def as_made(image: Tensor, codec: Autoencoder, latent_noise: float) -> Tensor:
    """The images (B, 3, S, S), the first quarter of them, at least one, as the decoder would give them."""
    some = image[: max(1, len(image) // 4)]  # of a single picture, that one
    with torch.autocast(image.device.type, torch.bfloat16):
        latents = codec.encode(F.interpolate(some, size=(INPUT_SIZE, INPUT_SIZE), mode="area"))
        decoded = codec.decoder(latents + latent_noise * torch.randn_like(latents)).float()
    decoded = F.interpolate(decoded.clamp(-1, 1), size=image.shape[-2:], mode="area")
    return torch.cat([decoded, image[len(some) :]])


def losses(logits: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its mean squared error.

    Cross-entropy finds the figure, absolute errors of alpha and of its slopes make the edge.
    """
    guess = torch.sigmoid(logits.float())
    error = guess - alpha
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss = F.binary_cross_entropy_with_logits(logits.float(), alpha) + error.abs().mean() + 2 * slopes
    return loss, error.detach().square().mean()


def coarse_losses(net: CoarseNet, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Of whole pictures (B, 3, 128, 128)."""
    with torch.autocast(image.device.type, torch.bfloat16):
        return losses(net(image), alpha)


def fine_losses(net: MattingNet, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Of crops of pictures (B, 3, 512, 512), under what the coarse half says of the whole."""
    with torch.autocast(image.device.type, torch.bfloat16):
        with torch.no_grad():
            coarse = net.coarse(F.avg_pool2d(image, CELL)).float()
        parts = [crops(row, image[i], coarse[i], alpha[i]) for i, row in enumerate(places(alpha))]
        pixels, known, truth = (torch.cat(part) for part in zip(*parts, strict=True))
        return losses(net.fine(pixels, known), truth)


def places(alpha: Tensor) -> Tensor:
    """Upper left cells (B, CROPS, 2) of crops, most of them around a place on the figure's rim."""
    cells = F.avg_pool2d(alpha, CELL)[:, 0]
    rim = ((cells > 0.02) & (cells < 0.98)).float().flatten(1) + 1e-9
    last = cells.shape[-1] - CROP
    at = torch.multinomial(rim, CROPS, replacement=True)
    edge = torch.stack([at // cells.shape[-1], at % cells.shape[-1]], dim=-1) - CROP // 2
    edge = (edge + torch.randint(-CROP // 4, CROP // 4, edge.shape, device=alpha.device)).clamp(0, last)
    anywhere = torch.randint(0, last + 1, edge.shape, device=alpha.device)
    return torch.where(torch.rand(edge.shape[:2], device=alpha.device)[..., None] < AT_EDGE, edge, anywhere)


def crops(row: Tensor, image: Tensor, coarse: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The crops of one picture: pixels, coarse logits, alpha, each (CROPS, C, side, side)."""

    def cut(plane: Tensor, grain: int) -> Tensor:
        side = CROP * grain
        return torch.stack(
            [plane[:, y * grain : y * grain + side, x * grain : x * grain + side] for y, x in row.tolist()]
        )

    return cut(image, CELL), cut(coarse, 1), cut(alpha, CELL)


def load_codec(run: Path, device: torch.device) -> Autoencoder:
    """The run's codec. Raises FileNotFoundError."""
    codec = Autoencoder()
    if load_checkpoint(run / "autoencoder.pt", model=codec)[0] == 0:
        raise FileNotFoundError(
            f"{run / 'autoencoder.pt'}: not there; run train_autoencoder first, or give figures that a pack "
            "made with --made"
        )
    return codec.to(device)


def load_figures(data: Path, made: Path | None, made_share: float) -> Figures:
    """The drawn figures, and beside them those that a pack made."""
    drawn = np.load(data / "pictures.npy", mmap_mode="r")
    if made is None:
        return Figures((drawn,), (1.0,))
    return Figures((drawn, np.load(made / "pictures.npy", mmap_mode="r")), (1 - made_share, made_share))


def train(
    data: Path,
    run: Path,
    settings: Settings,
    device: torch.device,
    warm: Path | None = None,
    made: Path | None = None,
    halves: tuple[str, ...] = HALVES,
) -> None:
    """Trains for the settings' minutes; RUN/matting_coarse.pt and RUN/matting_fine.pt are the checkpoints."""
    team = join_processes(device)
    softer: Softer = _same
    if made is None:
        softer = partial(as_made, codec=load_codec(run, device), latent_noise=settings.latent_noise)
    figures = load_figures(data, made, settings.made_share)
    torch.manual_seed(0)  # the same first weights in every process
    net = MattingNet()
    if warm is not None:
        net.load_state_dict(torch.load(warm, weights_only=True)["matting"])
    net = channels_last(net.to(device))
    share = settings.coarse_share
    if "coarse" in halves:
        coarse = replace(settings, minutes=settings.minutes * share)
        _train_coarse(net, run, coarse, device, team, figures, softer)
    if "fine" in halves:
        fine = replace(settings, minutes=settings.minutes * (1 - share))
        load_half(net, run, "coarse")
        _train_fine(net, run, fine, device, team, figures, softer)


def _same(image: Tensor) -> Tensor:
    return image


def load_half(net: MattingNet, run: Path, half: str) -> None:
    """Takes the averaged weights of one half from its checkpoint. Raises FileNotFoundError."""
    average = Average(getattr(net, half))
    file = run / f"matting_{half}.pt"
    if load_checkpoint(file, average=average)[0] == 0:
        raise FileNotFoundError(f"{file}: not there; run train_matting, which trains the coarse half first")
    getattr(net, half).load_state_dict(average.module.state_dict())


def _train_coarse(
    net: MattingNet,
    run: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    figures: Figures,
    softer: Softer,
) -> None:
    small = Figures(tuple(shrunk(one, SIZE // CELL) for one in figures.sets), figures.shares)
    make = partial(make_batch, small, settings.batch, SIZE // CELL)
    _learn(net.coarse, run / "matting_coarse.pt", settings, device, team, make, softer, coarse_losses)


def _train_fine(
    net: MattingNet,
    run: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    figures: Figures,
    softer: Softer,
) -> None:
    make = partial(make_batch, figures, max(1, settings.batch // CROPS), SIZE)

    def loss(_: nn.Module, image: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        return fine_losses(net, image, alpha)

    _learn(net.fine, run / "matting_fine.pt", settings, device, team, make, softer, loss)


def _learn(
    half: nn.Module,
    file: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    softer: Softer,
    loss_of: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    """The steps of one half."""
    average = Average(half, settings.decay)
    optimizer = torch.optim.AdamW(half.parameters(), settings.lr, weight_decay=1e-4, fused=True)
    stage = Stage(file, ("loss", "mse"), settings, team, half, optimizer, average=average)
    torch.manual_seed(1000 * stage.step + stage.rank)
    batches = endless(make, (6, stage.step, stage.rank), data_workers(device))
    for _ in stage.steps(log_every=25, save_every=100):
        image, alpha = as_tensors(next(batches), device)
        loss, mse = loss_of(half, softer(image), alpha)
        stage.learn(loss, clip=1.0)
        average.update(half, stage.step)
        stage.note(loss=loss, mse=mse)


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--warm", type=Path, help="warm.pt of warm_start, for the first start")
    parser.add_argument("--made", type=Path, help="figures of keyed_figures, in place of the codec")
    parser.add_argument("--half", choices=HALVES, help="train this half alone")
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "matting", device.type, args.config, vars(args))
    halves = HALVES if args.half is None else (args.half,)
    train(args.data, args.run, settings, device, args.warm, args.made, halves)


if __name__ == "__main__":
    main()
