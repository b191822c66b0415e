"""Trains the matting net on drawn figures, and on figures as a pack or its codec makes them.

`python -m faceavatar_export.toon.train_matting DATA RUN`, or `torchrun --nproc-per-node N -m ...` for N
processes that share their gradients (DATA: a set drawn with --size 512 --alpha). The coarse half learns
first, on whole pictures of 128 pixels a side, then the fine half, on the rims that it leaves, then the last
part, on what the fine half says of them; `--part` trains one of them alone. What pictures look like that the
pack makes, softer than drawings, they learn from a quarter of each batch going through the codec, RUN's
autoencoder.pt; or, with `--made FOLDER`, from figures of a finished pack (keyed_figures.py) instead. With
`--warm WARM.pt` (written by warm_start.py) a first start takes the weights of a finished pack.
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
from faceavatar_export.toon.draw import load_scenes
from faceavatar_export.toon.identity import STYLES
from faceavatar_export.toon.matting_cells import CELL
from faceavatar_export.toon.matting_coarse import CoarseNet
from faceavatar_export.toon.matting_data import Figures, FigureSet, make_batch, shrunk
from faceavatar_export.toon.matting_examples import fine_examples, last_examples
from faceavatar_export.toon.matting_losses import edge_losses, picture_losses
from faceavatar_export.toon.matting_net import (
    AGAIN,
    SIZE,
    FineNet,
    Known,
    LastNet,
    MattingNet,
    Rows,
    as_picture,
)
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

PARTS = ("coarse", "fine", "last")
REUSED = 4  # batches that a picture is learnt from: making one costs as much as a step
RIMS = 16  # of a batch's pictures the fine half takes in one in so many, at each of its steps
PIXELS = 16384  # that it learns from at a step, for each picture taken in
STYLE_WEIGHT = 0.05  # of the loss of a picture's style, in the coarse half's
KEPT_PICTURES, KEPT_PIXELS = 2048, 1_500_000
Softer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [matting]; `latent_noise` is what the UNet leaves of error in pictures that it makes.

    coarse_share, last_share: of the time, where all parts are trained. made_share: of the figures, with
    --made. decay: of averaged weights, a step.
    """

    minutes: float
    batch: int
    lr: float
    decay: float
    latent_noise: float
    coarse_share: float
    last_share: float
    made_share: float


def as_tensors(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """image (B, 3, S, S) in -1..1, figure (B, 4, S, S) in 0..1, style (B,), of a batch of matting_data."""
    image, figure, style = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in batch)
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1, figure.permute(0, 3, 1, 2).float() / 255, style


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


