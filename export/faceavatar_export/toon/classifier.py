"""Looks at an avatar and says what it shows; trained on drawings, used to score pictures, shipped to nobody.

`python -m faceavatar_export.toon.classifier DATA RUN --minutes 6` trains it on all but the last 2,000
pictures of DATA and prints its accuracy on those; RUN/classifier.onnx is what score.py and the tests run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export import graphs
from faceavatar_export.toon import colors
from faceavatar_export.toon.draw import HELD_OUT, load_scenes
from faceavatar_export.toon.identity import (
    BEARDS,
    EXPRESSIONS,
    GARMENTS,
    GLASSES,
    HAIR_LENGTHS,
    STYLES,
    Identity,
    Scene,
)
from faceavatar_export.toon.training import (
    RunLog,
    channels_last,
    load_checkpoint,
    save_checkpoint,
    warm_cosine,
)

SIZE = 128
NAMES: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "expression": EXPRESSIONS,
    "garment": GARMENTS,
    "garment_color": tuple(colors.CLOTH_COLORS),
    "background": tuple(colors.BACKGROUND_COLORS),
    "framing": ("bust", "close-up"),
    "female": ("man", "woman"),
    "hair_length": HAIR_LENGTHS,
    "hair_color": tuple(colors.HAIR_COLORS),
    "beard": BEARDS,
    "glasses": GLASSES,
}


def truth(identity: Identity, scene: Scene) -> list[int]:
    """The class of each attribute, in the order of NAMES."""
    said = {
        "style": scene.style,
        "expression": scene.expression,
        "garment": scene.garment,
        "garment_color": colors.nearest_name(scene.garment_color, colors.CLOTH_COLORS),
        "background": colors.nearest_name(scene.background, colors.BACKGROUND_COLORS),
        "framing": "bust" if scene.style == "pixel" else scene.framing,
        "female": "woman" if identity.female else "man",
        "hair_length": identity.hair_length,
        "hair_color": colors.nearest_name(identity.hair_color, colors.HAIR_COLORS),
        "beard": identity.beard,
        "glasses": identity.glasses,
    }
    return [names.index(said[key]) for key, names in NAMES.items()]


class Classifier(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> one tensor of logits an attribute, in the order of NAMES."""

    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU(inplace=True)
            )

        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv(48, 64, 1),
            conv(64, 96, 2),
            conv(96, 96, 1),
            conv(96, 128, 2),
            conv(128, 128, 1),
        )
        self.mix = nn.Sequential(nn.Conv2d(128, 48, 1), nn.Flatten(), nn.Linear(48 * 64, 256), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(256, len(names)) for names in NAMES.values())

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.features(image)
        return [head(features) for head in self.heads]

    def features(self, image: Tensor) -> Tensor:
        """(B, 256): what the heads read."""
        return torch.as_tensor(self.mix(self.body(image)))


def prepare(pictures: np.ndarray) -> Tensor:
    """uint8 (B, S, S, 3) with S a multiple of 128 -> (B, 3, 128, 128) in -1..1."""
    image = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(image, pictures.shape[1] // SIZE)


def roughen(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and small shifts, so that a decoder's softness is not mistaken for content."""
    if rng.random() < 0.5:
        image = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    image = image + float(rng.uniform(0, 0.08)) * torch.randn_like(image)
    shift = (int(rng.integers(-3, 4)), int(rng.integers(-3, 4)))
    return torch.roll(image, shift, dims=(2, 3))


def load(run: Path) -> Classifier:
    """The trained classifier of a run."""
    model = Classifier()
    if load_checkpoint(run / "classifier.pt", model=model)[0] == 0:
        raise FileNotFoundError(f"{run / 'classifier.pt'}: no trained classifier; run this module first")
    return model.eval()


@torch.inference_mode()
def classify(model: Classifier, pictures: np.ndarray) -> dict[str, list[str]]:
    """uint8 (B, S, S, 3) -> attribute -> the name seen in each picture."""
    logits = model(prepare(pictures))
    return {
        key: [names[i] for i in x.argmax(1).tolist()]
        for (key, names), x in zip(NAMES.items(), logits, strict=True)
    }


def accuracy(
    model: Classifier, pictures: np.ndarray, people: list[tuple[Identity, Scene]]
) -> dict[str, float]:
    """Share of right answers for each attribute."""
    right = dict.fromkeys(NAMES, 0)
    for i in range(0, len(pictures), 100):
        seen = classify(model, pictures[i : i + 100])
        for j, (identity, scene) in enumerate(people[i : i + 100]):
            for (key, names), cls in zip(NAMES.items(), truth(identity, scene), strict=True):
                right[key] += seen[key][j] == names[cls]
    return {key: n / len(pictures) for key, n in right.items()}


def train(data: Path, run: Path, count: int | None, minutes: float, batch_size: int, lr: float) -> None:
    """Trains for `minutes` of wall clock; RUN/classifier.pt is the checkpoint."""
    pictures = np.load(data / "pictures.npy", mmap_mode="r")[:count]
    people = load_scenes(data)[: len(pictures)]
    classes = np.array([truth(identity, scene) for identity, scene in people])
    model = channels_last(Classifier())
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    step, spent = load_checkpoint(run / "classifier.pt", model=model, optimizer=optimizer)
    rng = np.random.default_rng((9, step))
    log, start = RunLog(run / "classifier.csv", ("step", "minutes", "loss")), time.time() - spent
    while (elapsed := (time.time() - start) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        rows = np.sort(rng.integers(0, len(pictures) - HELD_OUT, batch_size))
        logits = model(roughen(prepare(pictures[rows]), rng))
        target = torch.from_numpy(classes[rows])
        loss = torch.stack([F.cross_entropy(x, target[:, i]) for i, x in enumerate(logits)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log.write(step, elapsed, loss.item())
            save_checkpoint(
                run / "classifier.pt", step, time.time() - start, model=model, optimizer=optimizer
            )
    save_checkpoint(run / "classifier.pt", step, time.time() - start, model=model, optimizer=optimizer)
    held = accuracy(model.eval(), pictures[-HELD_OUT:], people[-HELD_OUT:])
    print("held-out drawings:", {key: round(value, 3) for key, value in held.items()})
    export_classifier(model, run / "classifier.onnx")


def export_classifier(model: Classifier, path: Path) -> None:
    """Writes the graph `image` -> one output an attribute, with the names of the classes in its metadata."""
    example, batch = {"image": torch.zeros(2, 3, SIZE, SIZE)}, {0: "batch"}
    outputs = dict.fromkeys(NAMES, batch)
    graphs.export_graph(model, example, list(NAMES), {"image": batch}, path, outputs)
    graphs.store_weights_as_int8(path)
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"names": json.dumps(NAMES)})
    onnx.save(graph, path)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    train(args.data, args.run, args.count, args.minutes, args.batch, args.lr)


if __name__ == "__main__":
    main()
