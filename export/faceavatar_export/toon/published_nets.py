"""Two nets that others trained on photographs (Cydral, dlib-models, CC0 1.0): gender-v1 and age-v1.

They are rebuilt in torch, with the weights of their published graphs, to become parts of the face encoder's.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

# Left, top and side of the chip in the "head" alignment that the net was trained on, and three beside it: one
# pixel more or less moved the age of four photographs by up to 20 years.
BOXES = ((42, 53, 45), (41, 52, 47), (41, 53, 45), (42, 52, 45))
MEAN = (122.782, 117.001, 104.298)
YEARS = 81
# dlib's numbering runs backwards: the two convolutions of each residual block.
BLOCKS = ((47, 44), (39, 36), (28, 25), (20, 17), (9, 6))


class GenderNet(nn.Module):
    """gender-v1 of dlib-models (Cydral, CC0 1.0): heads (N, 3, 128, 128) in -1..1 -> female logit (N,)."""

    BOXES = (
        (42, 53, 45),
        (40, 51, 49),
    )  # left, top, side of the face chip that the net was trained on, and a looser one

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 32), (32, 32), (32, 64), (64, 64))
        )
        self.hidden, self.out = nn.Linear(4096, 16), nn.Linear(16, 2)
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor([122.78, 117.0, 104.30]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def load_onnx(self, path: Path) -> None:
        """Takes the weights of the published graph, its per-channel scales folded into the convolutions."""
        arrays = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in onnx.load(path).graph.initializer}
        for conv, layer in zip(self.convs, (19, 16, 12, 9), strict=True):
            assert isinstance(conv, nn.Conv2d)
            scale, offset = arrays[f"layer_{layer - 1}_scale"], arrays[f"layer_{layer - 1}_offset"]
            conv.weight.data = arrays[f"layer_{layer}_weights"] * scale.view(-1, 1, 1, 1)
            assert conv.bias is not None
            conv.bias.data = arrays[f"layer_{layer}_bias"] * scale.flatten() + offset.flatten()
        self.hidden.weight.data = arrays["layer_4_weights"].T.contiguous() * arrays["layer_5_scalar"]
        self.hidden.bias.data = arrays["layer_4_bias"]
        self.out.weight.data = arrays["layer_1_weights"].T.contiguous() * arrays["layer_2_scalar"]
        self.out.bias.data = arrays["layer_1_bias"]

    def _one(self, chip: Tensor) -> Tensor:
        h = (chip * 127.5 + 127.5 - self.mean) / 256
        for i, conv in enumerate(self.convs):
            h = F.relu(conv(h))
            if i % 2:
                h = F.avg_pool2d(h, 2)
        logits = self.out(F.relu(self.hidden(h.flatten(1))))
        return torch.as_tensor(logits[:, 0] - logits[:, 1])

    def forward(self, face: Tensor) -> Tensor:
        chips = [face[:, :, y : y + side, x : x + side] for x, y, side in self.BOXES]
        chips = [F.interpolate(c, size=(32, 32), mode="bilinear", align_corners=False) for c in chips]
        return (
            torch.stack([self._one(c) for chip in chips for c in (chip, chip.flip(3))]).mean(0).clamp(-12, 12)
        )


class _Block(nn.Module):
    """Two convolutions beside a shortcut; where the width doubles, half the size, padded as dlib pads."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.down = inside != outside
        self.first = nn.Conv2d(inside, outside, 3, *((2, 0) if self.down else (1, 1)))
        self.second = nn.Conv2d(outside, outside, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.down:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            rows, cols = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            x, y = (F.pad(v, (0, cols - v.shape[3], 0, rows - v.shape[2])) for v in (x, y))
        return F.relu(x + y)


class AgeNet(nn.Module):
    """age-v1, a residual net at 64 pixels: heads (N, 3, 128, 128) in -1..1 -> years (N,).

    The mean of four chips and their mirrors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2)
        widths = ((64, 64), (64, 128), (128, 128), (128, 256), (256, 256))
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in widths))
        self.out = nn.Linear(256, YEARS)
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def load_onnx(self, path: Path) -> None:
        """Takes the weights of the published graph, its per-channel scales folded into the convolutions."""
        arrays = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in onnx.load(path).graph.initializer}

        def take(conv: nn.Conv2d, layer: int) -> None:
            scale, offset = arrays[f"layer_{layer - 1}_scale"], arrays[f"layer_{layer - 1}_offset"]
            assert conv.bias is not None
            conv.weight.data = arrays[f"layer_{layer}_weights"] * scale.view(-1, 1, 1, 1)
            conv.bias.data = arrays[f"layer_{layer}_bias"] * scale.flatten() + offset.flatten()

        take(self.stem, 52)
        for block, (first, second) in zip(self.blocks, BLOCKS, strict=True):
            assert isinstance(block, _Block)
            take(block.first, first)
            take(block.second, second)
        self.out.weight.data = arrays["layer_1_weights"].T.contiguous()
        self.out.bias.data = arrays["layer_1_bias"]

    def years(self, chip: Tensor) -> Tensor:
        """RGB chips (N, 3, 64, 64) in 0..255 -> the expected age (N,)."""
        x = F.max_pool2d(F.relu(self.stem((chip - self.mean) / 256)), 3, 2)
        share = torch.softmax(self.out(self.blocks(x).mean((2, 3))), 1)
        return (share * torch.arange(YEARS, dtype=share.dtype)).sum(1)

    def forward(self, face: Tensor) -> Tensor:
        chips = [face[:, :, y : y + side, x : x + side] * 127.5 + 127.5 for x, y, side in BOXES]
        chips = [F.interpolate(c, size=(64, 64), mode="bilinear", align_corners=False) for c in chips]
        return torch.stack([self.years(c) for chip in chips for c in (chip, chip.flip(3))]).mean(0)
