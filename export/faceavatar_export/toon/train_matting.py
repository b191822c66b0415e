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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export.toon.autoencoder import INPUT_SIZE, Autoencoder
from faceavatar_export.toon.matting_data import Figures, make_batch, shrunk
from faceavatar_export.toon.matting_net import CELL, SIZE, CoarseNet, FineNet, MattingNet, Rows, in_doubt
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.shelf import mixed
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
REUSED = 4  # batches that a picture is learnt from: making one costs as much as a step
RIMS = 16  # of a batch's pictures the fine half takes in one in so many, at each of its steps
PIXELS = 16384  # that it learns from at a step, for each picture taken in
RIM_SHARE = 0.7  # of a picture's pixels in doubt, where alpha is between 0 and 1
REST_SHARE = 0.25  # and where it is not
KEPT_PICTURES, KEPT_PIXELS = 2048, 1_500_000
SETTLED = 0.02  # the runtime takes alpha nearer than this to 0 or 1 for that, and stretches the rest
DARK = 0.0031308  # light below which sRGB's codes are a straight line
Softer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [matting]; `latent_noise` is what the UNet leaves of error in pictures that it makes.

    coarse_share: of the time, where both halves are trained. made_share: of the figures, with --made.
    decay: of averaged weights, a step.
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
    """The images (B, 3, S, S), the first quarter of them as the decoder would give them; of fewer than four,
    one now and then."""
    some = image[: int(len(image) / 4 + float(torch.rand(())))]
    if not len(some):
        return image
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


@torch.no_grad()
def fine_examples(net: MattingNet, image: Tensor, figure: Tensor) -> tuple[Tensor, ...]:
    """Rows of a part of the pixels where the coarse half is in doubt, of pictures (B, 3, 512, 512), and the
    figure there (n, 4). Rims are rare: more of them are taken."""
    coarse, sight = (part.float() for part in net.coarse.told(F.avg_pool2d(image, CELL)))
    doubt = F.interpolate(in_doubt(coarse).float(), scale_factor=float(CELL), mode="nearest")
    rim = (figure[:, 3:] > 0.01) & (figure[:, 3:] < 0.99)
    where = torch.rand_like(doubt) < doubt * torch.where(rim, RIM_SHARE, REST_SHARE)
    rows = net.fine.rows(image, coarse, sight, where)
    truth = figure.permute(0, 2, 3, 1)[where[:, 0]]
    return rows.around.bfloat16(), rows.near.bfloat16(), rows.own, truth


def fine_losses(net: FineNet, rows: Rows, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Of n pixels, and the figure there (n, 4)."""
    with torch.autocast(figure.device.type, torch.bfloat16):
        guess, colors = net.told(rows)
    error = guess - figure[:, 3]
    loss = error.abs().mean() + 4 * halo(guess, colors, figure[:, 3], figure[:, :3])
    return loss, error.detach().square().mean()


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
    parts = {"coarse": settings.coarse_share, "fine": 1 - settings.coarse_share}
    shares = parts if len(halves) > 1 else dict.fromkeys(halves, 1.0)
    if "coarse" in halves:
        coarse = replace(settings, minutes=settings.minutes * shares["coarse"])
        _train_coarse(net, run, coarse, device, team, figures, softer)
    if "fine" in halves:
        fine = replace(settings, minutes=settings.minutes * shares["fine"])
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
    side = SIZE // CELL
    small = Figures(tuple(shrunk(one, side) for one in figures.sets), figures.shares)
    make = partial(make_batch, small, max(1, settings.batch // REUSED), side)

    def fresh(image: Tensor, figure: Tensor) -> tuple[Tensor, ...]:
        return softer(image).half(), figure.half()

    def loss_of(image: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
        return coarse_losses(net.coarse, image.float(), figure.float())

    examples = _Examples(make, fresh, KEPT_PICTURES, settings.batch)
    _learn(net.coarse, run / "matting_coarse.pt", settings, device, team, examples, loss_of)


def _train_fine(
    net: MattingNet,
    run: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    figures: Figures,
    softer: Softer,
) -> None:
    count = max(1, settings.batch // RIMS)

    def fresh(image: Tensor, figure: Tensor) -> tuple[Tensor, ...]:
        return fine_examples(net, softer(image), figure)

    def loss_of(*parts: Tensor) -> tuple[Tensor, Tensor]:
        return fine_losses(net.fine, Rows(*parts[:3]), parts[3])

    make = partial(make_batch, figures, count, SIZE)
    examples = _Examples(make, fresh, KEPT_PIXELS, PIXELS * count)
    _learn(net.fine, run / "matting_fine.pt", settings, device, team, examples, loss_of)


@dataclass(frozen=True, slots=True)
class _Examples:
    """make: new pictures; fresh: the examples in them; kept, count: see shelf.mixed."""

    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    fresh: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    kept: int
    count: int

    def batches(self, seed: tuple[int, int], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
        """Without end; seed: the step and the process."""
        made = endless(self.make, (6, *seed), data_workers(device))
        fresh = (self.fresh(*as_tensors(batch, device)) for batch in made)
        return mixed(fresh, self.kept, self.count, torch.Generator().manual_seed(1000 * seed[0] + seed[1]))


def _learn(
    half: nn.Module,
    file: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    examples: _Examples,
    loss_of: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    """The steps of one half."""
    average = Average(half, settings.decay)
    optimizer = torch.optim.AdamW(half.parameters(), settings.lr, weight_decay=1e-4, fused=True)
    stage = Stage(file, ("loss", "mse"), settings, team, half, optimizer, average=average)
    torch.manual_seed(1000 * stage.step + stage.rank)
    batches = examples.batches((stage.step, stage.rank), device)
    for _ in stage.steps(log_every=25, save_every=100):
        loss, mse = loss_of(*next(batches))
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
