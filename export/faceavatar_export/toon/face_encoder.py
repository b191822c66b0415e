"""The toon pack's face encoder: an aligned head -> identity.embed's numbers, from drawings and photographs.

Colours are measured, not guessed: the network says which pixels are hair and which are bare skin, and the
graph averages the picture's own pixels there. Shapes (hair length, beard, glasses) come from a small CNN.
A drawing shows gender by hair and lashes; a photograph is also shown to a published gender net and, where it
is given, a published age net (Cydral, dlib-models, CC0 1.0), and a guess whether the picture is a photograph
decides how much each counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export.graphs import store_weights_as_int8
from faceavatar_export.toon.identity import (
    _HAIR_CENTER,
    _HAIR_SCALE,
    _SKIN_CENTER,
    _SKIN_SCALE,
    EMBEDDING_SIZE,
)
from faceavatar_export.toon.published_nets import AgeNet, GenderNet

SIZE, SMALL = 128, 64
SWITCHES = 12  # slots 7-18 of the embedding: four hair lengths, curly, bun, full beard, ... female, old
# The switches' logits are steepened, so that a sure answer lies at -1 or 1 as in drawn identities.
SHARPNESS = 3.0
# Of the gender net's logit and of this network's own, for a photograph.
GENDER_WEIGHT, OWN_GENDER_WEIGHT = 0.5, 0.25
# Photographs look a little drawn to a net that never saw one; drawings lie below -6.
PHOTO_BIAS = 3.0
# How much surer the net must be of a photograph, whose shadows it never saw, than of a drawing, to report
# curly hair, a bun, a full beard, a moustache, glasses, sunglasses.
PHOTO_CAUTION = (0.5, 0.5, 0.5, 0.5, 2.5, 1.0)
PHOTO_AGE_CAUTION = 1.0  # the same for age: every shadow might be a fold
# With the age net: the years from which a photographed person is called old, and those that make it sure.
OLD_AGE, AGE_SPREAD = 55.0, 5.0
# People name hair by its lit part: how much brighter strands outweigh darker ones. Chosen on photographs: at
# 0 one of six was 22 (CIEDE2000) from the colour of a lit patch, at 2 black hair was 18 off.
LIT_HAIR = 0.7
OPSET = 18

_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """(N, 3) sRGB in 0..1 -> (N, 3) CIE L*a*b*, D65; the tensor twin of colors.rgb_to_lab."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ rgb.new_tensor(_RGB_TO_XYZ).T / rgb.new_tensor(_WHITE)
    f = torch.where(xyz > 216 / 24389, xyz.clamp(min=0.008) ** (1 / 3), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def pool_color(rgb: Tensor, weight: Tensor, spread: float) -> Tensor:
    """Mean colour (N, 3) of pixels (N, 3, H, W) under weights (N, 1, H, W); outliers count less."""
    total = weight.sum((2, 3)).clamp(min=1e-4)
    mean = (rgb * weight).sum((2, 3)) / total
    far = ((rgb - mean[:, :, None, None]) ** 2).sum(1, keepdim=True)
    weight = weight * (0.02 + torch.exp(-far / (2 * spread**2)))
    return (rgb * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)


def flatness(rgb: Tensor, weight: Tensor) -> Tensor:
    """The share (N,) of skin that has just one colour: 0.9 in a drawing, under 0.2 in a photograph."""
    weight = torch.where(weight > 0.3 * weight.amax((2, 3), keepdim=True), weight, 0.0)
    total = weight.sum((2, 3)).clamp(min=1e-6)
    mean = (rgb * weight).sum((2, 3)) / total
    near = (rgb - mean[:, :, None, None]).abs().mean(1, keepdim=True) < 0.015
    return ((near.to(weight) * weight).sum((2, 3)) / total)[:, 0]


def skin_window() -> Tensor:
    """Where skin may be measured (1, 1, 64, 64): both cheeks, and a little of nose and forehead."""
    y, x = torch.meshgrid(torch.arange(SMALL) + 0.5, torch.arange(SMALL) + 0.5, indexing="ij")
    window = torch.zeros(SMALL, SMALL)
    cheek, nose, forehead = 2.8, 2.0, 3.5  # radii
    spots = (
        (27.0, 39.0, cheek, 1.0),
        (37.0, 39.0, cheek, 1.0),
        (32.0, 36.5, nose, 0.3),
        (32.0, 29.0, forehead, 0.15),
    )
    for cx, cy, radius, weight in spots:
        bump = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
        window += weight * torch.where(bump > 0.2, bump, 0.0)
    return window[None, None]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _conv(inside: int, outside: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]


class FaceEncoder(nn.Module):
    """(N, 3, 128, 128) in -1..1 -> (N, 24), see identity.embed. `read` returns what training sees.

    `age` takes no part in training and lies in no checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at32 = nn.Sequential(*_conv(6, 24, 2), Block(24))
        self.at16 = nn.Sequential(*_conv(24, 40, 2), Block(40))
        self.at8 = nn.Sequential(*_conv(40, 64, 2), Block(64))
        self.up16, self.up32 = nn.Conv2d(64, 40, 1), nn.Conv2d(40, 24, 1)
        self.mix16 = Block(40)
        self.masks = nn.Sequential(*_conv(24, 24), nn.Conv2d(24, 8, 3, padding=1), nn.PixelShuffle(2))
        self.whole = nn.Sequential(
            nn.Conv2d(64, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU()
        )
        self.detail = nn.Sequential(
            *_conv(3, 24, 2), Block(24), *_conv(24, 40, 2), Block(40), *_conv(40, 40, 2),
            nn.Conv2d(40, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(),
        )  # fmt: skip
        self.shape = nn.Sequential(
            *_conv(2, 16, 2),
            *_conv(16, 24, 2),
            *_conv(24, 32, 2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(192, SWITCHES + 1)
        self.gender = GenderNet()
        self.age: AgeNet | None = None
        self.window: Tensor
        self.register_buffer("window", skin_window(), persistent=False)

    def _segment(self, small: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 64, 8, 8) and mask logits (N, 2, 64, 64) of hair and bare skin."""
        seed = (small * self.window).sum((2, 3), keepdim=True) / self.window.sum()
        at32 = self.at32(torch.cat([small, small - seed], 1))
        at16 = self.at16(at32)
        at8 = self.at8(at16)
        up16 = self.mix16(at16 + F.interpolate(self.up16(at8), scale_factor=2.0, mode="nearest"))
        up32 = at32 + F.interpolate(self.up32(up16), scale_factor=2.0, mode="nearest")
        return at8, self.masks(up32)

    def read(self, face: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (N, 13) of the switches and of "is a photograph", mask logits (N, 2, 64, 64), skin and hair.

        keep: (N, 2) factors of the two branches that see the picture itself: training leaves some out.
        """
        small = F.avg_pool2d(face, 2)
        features, masks = self._segment(small)
        masks = masks.float()
        whole, detail = self.whole(features), self.detail(face[:, :, 50:98, 40:88])
        if keep is not None:
            whole, detail = whole * keep[:, :1], detail * keep[:, 1:]
        seen = F.avg_pool2d(torch.sigmoid(masks.detach()), 2)
        logits = self.head(torch.cat([whole, detail, self.shape(seen)], 1)).float()
        hair, skin = self.colors(small.float(), torch.sigmoid(masks))
        return logits, masks, skin, hair

    def colors(self, small: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Lab of hair and skin (N, 3), of pixels (N, 3, 64, 64) in -1..1 and masks (N, 2, 64, 64)."""
        rgb = small * 0.5 + 0.5
        lit = rgb.mean(1, keepdim=True).clamp(min=1e-3) ** LIT_HAIR
        hair = pool_color(rgb, masks[:, :1] ** 2 * lit, 0.2)
        skin = pool_color(rgb, (masks[:, 1:] ** 2 + 1e-3) * self.window, 0.12)
        return rgb_to_lab(hair), rgb_to_lab(skin)

    def forward(self, face: Tensor) -> Tensor:
        logits, masks, skin, hair = self.read(face)
        small = F.avg_pool2d(face, 2) * 0.5 + 0.5
        flat = flatness(small, torch.sigmoid(masks[:, 1:]) ** 2 * self.window)
        photo = torch.sigmoid(2 * (logits[:, 12] + 6 * (0.5 - flat) + PHOTO_BIAS))
        own = logits[:, 10]
        female = own * (1 - photo) + (GENDER_WEIGHT * self.gender(face) + OWN_GENDER_WEIGHT * own) * photo
        length = 2 * torch.softmax(logits[:, :4] * SHARPNESS, 1) - 1
        seen = logits[:, 4:10] - photo[:, None] * logits.new_tensor(PHOTO_CAUTION)
        man, woman = F.relu(-female)[:, None], F.relu(female)[:, None]
        unlikely = torch.cat([torch.zeros_like(man), man, woman, woman, torch.zeros_like(seen[:, 4:])], 1)
        # No identity is a man with a bun or a bearded woman.
        switches = torch.tanh(torch.cat([seen - unlikely, female[:, None]], 1) * (SHARPNESS / 2))
        older = logits[:, 11] - PHOTO_AGE_CAUTION
        if self.age is not None:
            older = (self.age(face) - OLD_AGE) / AGE_SPREAD
        old = torch.tanh((logits[:, 11] * (1 - photo) + older * photo) * (SHARPNESS / 2))[:, None]
        skin = (skin - skin.new_tensor(_SKIN_CENTER)) / skin.new_tensor(_SKIN_SCALE)
        hair = (hair - hair.new_tensor(_HAIR_CENTER)) / hair.new_tensor(_HAIR_SCALE)
        visible = torch.cat([-length[:, :1], switches[:, 2:4]], 1).amax(1, keepdim=True)
        hair = hair * torch.sigmoid(8 * visible)
        one, rest = (
            torch.ones_like(skin[:, :1]),
            torch.zeros(1, EMBEDDING_SIZE - 19).expand(skin.shape[0], -1),
        )
        return torch.cat([one, skin, hair, length, switches, old, rest.to(skin)], 1)


def export_face_encoder(checkpoint: Path, path: Path, age: AgeNet | None = None) -> None:
    """Writes the ONNX graph of a checkpoint's averaged weights, with `age`: aligned_face -> face_embeds."""
    model = FaceEncoder()
    state = torch.load(checkpoint, weights_only=True)["average"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    model.age = age
    export_module(model, path)
    if age is not None:
        store_weights_as_int8(path)  # it has five times the weights of all the rest


def export_module(model: FaceEncoder, path: Path) -> None:
    """Writes a network as one ONNX file with a dynamic batch and checks it (onnx.checker)."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 3, SIZE, SIZE),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["aligned_face"],
        output_names=["face_embeds"],
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for note in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        note.ClearField("metadata_props")  # the exporter's stack traces, a fifth of the file
        note.ClearField("doc_string")
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def to_input(picture: np.ndarray) -> Tensor:
    """uint8 (N, 128, 128, 3) RGB -> float32 (N, 3, 128, 128) in -1..1."""
    return (torch.from_numpy(np.ascontiguousarray(picture)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
