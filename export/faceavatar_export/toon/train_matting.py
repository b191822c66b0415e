"""Trains the matting net on drawn figures, and on figures as a pack or its codec makes them.

`python -m faceavatar_export.toon.train_matting DATA RUN`, or `torchrun --nproc-per-node N -m ...` for N
processes that share their gradients (DATA: a set drawn with --size 512 --alpha). The coarse half learns
first, on whole pictures of 128 pixels a side, then the fine half, on the rims that it leaves; `--half` trains
one of them alone. What pictures look like that the pack makes, softer than drawings, they learn from a
quarter of each batch going through the codec, RUN's autoencoder.pt; or, with `--made FOLDER`, from figures of
a finished pack (keyed_figures.py) instead. With `--warm WARM.pt` (written by
warm_start.py) a first start takes the weights of a finished pack.
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
from faceavatar_export.toon.matting_net import CELL, SIZE, CoarseNet, MattingNet, in_doubt
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
RIMS = 2  # of a batch's pictures go to the fine half, one in so many
LEARNT = 0.35  # of the pixels in doubt are learnt from at a time: more pictures teach more than all of one
SETTLED = 0.02  # the runtime takes alpha nearer than this to 0 or 1 for that, and stretches the rest
DARK = 0.0031308  # light below which sRGB's codes are a straight line
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
    """image (B, 3, S, S) in -1..1 and figure (B, 4, S, S) in 0..1, of a batch of matting_data."""
    image, figure = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in batch)
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1, figure.permute(0, 3, 1, 2).float() / 255


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


def coarse_losses(net: CoarseNet, image: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Of whole pictures (B, 3, 128, 128)."""
    with torch.autocast(image.device.type, torch.bfloat16):
        return losses(net(image), figure[:, 3:])


def fine_losses(net: MattingNet, image: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Of pictures (B, 3, 512, 512), a part of the pixels where the coarse half is in doubt."""
    with torch.autocast(image.device.type, torch.bfloat16):
        with torch.no_grad():
            coarse, sight = (part.float() for part in net.coarse.told(F.avg_pool2d(image, CELL)))
            doubt = F.interpolate(in_doubt(coarse).float(), scale_factor=float(CELL), mode="nearest")
            where = torch.rand_like(doubt) < LEARNT * doubt
        alpha, colors = (part.float() for part in net.fine.at(image, coarse, sight, where))
    guess, truth = alpha[where], figure[:, 3:][where]
    error = guess - truth
    shown = halo(guess, _rows(colors, where), truth, _rows(figure[:, :3], where))
    return error.abs().mean() + 4 * shown, error.detach().square().mean()


def _rows(planes: Tensor, where: Tensor) -> Tensor:
    """(B, C, S, S) -> (n, C), of the pixels `where` (B, 1, S, S) says."""
    return planes.permute(0, 2, 3, 1)[where[:, 0]]


def halo(guess: Tensor, colors: Tensor, alpha: Tensor, figure: Tensor) -> Tensor:
    """How far a cut-out is from the true one on black and on white, in codes of 0..1: guessed alpha (n,) and
    colours (n, 3); true alpha (n,) and colours times alpha (n, 3). Composited in linear light, as the runtime
    does it, and settled as there.
    """
    guess = ((guess - SETTLED) / (1 - 2 * SETTLED)).clamp(0, 1)[:, None]
    alpha = alpha[:, None]
    true = light((figure / alpha.clamp_min(1 / 255)).clamp(0, 1)) * alpha
    ours = light(colors) * guess
    black = (codes(ours) - codes(true)).abs().mean()
    white = (codes(ours + 1 - guess) - codes(true + 1 - alpha)).abs().mean()
    return (black + white) / 2


def light(codes: Tensor) -> Tensor:
    """Of sRGB codes, both in 0..1 (IEC 61966-2-1)."""
    return torch.where(codes <= 0.04045, codes / 12.92, ((codes.clamp_min(0.04) + 0.055) / 1.055) ** 2.4)


def codes(light: Tensor) -> Tensor:
    """The inverse of `light`."""
    curve = 1.055 * light.clamp_min(DARK) ** (1 / 2.4) - 0.055
    return torch.where(light < DARK, 12.92 * light, curve)


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
    make = partial(make_batch, figures, max(1, settings.batch // RIMS), SIZE)

    def loss(_: nn.Module, image: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
        return fine_losses(net, image, figure)

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
        image, figure = as_tensors(next(batches), device)
        loss, mse = loss_of(half, softer(image), figure)
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
