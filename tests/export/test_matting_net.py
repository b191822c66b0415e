"""The matting net's fine half: a net for each pixel in doubt, and what its loss calls a halo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar.matting.composite import over
from faceavatar_export import graphs
from faceavatar_export.toon import matting_examples
from faceavatar_export.toon.identity import STYLES
from faceavatar_export.toon.matting_cells import (
    CELL,
    REACH,
    DoubtfulCells,
    Sides,
    Surroundings,
    between,
    in_doubt,
)
from faceavatar_export.toon.matting_coarse import SIGHT, CoarseNet
from faceavatar_export.toon.matting_losses import SETTLED, codes, halo, light
from faceavatar_export.toon.matting_net import Known, LastNet, MattingNet, as_picture
from faceavatar_export.toon.matting_view import View
from faceavatar_export.verify import relative_error


class Everywhere:
    """What the net computes, by convolutions over the whole picture, taken where it is in doubt: alpha, color
    of the fine half, and better, finer of the last part."""

    def __init__(self, net: MattingNet, image: Tensor, coarse: Tensor, sight: Tensor) -> None:
        around, part = Surroundings(F.pixel_unshuffle(image, CELL)), net.fine
        near = around.sides(torch.sigmoid(coarse))
        self.whole = F.interpolate(coarse.clamp(-6, 6), scale_factor=4, mode="bilinear", align_corners=False)
        way = solved(image, near)
        self.doubt = in_doubt(coarse) | ((coarse >= 4) & (-F.max_pool2d(-way, CELL) < 0.9))
        self.rim = wide(self.doubt.float())
        seen = torch.cat([image - wide(near.back), way, self.whole / 6], dim=1)
        further = torch.cat(
            [near.figure, near.back, F.interpolate(part.hint(sight), scale_factor=4.0)], dim=1
        )
        x = F.conv2d(seen, part.first.weight, part.first.bias, padding=REACH)
        figure, back = wide(near.figure), wide(near.back)
        line = torch.cat([figure - back, placed(image, figure, back)], dim=1)
        x = F.silu(x + wide(part.further(further)) + part.aside(line))
        x = x + F.silu(part.second(x))
        x = x + F.silu(part.third(x))
        said = part.head(x)
        share, own = torch.sigmoid(said[:, :3]), torch.sigmoid(self.whole + said[:, 3:4])
        alpha = own * (1 - share[:, :1]) + way.clamp(0, 1) * share[:, :1]
        color = colored(image, (image, near), alpha, share[:, 1:]) + said[:, 4:]
        self.alpha, self.color = self.taken(alpha, color.clamp(0, 1), image)
        means = torch.where(self.doubt, F.avg_pool2d(self.alpha, CELL), torch.sigmoid(coarse))
        tight = fitted(torch.cat([seen[:, :3], self.alpha], dim=1))
        self.looked_at_again(net.last, x, image, around.sides(means), tight)

    def looked_at_again(
        self, part: LastNet, hidden: Tensor, image: Tensor, near: Sides, tight: Tensor
    ) -> None:
        way, base = solved(image, near).clamp(0, 1), 2 * self.color - 1
        figure, back = wide(near.figure), wide(near.back)
        told = torch.cat([self.alpha, way, image - back, figure - back, base - image], dim=1)
        told = torch.cat([told, placed(image, figure, back), tight], dim=1)
        sure = torch.sigmoid(self.whole)
        seen = torch.cat([self.alpha, way * self.rim + sure * (1 - self.rim)], dim=1)
        around = F.conv2d(seen, part.window.weight, part.window.bias, padding=REACH)
        x = F.silu(around + part.first(hidden) + part.further(told))
        said = part.head(x + F.silu(part.second(x)))
        share, close = torch.sigmoid(said[:, :3]), torch.sigmoid(said[:, 7:])
        kept = 1 - share[:, :1] - close
        alpha = self.alpha * kept + way * share[:, :1] + tight[:, :1] * close
        alpha = (alpha + said[:, 3:4]).clamp(0, 1)
        color = (colored(base, (image, near), alpha, share[:, 1:]) + said[:, 4:7]).clamp(0, 1)
        self.better, self.finer = self.taken(alpha, color, image)

    def taken(self, alpha: Tensor, color: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        rest = 1 - self.rim
        return alpha * self.rim + torch.sigmoid(self.whole) * rest, color * self.rim + (image + 1) / 2 * rest


def colored(own: Tensor, seen: tuple[Tensor, Sides], alpha: Tensor, share: Tensor) -> Tensor:
    """A mean of the own colours, the figure's near it, and what alpha leaves of the picture."""
    image, near = seen
    figure, back, least = wide(near.figure), wide(near.back), alpha.clamp_min(0.1)
    free = ((image - (1 - least) * back) / least).clamp(-1, 1)
    return ((1 - share.sum(dim=1, keepdim=True)) * own + share[:, :1] * figure + share[:, 1:] * free + 1) / 2


