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
from faceavatar_export.toon.matting_net import (
    CELL,
    REACH,
    WIDTHS,
    CoarseNet,
    FineNet,
    MattingNet,
    in_doubt,
    sides,
)
from faceavatar_export.toon.train_matting import SETTLED, codes, halo, light
from faceavatar_export.verify import relative_error


def everywhere(net: FineNet, image: Tensor, coarse: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """What the net computes, by convolutions over the whole picture, taken where it is in doubt."""
    known, cells = coarse.clamp(-6, 6), F.pixel_unshuffle(image, CELL)
    near, rim = sides(cells, coarse), wide(in_doubt(coarse).float())
    whole = F.interpolate(known, scale_factor=4, mode="bilinear", align_corners=False)
    way = F.pixel_shuffle(near.alpha, CELL)
    seen = torch.cat([image - wide(near.back), way, whole / 6], dim=1)
    hint = F.interpolate(net.hint(sight), scale_factor=4.0)
    x = F.conv2d(seen, net.first.weight, net.first.bias, padding=REACH)
    x = net.said(x + wide(net.further(torch.cat([near.figure, near.back, hint], dim=1)))) * rim
    own = torch.sigmoid(whole + x[:, 2:3])
    alpha = own * (1 - x[:, :1]) + way.clamp(0, 1) * x[:, :1]
    color = (1 - x[:, 1:2]) * image + x[:, 1:2] * wide(near.figure)
    return alpha, ((color + 1) / 2 + x[:, 3:]).clamp(0, 1)


def wide(planes: Tensor) -> Tensor:
    """Of each cell, for each of its pixels."""
    return F.interpolate(planes, scale_factor=4.0)


@pytest.fixture
def fine() -> FineNet:
    torch.manual_seed(2)
    net = FineNet()
    nn.init.normal_(net.head.weight, std=0.3)
    return net


def disc(side: int, radius: float) -> Tensor:
    """Logits (1, 1, side, side) of a disc: sure within and without, in doubt over three cells of its rim."""
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    return ((radius - torch.hypot(y, x)) * 3)[None, None]


def test_the_fine_half_is_a_convolution_taken_where_there_is_doubt(fine: FineNet) -> None:
    image = torch.rand(2, 3, 128, 96) * 2 - 1
    coarse = torch.cat([disc(32, 9)[..., :24], -disc(32, 12)[..., 8:]])
    sight = torch.randn(2, WIDTHS[0], 8, 6)
    with torch.inference_mode():
        wanted = everywhere(fine, image, coarse, sight)
        torch.testing.assert_close(fine(image, coarse, sight), wanted, atol=2e-5, rtol=2e-5)


def test_single_pixels_as_rows_are_told_what_the_whole_picture_is(fine: FineNet) -> None:
    image = torch.rand(2, 3, 128, 96) * 2 - 1
    coarse = torch.cat([disc(32, 9)[..., :24], -disc(32, 12)[..., 8:]])
    sight = torch.randn(2, WIDTHS[0], 8, 6)
    where = (torch.rand(2, 1, 128, 96) < 0.3) & (wide(in_doubt(coarse).float()) > 0)
    with torch.inference_mode():
        whole = everywhere(fine, image, coarse, sight)
        alpha, colors = fine.told(fine.rows(image, coarse, sight, where))
    assert len(alpha) == int(where.sum()) > 500
    torch.testing.assert_close(alpha, whole[0][where], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(colors, whole[1].permute(0, 2, 3, 1)[where[:, 0]], atol=2e-5, rtol=2e-5)


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


def test_where_the_coarse_half_is_sure_nothing_changes(fine: FineNet) -> None:
    image, coarse = torch.rand(1, 3, 128, 128) * 2 - 1, disc(32, 9)
    with torch.inference_mode():
        alpha, colors = fine(image, coarse, torch.randn(1, WIDTHS[0], 8, 8))
    sure = wide(in_doubt(coarse).float())[0, 0] == 0
    torch.testing.assert_close(colors[0][:, sure], ((image + 1) / 2)[0][:, sure])
    assert float((alpha[0, 0][sure] - 0.5).abs().min()) > 0.4
    assert 0.5 < float(sure.float().mean()) < 0.95


def test_an_edge_is_solved_from_the_colours_around_before_the_net_sees_it() -> None:
    figure, back = torch.tensor([0.6, -0.4, -0.2]), torch.tensor([-0.7, 0.1, 0.9])
    y, x = torch.meshgrid(*[torch.arange(128) - 63.5] * 2, indexing="ij")
    alpha = (38 - torch.hypot(y, x)).clamp(0, 1)[None, None]
    image = figure[:, None, None] * alpha + back[:, None, None] * (1 - alpha)
    coarse = disc(32, 38 / CELL)
    found, rim = sides(F.pixel_unshuffle(image, CELL), coarse), in_doubt(coarse)
    for ours, wanted in ((found.figure, figure), (found.back, back)):
        rows = ours.permute(0, 2, 3, 1)[rim[:, 0]]
        torch.testing.assert_close(rows.mean(dim=0), wanted, atol=0.05, rtol=0)
    blurred = torch.sigmoid(F.interpolate(coarse, scale_factor=4.0, mode="bilinear"))
    ours, theirs = (
        float((one - alpha)[wide(rim.float()) > 0].abs().mean())
        for one in (F.pixel_shuffle(found.alpha, CELL), blurred)
    )
    assert ours < theirs / 3


def test_an_edge_between_sure_cells_is_in_doubt_and_one_cell_always_is() -> None:
    jump = torch.full((2, 1, 8, 8), 9.0)
    jump[0, :, :, 4:] = -9
    doubt = in_doubt(jump)[:, 0]
    assert doubt[0, 1:, 3:5].all()
    assert not doubt[0, 1:, :3].any()
    assert doubt[1].sum() == 1


@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_is_the_net_in_onnxruntime_and_in_openvino(tmp_path: Path, count: int) -> None:
    torch.manual_seed(4)
    net = MattingNet()
    nn.init.normal_(net.fine.head.weight, std=0.3)
    path, batch = tmp_path / "matting.onnx", {0: "batch"}
    example = {"image": torch.rand(2, 3, 512, 512) * 2 - 1}
    outputs = {"alpha": batch, "foreground": batch}
    graphs.export_graph(net, example, list(outputs), {"image": batch}, path, outputs)
    # Smooth pictures: before noise an untrained net is in doubt everywhere.
    small = torch.rand(count, 3, 8, 8) * 2 - 1
    image = F.interpolate(small, size=(512, 512), mode="bicubic").clamp(-1, 1)
    assert relative_error(net, path, {"image": image}) < 1e-4
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.inference_mode():
        for ours, wanted in zip(compiled(image.numpy()).values(), net.eval()(image), strict=True):
            np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-3)


def test_the_halo_that_is_learnt_from_is_that_of_the_runtimes_composites() -> None:
    """On black and on white, settled as cutout.py settles; codes of the runtime are whole numbers."""
    rng = np.random.default_rng(3)
    alpha, guess = (rng.uniform(0.1, 0.9, (16, 16)).astype(np.float32) for _ in range(2))
    true, ours = (rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(2))
    settled = np.clip((guess - SETTLED) / (1 - 2 * SETTLED), 0, 1)
    errors = [
        np.abs(over(ours, settled, color).astype(float) - over(true, alpha, color)).mean()
        for color in ("#000000", "#ffffff")
    ]
    pure, colors = (torch.from_numpy(one / 255).float().view(-1, 3) for one in (true, ours))
    guessed, true_alpha = (torch.from_numpy(one).flatten() for one in (guess, alpha))
    found = halo(guessed, colors, true_alpha, pure * true_alpha[:, None])
    assert float(found) * 255 == pytest.approx(np.mean(errors), abs=0.5)


def test_light_and_codes_are_each_others_inverse_and_have_slopes_everywhere() -> None:
    code = torch.linspace(0, 1, 256, requires_grad=True)
    back = codes(light(code))
    torch.testing.assert_close(back, code, atol=1e-4, rtol=1e-4)
    back.sum().backward()
    assert code.grad is not None
    assert bool(code.grad.isfinite().all())
