"""Looks at an avatar and says what it shows; trained on drawings, used to score pictures, shipped to nobody.

`python -m faceavatar_export.toon.classifier DATA RUN` trains it on the latents of all but the last 2,000
pictures of DATA and prints its accuracy on those; RUN/classifier.onnx is what scores and tests run. It looks
through the codec's encoder, frozen: latents are there already, which makes it cheap to train, and what the
codec cannot carry no avatar can show. It also knows a broken picture (no head, two, no eyes, no mouth,
smeared) from a whole one; breakage.py breaks drawings for it.
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
from faceavatar_export.toon.autoencoder import INPUT_SIZE, LATENT_CHANNELS, Autoencoder
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

SIZE = INPUT_SIZE
EXTRA, EXTRA_SHARE = 3000, 0.3  # pictures broken or softened by the codec, and their share of a batch
LATENT_NOISE = 0.3
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


class Head(nn.Module):
    """latents (B, 64, 8, 8) -> features (B, 256), then logits for each attribute of NAMES."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, 128, 3, 1, 1), Residual(128), nn.Conv2d(128, 32, 1), nn.Flatten()
        )
        self.mix = nn.Sequential(nn.Linear(32 * 64, 256), nn.SiLU(), nn.Dropout(0.1))
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


def prepare(pictures: np.ndarray) -> Tensor:
    """uint8 (B, S, S, 3) with S a multiple of 256 -> (B, 3, 256, 256) in -1..1."""
    image = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(image, pictures.shape[1] // SIZE)


@dataclass(frozen=True, slots=True)
class Examples:
    """latents float16 (N, 64, 8, 8) and classes int64 (N, 17)."""

    latents: np.ndarray
    classes: np.ndarray


def whole(data: Path) -> tuple[Examples, Examples]:
    """The drawn set's own latents, trained on and held out."""
    latents = np.load(data / "latents.npy")
    classes = np.array([truth(*row) for row in load_scenes(data)])
    return (
        Examples(latents[:-HELD_OUT], classes[:-HELD_OUT]),
        Examples(latents[-HELD_OUT:], classes[-HELD_OUT:]),
    )


@torch.inference_mode()
def extra(data: Path, codec: Autoencoder, rows: np.ndarray, seed: int) -> Examples:
    """Pictures that no drawn set has: one in three went through the codec once, the others are broken."""
    pictures, people = np.load(data / "pictures.npy", mmap_mode="r"), load_scenes(data)
    rng, latents, classes = np.random.default_rng(seed), [], []
    for part in np.array_split(rows, max(1, len(rows) // 30)):
        raw = np.array(pictures[part])
        for j, i in enumerate(part):
            if j % 3:
                raw[j] = breakage.break_picture(raw[j], people[i][0], people[i][1], rng)
                classes.append([*[UNSEEN] * (len(NAMES) - 1), 1])
            else:
                classes.append(truth(*people[i]))
        with torch.autocast("cpu", torch.bfloat16):
            image = prepare(raw)
            soft = codec.decoder(codec.encode(image[::3])).float().clamp(-1, 1)
            image[::3] = F.avg_pool2d(soft, 2)
            latents.append(codec.encode(image).float().numpy().astype(np.float16))
    return Examples(np.concatenate(latents), np.array(classes))


@torch.inference_mode()
def accuracy(head: Head, *sets: Examples) -> dict[str, float]:
    """Share of right answers for each attribute, among pictures that show it."""
    right, shown = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 0)
    for examples in sets:
        logits = head(torch.from_numpy(examples.latents.astype(np.float32)))[1:]
        for k, (key, x) in enumerate(zip(NAMES, logits, strict=True)):
            seen = examples.classes[:, k] != UNSEEN
            right[key] += int((x.argmax(1).numpy() == examples.classes[:, k])[seen].sum())
            shown[key] += int(seen.sum())
    return {key: right[key] / max(1, shown[key]) for key in NAMES}


def draw_batch(
    sets: tuple[Examples, Examples], rng: np.random.Generator, count: int
) -> tuple[Tensor, Tensor]:
    """Noisy latents (count, 64, 8, 8) and classes (count, 17) of whole and of extra pictures."""
    few = int(count * EXTRA_SHARE)
    parts = []
    for examples, n in zip(sets, (count - few, few), strict=True):
        rows = rng.integers(0, len(examples.latents), n)
        parts.append((examples.latents[rows].astype(np.float32), examples.classes[rows]))
    latents = torch.from_numpy(np.concatenate([x for x, _ in parts]))
    noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32))
    strength = torch.from_numpy(rng.uniform(0, LATENT_NOISE, (count, 1, 1, 1)).astype(np.float32))
    return latents + strength * noise, torch.from_numpy(np.concatenate([c for _, c in parts]))


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
    trained, held = whole(data)
    rng = np.random.default_rng(40)
    more = extra(data, codec, rng.integers(0, len(trained.latents), EXTRA), 1)
    held_more = extra(data, codec, len(trained.latents) + rng.integers(0, HELD_OUT, EXTRA // 5), 2)
    head = channels_last(Head()).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=0.02)
    stage = Stage(run / "classifier.pt", ("loss",), settings, join_processes(device), head, optimizer)
    rng = np.random.default_rng((9, stage.step, stage.rank))
    for _ in stage.steps():
        latents, classes = draw_batch((trained, more), rng, settings.batch)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(head, latents.to(device), classes.to(device))
        stage.learn(loss, clip=5.0)
        stage.note(loss=loss)
    if stage.leads:
        right = accuracy(head.cpu().eval(), held, held_more)
        print("held-out drawings:", {key: round(value, 3) for key, value in right.items()})
        export_classifier(Classifier(codec, head), run / "classifier.onnx", right)


def export_classifier(model: Classifier, path: Path, right: dict[str, float]) -> None:
    """Writes the graph `image` -> `features` and an output an attribute; its metadata has the names."""
    model = model.eval()
    example, batch = {"image": torch.zeros(2, 3, SIZE, SIZE)}, {0: "batch"}
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
