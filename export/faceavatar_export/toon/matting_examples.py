"""What the matting net's fine half and its last part learn from: pixels of rims and what is known of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon.matting_cells import CELL, REACH, Pixels
from faceavatar_export.toon.matting_net import MattingNet

RIM_SHARE = 0.7  # of a picture's pixels in doubt, where alpha is between 0 and 1
REST_SHARE = 0.25  # and where it is not
ALONE, TIMES = 0.25, 4  # how far a rim's colour is from those around, 0..1, to be learnt from so many times


@torch.no_grad()
def fine_examples(net: MattingNet, image: Tensor, figure: Tensor) -> tuple[Tensor, ...]:
    """Rows of a part of the pixels where the coarse half is in doubt, of pictures (B, 3, 512, 512), and the
    figure there (n, 4). Rims are rare: more of them are taken."""
    view, sight = net.viewed(image)
    doubt = F.interpolate(view.doubt.float(), scale_factor=float(CELL), mode="nearest")
    rim = (figure[:, 3:] > 0.01) & (figure[:, 3:] < 0.99)
    where = torch.rand_like(doubt) < doubt * torch.where(rim, RIM_SHARE, REST_SHARE)
    rows = net.fine.rows(view, sight, where)
    truth = figure.permute(0, 2, 3, 1)[where[:, 0]]
    return repeated((rows.around.bfloat16(), rows.near.bfloat16(), rows.own, truth), alone(figure)[where])


@torch.no_grad()
def last_examples(net: MattingNet, image: Tensor, figure: Tensor) -> tuple[Tensor, ...]:
    """As fine_examples, of what the last part knows: what is around; the fine half's hidden layer; its
    pixels, alpha and colours, and what is solved from them; the figure there (n, 4)."""
    view, sight = net.viewed(image)
    place, known, again = net.known(view, sight)
    truth = place.inside(F.pixel_unshuffle(figure, CELL))
    rim = (truth[:, 3] > 0.01) & (truth[:, 3] < 0.99)
    where = torch.rand_like(truth[:, 3]) < torch.where(rim, RIM_SHARE, REST_SHARE)
    windows = F.unfold(again.around, 2 * REACH + 1).unflatten(2, (CELL, CELL))
    rest = torch.cat([*known[1:], again.own], dim=1)
    windows, hidden, rest, truth = (
        part.permute(0, 2, 3, 1)[where] for part in (windows, known.hidden, rest, truth)
    )
    odd = place.inside(F.pixel_unshuffle(alone(figure).float(), CELL))[:, 0][where] > 0
    return repeated((windows.bfloat16(), hidden.bfloat16(), rest, truth), odd)


def alone(figure: Tensor) -> Tensor:
    """The pixels (B, 1, H, W) of rims near whole pixels of the figure, none of which has their colour; figure
    (B, 4, H, W), its colours times alpha.

    Lines thinner than a pixel, and rims at which two shapes end, one over the other: there what is underneath
    shines through, though nobody sees it. They are few, and what is guessed for others is far from right.
    """
    alpha = figure[:, 3:]
    rim = (alpha > 0.02) & (alpha < 0.98)
    around = Pixels(rim).around(figure).unflatten(1, (-1, 4))
    own = around[:, around.shape[1] // 2, None]
    away = (around[..., :3] - own[..., :3] / own[..., 3:]).abs().amax(dim=2)
    least = torch.where(around[..., 3] > 0.99, away, torch.inf).amin(dim=1)
    found = torch.zeros_like(rim)
    found[rim] = (least > ALONE) & least.isfinite()
    return found


def repeated(rows: tuple[Tensor, ...], odd: Tensor) -> tuple[Tensor, ...]:
    """Tensors of n rows; behind them again, until they are there TIMES, those that are odd (n,)."""
    return tuple(torch.cat([part, *[part[odd]] * (TIMES - 1)]) for part in rows)
