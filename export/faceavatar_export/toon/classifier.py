"""Looks at an avatar and says what it shows; trained on drawings, used to score pictures, shipped to nobody.

`python -m faceavatar_export.toon.classifier DATA RUN` trains it on all but the last 2,000 pictures of DATA
and prints its accuracy on those; RUN/classifier.onnx is what scores and tests run. It also knows a broken
picture (no head, two, no eyes, no mouth, smeared) from a whole one; breakage.py breaks drawings for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceavatar_export import graphs
from faceavatar_export.toon import breakage, colors
from faceavatar_export.toon.draw import HELD_OUT, load_scenes
from faceavatar_export.toon.identity import (
    BEARDS,
    EXPRESSIONS,
    FRAMINGS,
    GARMENTS,
    GLASSES,
    HAIR_LENGTHS,
    HEADWEAR,
    PATTERNS,
    STYLES,
    Identity,
    Scene,
)
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.training import (
    Stage,
    channels_last,
    choose_device,
    join_processes,
    load_checkpoint,
)

SIZE = 128
BROKEN_SHARE = 0.15
UNSEEN = -100  # cross_entropy's own mark for "do not count"
NAMES: dict[str, tuple[str, ...]] = {
    "style": STYLES,
    "expression": EXPRESSIONS,
    "garment": GARMENTS,
    "garment_color": tuple(colors.CLOTH_COLORS),
    "headwear": HEADWEAR,
    "headwear_color": tuple(colors.CLOTH_COLORS),
    "background": tuple(colors.BACKGROUND_COLORS),
    "pattern": PATTERNS,
    "framing": FRAMINGS,
    "female": ("man", "woman"),
    "old": ("young", "old"),
    "hair_length": HAIR_LENGTHS,
    "curly": ("straight", "curly", "bun"),
    "hair_color": tuple(colors.HAIR_COLORS),
    "beard": BEARDS,
    "glasses": GLASSES,
    "figure": ("whole", "broken"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [classifier]."""

    minutes: float
    batch: int
    lr: float


def names_of(identity: Identity, scene: Scene) -> dict[str, str]:
    """What a drawing shows, in the words of NAMES."""
    kind = "bun" if identity.bun else "curly" if identity.curly else "straight"
    return {
        "style": scene.style,
        "expression": scene.expression,
        "garment": scene.garment,
        "garment_color": colors.nearest_name(scene.garment_color, colors.CLOTH_COLORS),
        "headwear": scene.headwear,
        "headwear_color": colors.nearest_name(scene.headwear_color, colors.CLOTH_COLORS),
        "background": colors.nearest_name(scene.background, colors.BACKGROUND_COLORS),
        "pattern": scene.pattern,
        "framing": scene.framing,
        "female": "woman" if identity.female else "man",
        "old": "old" if identity.old else "young",
        "hair_length": identity.hair_length,
        "curly": kind,
        "hair_color": colors.nearest_name(identity.hair_color, colors.HAIR_COLORS),
        "beard": identity.beard,
        "glasses": identity.glasses,
        "figure": "whole",
    }


def unseen(identity: Identity, scene: Scene) -> set[str]:
    """The attributes that a drawing cannot show: under a hat, outside the frame or behind shades."""
    hidden: set[str] = set()
    if scene.framing == "close-up":
        hidden |= {"garment", "garment_color"}
    if scene.headwear in ("none", "crown"):
        hidden.add("headwear_color")
    covered = scene.headwear in ("beanie", "cap")
    if covered or identity.hair_length == "bald" or (scene.style == "ink" and identity.hair_length == "long"):
        hidden.add("curly")
    if identity.hair_length == "bald" or (covered and identity.hair_length == "short"):
        hidden.add("hair_color")
    if covered and identity.hair_length in ("bald", "short"):
        hidden.add("hair_length")
    if identity.glasses == "sunglasses":
        hidden.add("female")
    masked = identity.glasses == "sunglasses" or (scene.style == "pixel" and identity.glasses != "none")
    if scene.expression == "wink" and masked:
        hidden.add("expression")
    return hidden


def truth(identity: Identity, scene: Scene) -> list[int]:
    """The class of each attribute in the order of NAMES, UNSEEN for what the drawing cannot show."""
    said, hidden = names_of(identity, scene), unseen(identity, scene)
    return [UNSEEN if key in hidden else names.index(said[key]) for key, names in NAMES.items()]


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


