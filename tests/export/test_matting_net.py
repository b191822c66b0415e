"""The matting net's fine half: a convolution over the rim alone, and what its loss calls a halo."""

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
from faceavatar_export.toon.matting_net import CELL, WIDTHS, FineNet, MattingNet, in_doubt, sides
from faceavatar_export.toon.train_matting import SETTLED, codes, halo, light
from faceavatar_export.verify import relative_error


def kernel(layer: nn.Linear) -> Tensor:
    """The weights of a 3x3 convolution in torch's order, of a layer that takes cells and their neighbours."""
    return layer.weight.unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)


def everywhere(net: FineNet, image: Tensor, coarse: Tensor, sight: Tensor) -> tuple[Tensor, Tensor]:
    """What the net computes, by convolutions over the whole picture that are set to 0 outside the rim."""
    known, rim = coarse.clamp(-6, 6), in_doubt(coarse).float()
    cells, hint = F.pixel_unshuffle(image, CELL), F.interpolate(net.hint(sight), scale_factor=4.0)
    near = sides(cells, coarse)
    x = torch.cat([cells, near.way, near.figure, near.back, known / 6, hint], dim=1)

    def convolved(layer: nn.Linear, planes: Tensor) -> Tensor:
        return F.conv2d(planes, kernel(layer), layer.bias, padding=1)

    x = F.silu(convolved(net.first, x)) * rim
    for layer in (net.second, net.third):
        x = (x + F.silu(convolved(layer, x))) * rim
    x = convolved(net.head, x)
    taken, figure_taken = (F.pixel_shuffle(torch.sigmoid(x[:, at : at + 16]) * rim, CELL) for at in (0, 16))
    other = F.pixel_shuffle(x[:, 32:] * rim, CELL)
    whole = F.interpolate(known, scale_factor=4, mode="bilinear", align_corners=False)
    own, solved = torch.sigmoid(whole + other[:, :1]), F.pixel_shuffle(near.way, CELL).clamp(0, 1)
    figure = F.interpolate(near.figure, scale_factor=4.0)
    color = (1 - figure_taken) * image + figure_taken * figure
    return own * (1 - taken) + solved * taken, ((color + 1) / 2 + other[:, 1:]).clamp(0, 1)


@pytest.fixture
def fine() -> FineNet:
    torch.manual_seed(2)
    net = FineNet()
    nn.init.normal_(net.head.weight, std=0.05)
    return net


def disc(side: int, radius: float) -> Tensor:
    """Logits (1, 1, side, side) of a disc: sure within and without, in doubt over three cells of its rim."""
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    return ((radius - torch.hypot(y, x)) * 3)[None, None]


def test_the_fine_half_is_a_convolution_over_the_rim(fine: FineNet) -> None:
    image = torch.rand(2, 3, 128, 96) * 2 - 1
    coarse = torch.cat([disc(32, 9)[..., :24], -disc(32, 12)[..., 8:]])
    sight = torch.randn(2, WIDTHS[0], 8, 6)
    for ours, wanted in zip(fine(image, coarse, sight), everywhere(fine, image, coarse, sight), strict=True):
        torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=2e-5)


def test_where_the_coarse_half_is_sure_nothing_changes(fine: FineNet) -> None:
    image, coarse = torch.rand(1, 3, 128, 128) * 2 - 1, disc(32, 9)
    with torch.inference_mode():
        alpha, colors = fine(image, coarse, torch.randn(1, WIDTHS[0], 8, 8))
    sure = F.interpolate(in_doubt(coarse).float(), scale_factor=4.0, mode="nearest")[0, 0] == 0
    torch.testing.assert_close(colors[0][:, sure], ((image + 1) / 2)[0][:, sure])
    assert float((alpha[0, 0][sure] - 0.5).abs().min()) > 0.45
    assert 0.5 < float(sure.float().mean()) < 0.9


def test_between_two_colours_the_edge_is_solved_before_the_net_sees_it() -> None:
    figure, back = torch.tensor([0.6, -0.4, -0.2]), torch.tensor([-0.7, 0.1, 0.9])
    y, x = torch.meshgrid(*[torch.arange(128) - 63.5] * 2, indexing="ij")
    alpha = (38 - torch.hypot(y, x)).clamp(0, 1)[None, None]
    image = figure[:, None, None] * alpha + back[:, None, None] * (1 - alpha)
    coarse = disc(32, 38 / CELL)
    found = sides(F.pixel_unshuffle(image, CELL), coarse)
    rim = in_doubt(coarse).expand(1, 3, 32, 32)
    torch.testing.assert_close(found.figure[rim].view(3, -1).mean(1), figure, atol=0.05, rtol=0)
    torch.testing.assert_close(found.back[rim].view(3, -1).mean(1), back, atol=0.05, rtol=0)
    wide = F.interpolate(in_doubt(coarse).float(), scale_factor=4.0) > 0
    assert float((F.pixel_shuffle(found.way, CELL) - alpha)[wide].abs().mean()) < 0.02


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
    nn.init.normal_(net.fine.head.weight, std=0.05)
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
    planes = [torch.from_numpy(one / 255).float().permute(2, 0, 1)[None] for one in (true, ours)]
    figure = planes[0] * torch.from_numpy(alpha)
    everything = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    guessed, true_alpha = (torch.from_numpy(one).flatten() for one in (guess, alpha))
    found = halo(guessed, planes[1], true_alpha, figure, everything)
    assert float(found) * 255 == pytest.approx(np.mean(errors), abs=0.5)


def test_light_and_codes_are_each_others_inverse_and_have_slopes_everywhere() -> None:
    code = torch.linspace(0, 1, 256, requires_grad=True)
    back = codes(light(code))
    torch.testing.assert_close(back, code, atol=1e-4, rtol=1e-4)
    back.sum().backward()
    assert code.grad is not None
    assert bool(code.grad.isfinite().all())