def solved(image: Tensor, near: Sides) -> Tensor:
    """Alpha of every pixel, as the functions of its cell say."""
    functions = wide(near.functions)
    told = (image * functions[:, :3]).sum(dim=1, keepdim=True) + functions[:, 3:]
    return told.clamp(-0.5, 1.5)


def placed(image: Tensor, figure: Tensor, back: Tensor) -> Tensor:
    """Where colours lie between the background's and the figure's: along, beside, and that line's length."""
    length = torch.linalg.vector_norm(figure - back, dim=1, keepdim=True)
    along = torch.einsum("bchw,bchw->bhw", image - back, figure - back)[:, None]
    along = (along / length.square().clamp_min(0.01)).clamp(-1, 2)
    return torch.cat([along, image - torch.lerp(back, figure, along), length.square()], dim=1)


def fitted(seen: Tensor) -> Tensor:
    """By least squares in a window of 8 x 8 pixels around each cell, of colours and alpha (B, 4, H, W): alpha
    as the colours tell it, the mean of what is known of it, what the fit misses, and how colours vary."""
    high, across = seen.shape[-2:]
    step = torch.arange(8) - 3.5
    weight = torch.exp(-(step[:, None].square() + step.square()) / 4.5).flatten()
    weight = weight / weight.sum()
    windows = F.unfold(seen, 8, padding=2, stride=CELL).unflatten(1, (4, 64)).permute(0, 3, 1, 2).double()
    mean = windows @ weight.double()
    apart = windows - mean[..., None]
    covariance = (apart * weight) @ apart.transpose(-1, -2)
    own, shared = covariance[..., :3, :3], covariance[..., :3, 3:]
    slopes = torch.linalg.solve(own + 2e-4 * torch.eye(3), shared)[..., 0]
    offset = mean[..., 3] - (slopes * mean[..., :3]).sum(dim=-1)
    missed = covariance[..., 3, 3] - (slopes * shared[..., 0]).sum(dim=-1)
    varied = own.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    cells = torch.stack([offset, mean[..., 3], *(v.clamp_min(1e-6).sqrt() for v in (missed, varied))], dim=-1)
    planes = torch.cat([slopes, cells], dim=-1).unflatten(1, (high // CELL, across // CELL))
    planes = wide(planes.permute(0, 3, 1, 2)).float()
    told = (planes[:, :3] * seen[:, :3]).sum(dim=1, keepdim=True) + planes[:, 3:4]
    return torch.cat([told.clamp(0, 1), planes[:, 4:]], dim=1)


def wide(planes: Tensor) -> Tensor:
    """Of each cell, for each of its pixels."""
    return F.interpolate(planes, scale_factor=4.0)


@pytest.fixture
def net() -> MattingNet:
    torch.manual_seed(2)
    net = MattingNet()
    for part in (net.fine, net.last):
        nn.init.normal_(part.head.weight, std=0.3)
    return net


def disc(side: int, radius: float) -> Tensor:
    """Logits (1, 1, side, side) of a disc: sure within and without, in doubt over three cells of its rim."""
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    return ((radius - torch.hypot(y, x)) * 3)[None, None]


def viewed(image: Tensor, coarse: Tensor) -> View:
    return View.of(F.pixel_unshuffle(image, CELL), coarse)


def doubtful() -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures, the coarse half's logits and sight of them."""
    coarse = torch.cat([disc(32, 9)[..., :24], -disc(32, 12)[..., 8:]])
    return torch.rand(2, 3, 128, 96) * 2 - 1, coarse, torch.randn(2, SIGHT, 8, 6)


def test_the_net_is_a_convolution_taken_where_there_is_doubt(net: MattingNet) -> None:
    pictures = doubtful()
    with torch.inference_mode():
        wanted = Everywhere(net, *pictures)
        image, coarse, sight = pictures
        found = net.edged(viewed(image, coarse), sight)
    torch.testing.assert_close(found, (wanted.better, wanted.finer), atol=2e-5, rtol=2e-5)
    assert float((wanted.better - wanted.alpha).abs().mean()) > 1e-3


def test_single_pixels_as_rows_are_told_what_the_whole_picture_is(net: MattingNet) -> None:
    image, coarse, sight = doubtful()
    with torch.inference_mode():
        whole = Everywhere(net, image, coarse, sight)
        view = viewed(image, coarse)
        where = (torch.rand(2, 1, 128, 96) < 0.3) & (wide(whole.doubt.float()) > 0)
        alpha, colors = net.fine.told(net.fine.rows(view, sight, where))
    assert len(alpha) == int(where.sum()) > 500
    torch.testing.assert_close(alpha, whole.alpha[where], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(colors, whole.color.permute(0, 2, 3, 1)[where[:, 0]], atol=2e-5, rtol=2e-5)


def test_the_last_part_learns_from_what_it_is_told_of_in_whole_pictures(
    net: MattingNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, coarse, sight = doubtful()
    monkeypatch.setattr(net.coarse, "told", lambda _: (coarse, sight))
    monkeypatch.setattr(matting_examples, "RIM_SHARE", 1.0)
    monkeypatch.setattr(matting_examples, "REST_SHARE", 1.0)
    with torch.inference_mode():
        whole = Everywhere(net, image, coarse, sight)
        places = torch.arange(2 * 128 * 96).view(2, 1, 128, 96).float()
        truth = torch.cat([places, places * 0, places * 0, places * 0 + 0.5], dim=1)
        windows, hidden, rest, figure = matting_examples.last_examples(net, image, truth)
        *parts, own = as_picture(rest).split((3, 1, 3, 11), dim=1)
        alpha, color = net.last.told(windows.float(), Known(as_picture(hidden.float()), *parts), own)
    at = figure[:, 0].long()
    assert len(at) == len(at.unique()) == int(whole.doubt.sum()) * CELL**2
    torch.testing.assert_close(rest[:, :3], image.permute(0, 2, 3, 1).reshape(-1, 3)[at])
    # The hidden layer and what is around are kept in bfloat16.
    torch.testing.assert_close(alpha, whole.better.flatten()[at], atol=0.03, rtol=0)
    torch.testing.assert_close(color, whole.finer.permute(0, 2, 3, 1).reshape(-1, 3)[at], atol=0.03, rtol=0)


def test_more_blocks_leave_a_net_that_was_trained_without_them_as_it_was() -> None:
    torch.manual_seed(6)
    net = CoarseNet()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        before = net(image)
        for block in (net.late0, net.late1, net.late2, *net.deep1, *net.deep2, *net.deep3):
            assert isinstance(block, nn.Module)
            nn.init.normal_(block.get_parameter("first.0.weight"))
        assert torch.equal(net(image), before)
        nn.init.normal_(net.late0.get_parameter("second.weight"))
        assert not torch.equal(net(image), before)


def test_the_fine_half_hears_of_every_place_in_which_style_the_picture_is_drawn() -> None:
    torch.manual_seed(7)
    net, image = CoarseNet(), torch.rand(2, 3, 64, 64) * 2 - 1
    nn.init.normal_(net.style.get_parameter("2.weight"), std=9)
    with torch.inference_mode():
        logits, sight = net.told(image)
        _, places, style = net.seen(image)
        assert torch.equal(net(image), logits)
    assert sight.shape == (2, SIGHT, 16, 16)
    assert torch.equal(sight[:, : -len(STYLES)], places)
    for told in sight[:, -len(STYLES) :].flatten(2).unbind(dim=2):
        torch.testing.assert_close(told, torch.softmax(style, dim=1))
    assert not torch.allclose(style[0], style[1])


def test_where_the_coarse_half_is_sure_nothing_changes(net: MattingNet) -> None:
    image, coarse = torch.rand(1, 3, 128, 128) * 2 - 1, disc(32, 9)
    view, sight = viewed(image, coarse), torch.randn(1, SIGHT, 8, 8)
    with torch.inference_mode():
        alpha, colors = net.edged(view, sight)
    sure = wide(view.doubt.float())[0, 0] == 0
    torch.testing.assert_close(colors[0][:, sure], ((image + 1) / 2)[0][:, sure])
    smooth = F.interpolate(coarse.clamp(-6, 6), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(alpha[0, 0][sure], torch.sigmoid(smooth)[0, 0][sure])
    assert 0.5 < float(sure.float().mean()) < 0.95


def test_an_edge_is_solved_from_the_colours_around_before_the_net_sees_it() -> None:
    figure, back = torch.tensor([0.6, -0.4, -0.2]), torch.tensor([-0.7, 0.1, 0.9])
    y, x = torch.meshgrid(*[torch.arange(128) - 63.5] * 2, indexing="ij")
    alpha = (38 - torch.hypot(y, x)).clamp(0, 1)[None, None]
    image = figure[:, None, None] * alpha + back[:, None, None] * (1 - alpha)
    coarse = disc(32, 38 / CELL)
    found = Surroundings(F.pixel_unshuffle(image, CELL)).sides(torch.sigmoid(coarse))
    rim = in_doubt(coarse)
    for ours, wanted in ((found.figure, figure), (found.back, back)):
        rows = ours.permute(0, 2, 3, 1)[rim[:, 0]]
        torch.testing.assert_close(rows.mean(dim=0), wanted, atol=0.05, rtol=0)
    blurred = torch.sigmoid(F.interpolate(coarse, scale_factor=4.0, mode="bilinear"))
    ours, theirs = (
        float((one - alpha)[wide(rim.float()) > 0].abs().mean()) for one in (solved(image, found), blurred)
    )
    assert ours < theirs / 3


def test_a_cell_hears_what_is_said_of_its_place_and_of_the_logits_between_cells() -> None:
    torch.manual_seed(8)
    doubt, places, logits = torch.rand(2, 1, 32, 24) < 0.2, torch.randn(2, 5, 8, 6), torch.randn(2, 1, 32, 24)
    cells = DoubtfulCells(doubt)
    torch.testing.assert_close(cells.at_places(places), cells.at_cells(wide(places)))
    smooth = F.interpolate(logits, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(between(logits), F.pixel_unshuffle(smooth, CELL))


def test_an_edge_between_sure_cells_is_in_doubt_and_one_cell_always_is() -> None:
    jump = torch.full((2, 1, 8, 8), 9.0)
    jump[0, :, :, 4:] = -9
    doubt = in_doubt(jump)[:, 0]
    assert doubt[0, 1:, 3:5].all()
    assert not doubt[0, 1:, :3].any()
    assert doubt[1].sum() == 1


def test_doubt_ends_where_the_coarse_half_is_sure_on_both_sides() -> None:
    logits = (
        torch.tensor([9.0, 6, 4.1, 3.9, 0.5, -0.5, -3.9, -4.1, -6, -9]).view(1, 1, 1, 10).expand(1, 1, 4, 10)
    )
    assert in_doubt(logits)[0, 0, 1].tolist() == [*[False] * 3, *[True] * 4, *[False] * 3]


def test_a_seam_is_in_doubt_where_the_background_is_near_and_a_plain_inside_never() -> None:
    figure, back = torch.tensor([0.6, -0.4, -0.2]), torch.tensor([-0.7, 0.1, 0.9])
    coarse = disc(32, 11)
    alpha = (wide(coarse) > 0).float()
    alpha[..., 64, 32:96] = 0.5
    image = figure[:, None, None] * alpha + back[:, None, None] * (1 - alpha)
    doubt, rim = viewed(image, coarse).doubt[0, 0], in_doubt(coarse)[0, 0]
    assert (doubt & ~rim)[16, [*range(8, 12), *range(20, 24)]].all()
    assert not (doubt & ~rim)[:15].any()
    assert not (doubt & ~rim)[18:].any()
    assert (doubt | ~rim).all()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[MattingNet, Path]:
    """A net with random weights, and its graph of any batch."""
    torch.manual_seed(4)
    net = MattingNet()
    for part in (net.fine, net.last):
        nn.init.normal_(part.head.weight, std=0.3)
    path, batch = tmp_path_factory.mktemp("graph") / "matting.onnx", {0: "batch"}
    example = {"image": torch.rand(2, 3, 512, 512) * 2 - 1}
    outputs = {"alpha": batch, "foreground": batch}
    graphs.export_graph(net, example, list(outputs), {"image": batch}, path, outputs)
    return net.eval(), path


@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_is_the_net_in_onnxruntime_and_in_openvino(
    graph: tuple[MattingNet, Path], count: int
) -> None:
    net, path = graph
    # Smooth pictures: before noise an untrained net is in doubt everywhere.
    small = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)) * 2 - 1
    image = F.interpolate(small, size=(512, 512), mode="bicubic").clamp(-1, 1)
    assert relative_error(net, path, {"image": image}) < 1e-4
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        for ours, wanted in zip(compiled(image.numpy()).values(), net(image), strict=True):
            np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-3)


def test_the_halo_that_is_learnt_from_is_that_of_the_runtimes_composites() -> None:
    """On black and on white, settled as cutout.py settles; codes of the runtime are whole numbers."""
    rng = np.random.default_rng(3)
    alpha, guess = (rng.uniform(0.1, 0.9, (16, 16)).astype(np.float32) for _ in range(2))
    true, ours = (rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(2))
    settled = np.clip((guess - SETTLED) / (1 - 2 * SETTLED), 0, 1)
    errors = [
        np.abs(over(ours, settled, color).astype(float) - over(true, alpha, color)).mean(axis=2)
        for color in ("#000000", "#ffffff")
    ]
    pure, colors = (torch.from_numpy(one / 255).float().view(-1, 3) for one in (true, ours))
    guessed, true_alpha = (torch.from_numpy(one).flatten() for one in (guess, alpha))
    found = halo(guessed, colors, true_alpha, pure * true_alpha[:, None])
    assert float(found.mean()) * 255 == pytest.approx(np.mean(errors), abs=0.5)
    np.testing.assert_allclose(found.numpy() * 255, np.mean(errors, axis=0).ravel(), atol=1)


def test_light_and_codes_are_each_others_inverse_and_have_slopes_everywhere() -> None:
    code = torch.linspace(0, 1, 256, requires_grad=True)
    back = codes(light(code))
    torch.testing.assert_close(back, code, atol=1e-4, rtol=1e-4)
    back.sum().backward()
    assert code.grad is not None
    assert bool(code.grad.isfinite().all())
