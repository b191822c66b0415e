"""Looks at an avatar and says what it shows; trained on drawings, used to score pictures, shipped to nobody.

`python -m faceavatar_export.toon.classifier DATA RUN` trains it on the latents of all but the last 2,000
pictures of DATA (classifier_data.py) and prints its accuracy on those; RUN/classifier.onnx is what scores and
tests run. It looks through the codec's encoder, frozen: latents are there already, which makes it cheap to
train, and what the codec cannot carry no avatar can show.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export import graphs
from faceavatar_export.toon import classifier_data
from faceavatar_export.toon.attributes import NAMES, UNSEEN
from faceavatar_export.toon.autoencoder import INPUT_SIZE, LATENT_CHANNELS, Autoencoder
from faceavatar_export.toon.classifier_data import Examples
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Average,
    Stage,
    channels_last,
    choose_device,
    join_processes,
    load_checkpoint,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [classifier]."""

    minutes: float
    batch: int
    lr: float


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.SiLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.body(x))


class Head(nn.Module):
    """latents (B, 64, 8, 8) -> features (B, 256), then logits for each attribute of NAMES."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, 128, 3, 1, 1), Residual(128), nn.Conv2d(128, 32, 1), nn.Flatten()
        )
        self.mix = nn.Sequential(nn.Linear(32 * 64, 256), nn.SiLU(), nn.Dropout(0.2))
        self.heads = nn.ModuleList(nn.Linear(256, len(names)) for names in NAMES.values())

    def forward(self, latents: Tensor) -> list[Tensor]:
        features = self.mix(self.body(latents))
        return [features, *(head(features) for head in self.heads)]


class Classifier(nn.Module):
    """image (B, 3, 256, 256) in -1..1 -> features (B, 256), then logits for each attribute of NAMES."""

    def __init__(self, codec: Autoencoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = codec.encoder, head
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", codec.decoder.mean[:, None, None].clone())
        self.register_buffer("std", codec.decoder.std[:, None, None].clone())

    def forward(self, image: Tensor) -> list[Tensor]:
        seen: list[Tensor] = self.head((self.encoder(image) - self.mean) / self.std)
        return seen


@torch.inference_mode()
def accuracy(head: Head, sets: Sequence[Examples]) -> dict[str, float]:
    """Share of right answers for each attribute, among pictures that show it."""
    right, shown = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for examples in sets:
        logits = head(torch.from_numpy(examples.latents.astype("float32")))[1:]
        for k, (key, x) in enumerate(zip(NAMES, logits, strict=True)):
            seen = examples.classes[:, k] != UNSEEN
            right[key] += int((x.argmax(1).numpy() == examples.classes[:, k])[seen].sum())
            shown[key] += int(seen.sum())
    return {key: right[key] / max(1, shown[key]) for key in NAMES}


def loss_of(head: Head, latents: Tensor, classes: Tensor) -> Tensor:
    """The sum of the attributes' cross-entropies, of the pictures that show them."""
    losses = [
        F.cross_entropy(x.float(), classes[:, i], ignore_index=UNSEEN)
        for i, x in enumerate(head(latents)[1:])
    ]
    return torch.stack(losses).nan_to_num(0).sum()


def train(data: Path, run: Path, settings: Settings, device: torch.device) -> None:
    """Trains for the settings' minutes of wall clock; RUN/classifier.pt is the checkpoint."""
    codec = Autoencoder().eval()
    load_checkpoint(run / "autoencoder.pt", model=codec)
    sets = classifier_data.training_set(data, codec, classifier_data.COUNTS)
    head = channels_last(Head()).to(device)
    average = Average(head, decay=0.995)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=0.05)
    team = join_processes(device)
    stage = Stage(run / "classifier.pt", ("loss",), settings, team, head, optimizer, average=average)
    rng = np.random.default_rng((9, stage.step, stage.rank))
    for _ in stage.steps():
        latents, classes = classifier_data.draw_batch(sets, rng, settings.batch)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(head, latents.to(device), classes.to(device))
        stage.learn(loss, clip=5.0)
        average.update(head, stage.step)
        stage.note(loss=loss)
    if stage.leads:
        best = average.module.cpu().eval()
        right = accuracy(best, classifier_data.held_out_set(data, codec))
        print("held-out drawings:", {key: round(value, 3) for key, value in right.items()})
        export_classifier(Classifier(codec, best), run / "classifier.onnx", right)


def export_classifier(model: Classifier, path: Path, right: dict[str, float]) -> None:
    """Writes the graph `image` -> `features` and an output an attribute; its metadata has the names."""
    model = model.eval()
    example, batch = {"image": torch.zeros(2, 3, INPUT_SIZE, INPUT_SIZE)}, {0: "batch"}
    outputs = ["features", *NAMES]
    graphs.export_graph(model, example, outputs, {"image": batch}, path, dict.fromkeys(outputs, batch))
    graphs.store_weights_as_int8(path)
    graph = onnx.load(path)
    accuracies = json.dumps({key: round(value, 4) for key, value in right.items()})
    onnx.helper.set_model_props(graph, {"names": json.dumps(NAMES), "accuracy": accuracies})
    onnx.save(graph, path)


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "classifier", device.type, args.config, vars(args))
    train(args.data, args.run, settings, device)


if __name__ == "__main__":
    main()