def coarse_losses(
    net: CoarseNet, image: Tensor, figure: Tensor, style: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of whole pictures (B, 3, 128, 128) and their styles (B,); the third is the loss of the styles alone."""
    with torch.autocast(image.device.type, torch.bfloat16):
        logits, _, told = net.seen(image)
        loss, mse = picture_losses(logits, figure[:, 3:])
    missed = F.cross_entropy(told.float(), style)
    return loss + STYLE_WEIGHT * missed, mse, missed.detach()


def fine_losses(net: FineNet, rows: Rows, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Of n pixels, and the figure there (n, 4)."""
    with torch.autocast(figure.device.type, torch.bfloat16):
        guess, colors = net.told(rows)
    return edge_losses(guess, colors, figure)


def last_losses(
    net: LastNet, windows: Tensor, hidden: Tensor, rest: Tensor, figure: Tensor
) -> tuple[Tensor, Tensor]:
    """Of n pixels, and the figure there (n, 4)."""
    pixel, alpha, color, own = as_picture(rest).split((3, 1, 3, AGAIN), dim=1)
    with torch.autocast(figure.device.type, torch.bfloat16):
        told = net.told(windows, Known(as_picture(hidden), pixel, alpha, color), own)
    return edge_losses(*told, figure)


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
    drawn = _figure_set(data)
    if made is None:
        return Figures((drawn,), (1.0,))
    return Figures((drawn, _figure_set(made)), (1 - made_share, made_share))


def _figure_set(folder: Path) -> FigureSet:
    styles = [STYLES.index(scene.style) for _, scene in load_scenes(folder)]
    return FigureSet(np.load(folder / "pictures.npy", mmap_mode="r"), np.array(styles))


def train(
    data: Path,
    run: Path,
    settings: Settings,
    device: torch.device,
    warm: Path | None = None,
    made: Path | None = None,
    parts: tuple[str, ...] = PARTS,
) -> None:
    """Trains for the settings' minutes; RUN/matting_coarse.pt and so on of all PARTS are the checkpoints."""
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
    fine_share = 1 - settings.coarse_share - settings.last_share
    shares = dict(zip(PARTS, (settings.coarse_share, fine_share, settings.last_share), strict=True))
    for number, part in enumerate(PARTS):
        if part not in parts:
            continue
        for earlier in PARTS[:number]:
            load_part(net, run, earlier)
        minutes = settings.minutes * (shares[part] if len(parts) > 1 else 1.0)
        _LEARNERS[part](net, run, replace(settings, minutes=minutes), device, team, figures, softer)


def _same(image: Tensor) -> Tensor:
    return image


def load_part(net: MattingNet, run: Path, part: str) -> None:
    """Takes the averaged weights of one part from its checkpoint. Raises FileNotFoundError."""
    average = Average(getattr(net, part))
    file = run / f"matting_{part}.pt"
    if load_checkpoint(file, average=average)[0] == 0:
        raise FileNotFoundError(
            f"{file}: not there; run train_matting, which trains the coarse half, the fine half and the last "
            "part in this order"
        )
    getattr(net, part).load_state_dict(average.module.state_dict())


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
    sets = tuple(FigureSet(shrunk(one.pictures, side), one.styles) for one in figures.sets)
    small = Figures(sets, figures.shares)
    make = partial(make_batch, small, max(1, settings.batch // REUSED), side)

    def fresh(image: Tensor, figure: Tensor, style: Tensor) -> tuple[Tensor, ...]:
        return softer(image).half(), figure.half(), style

    def loss_of(image: Tensor, figure: Tensor, style: Tensor) -> tuple[Tensor, ...]:
        return coarse_losses(net.coarse, image.float(), figure.float(), style)

    examples = _Examples(make, fresh, KEPT_PICTURES, settings.batch)
    columns = ("loss", "mse", "style")
    _learn(net.coarse, run / "matting_coarse.pt", settings, device, team, examples, columns, loss_of)


def _train_pixels(
    net: MattingNet,
    run: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    figures: Figures,
    softer: Softer,
    part: str,
) -> None:
    """The fine half or the last part, which learn from single pixels."""
    count, fine = max(1, settings.batch // RIMS), part == "fine"
    examples_of, learner = (fine_examples, net.fine) if fine else (last_examples, net.last)

    def fresh(image: Tensor, figure: Tensor, style: Tensor) -> tuple[Tensor, ...]:
        return examples_of(net, softer(image), figure)

    def loss_of(*known: Tensor) -> tuple[Tensor, ...]:
        if fine:
            return fine_losses(net.fine, Rows(*known[:3]), known[3])
        return last_losses(net.last, *known)

    make = partial(make_batch, figures, count, SIZE)
    examples = _Examples(make, fresh, KEPT_PIXELS, PIXELS * count)
    _learn(learner, run / f"matting_{part}.pt", settings, device, team, examples, ("loss", "mse"), loss_of)


@dataclass(frozen=True, slots=True)
class _Examples:
    """make: new pictures; fresh: the examples in them; kept, count: see shelf.mixed."""

    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]
    fresh: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    kept: int
    count: int

    def batches(self, seed: tuple[int, int], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
        """Without end; seed: the step and the process."""
        made = endless(self.make, (6, *seed), data_workers(device))
        fresh = (self.fresh(*as_tensors(batch, device)) for batch in made)
        return mixed(fresh, self.kept, self.count, torch.Generator().manual_seed(1000 * seed[0] + seed[1]))


def _learn(
    part: nn.Module,
    file: Path,
    settings: Settings,
    device: torch.device,
    team: tuple[int, int],
    examples: _Examples,
    columns: tuple[str, ...],
    loss_of: Callable[..., tuple[Tensor, ...]],
) -> None:
    """The steps of one part; loss_of gives what the columns name, the loss first."""
    average = Average(part, settings.decay)
    optimizer = torch.optim.AdamW(part.parameters(), settings.lr, weight_decay=1e-4, fused=True)
    stage = Stage(file, columns, settings, team, part, optimizer, average=average)
    torch.manual_seed(1000 * stage.step + stage.rank)
    batches = examples.batches((stage.step, stage.rank), device)
    for _ in stage.steps(log_every=25, save_every=100):
        values = loss_of(*next(batches))
        stage.learn(values[0], clip=1.0)
        average.update(part, stage.step)
        stage.note(**dict(zip(columns, values, strict=True)))


_LEARNERS: dict[str, Callable[..., None]] = {
    "coarse": _train_coarse,
    "fine": partial(_train_pixels, part="fine"),
    "last": partial(_train_pixels, part="last"),
}


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--warm", type=Path, help="warm.pt of warm_start, for the first start")
    parser.add_argument("--made", type=Path, help="figures of keyed_figures, in place of the codec")
    parser.add_argument("--part", choices=PARTS, help="train this part alone")
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "matting", device.type, args.config, vars(args))
    parts = PARTS if args.part is None else (args.part,)
    train(args.data, args.run, settings, device, args.warm, args.made, parts)


if __name__ == "__main__":
    main()