class Classifier(nn.Module):
    """image (B, 3, 128, 128) in -1..1 -> features (B, 256), then logits for each attribute of NAMES."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 64, 3, 1, 1),
            Residual(64),
            nn.Conv2d(64, 112, 3, 2, 1),
            Residual(112),
            nn.Conv2d(112, 160, 3, 2, 1),
            Residual(160),
        )
        self.mix = nn.Sequential(nn.Conv2d(160, 40, 1), nn.Flatten(), nn.Linear(40 * 64, 256), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(256, len(names)) for names in NAMES.values())

    def forward(self, image: Tensor) -> list[Tensor]:
        features = self.mix(self.body(image))
        return [features, *(head(features) for head in self.heads)]


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
def accuracy(
    model: Classifier, pictures: np.ndarray, people: list[tuple[Identity, Scene]]
) -> dict[str, float]:
    """Share of right answers for each attribute among drawings that show it; half are broken first."""
    right, shown = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    rng = np.random.default_rng(0)
    for i in range(0, len(pictures), 100):
        part = np.array(pictures[i : i + 100])
        classes = np.array([truth(*row) for row in people[i : i + 100]])
        for j in range(0, len(part), 2):
            part[j] = breakage.break_picture(part[j], people[i + j][0], people[i + j][1], rng)
            classes[j] = [*[UNSEEN] * (len(NAMES) - 1), 1]
        for k, (key, logits) in enumerate(zip(NAMES, model(prepare(part))[1:], strict=True)):
            seen = classes[:, k] != UNSEEN
            right[key] += int((logits.argmax(1).numpy() == classes[:, k])[seen].sum())
            shown[key] += int(seen.sum())
    return {key: right[key] / max(1, shown[key]) for key in NAMES}


def draw_batch(
    pictures: np.ndarray, people: list[tuple[Identity, Scene]], rng: np.random.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """Pictures of `people`, some of them broken, (count, 3, 128, 128), and their classes (count, 17)."""
    rows = np.sort(rng.integers(0, len(people), count))
    part = np.array(pictures[rows])
    classes = np.array([truth(*people[i]) for i in rows])
    for j in np.flatnonzero(rng.random(count) < BROKEN_SHARE):
        part[j] = breakage.break_picture(part[j], *people[int(rows[j])], rng)
        classes[j] = [*[UNSEEN] * (len(NAMES) - 1), 1]
    return roughen(prepare(part), rng), torch.from_numpy(classes)


def train(data: Path, run: Path, settings: Settings, device: torch.device) -> None:
    """Trains for the settings' minutes of wall clock; RUN/classifier.pt is the checkpoint."""
    pictures, everyone = np.load(data / "pictures.npy", mmap_mode="r"), load_scenes(data)
    model = channels_last(Classifier()).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.02)
    team = join_processes(device)
    stage = Stage(run / "classifier.pt", ("loss",), settings, team, model, optimizer)
    rng = np.random.default_rng((9, stage.step, stage.rank))
    for _ in stage.steps(save_every=100):
        image, classes = draw_batch(pictures, everyone[:-HELD_OUT], rng, settings.batch)
        image, classes = image.to(device), classes.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(image)[1:]
        losses = [
            F.cross_entropy(x.float(), classes[:, i], ignore_index=UNSEEN) for i, x in enumerate(logits)
        ]
        loss = torch.stack(losses).nan_to_num(0).sum()
        stage.learn(loss, clip=5.0)
        stage.note(loss=loss)
    if stage.leads:
        held = accuracy(model.cpu().eval(), pictures[-HELD_OUT:], everyone[-HELD_OUT:])
        print("held-out drawings:", {key: round(value, 3) for key, value in held.items()})
        export_classifier(model, run / "classifier.onnx", held)


def export_classifier(model: Classifier, path: Path, held: dict[str, float]) -> None:
    """Writes the graph `image` -> `features` and an output an attribute; its metadata has the names."""
    example, batch = {"image": torch.zeros(2, 3, SIZE, SIZE)}, {0: "batch"}
    outputs = ["features", *NAMES]
    graphs.export_graph(model, example, outputs, {"image": batch}, path, dict.fromkeys(outputs, batch))
    graphs.store_weights_as_int8(path)
    graph = onnx.load(path)
    accuracies = json.dumps({key: round(value, 4) for key, value in held.items()})
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
