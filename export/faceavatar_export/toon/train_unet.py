"""Trains the UNet and the face projection on latents, captions and identities; restarts from its checkpoint.

`python -m faceavatar_export.toon.train_unet DATA RUN TOKENIZER.json`, or
`torchrun --nproc-per-node N -m ...` for N processes that share their gradients. DATA holds latents.npy,
embeddings.npy and scenes.jsonl; RUN holds text.pt, known_tokens.pt and autoencoder.pt. v-prediction (Salimans
and Ho 2022), min-SNR weights (Hang et al. 2023, gamma 5), zero terminal SNR (Lin et al. 2023): without the
last, a black background is never black.

With `--warm WARM.pt` (written by warm_start.py) a first start takes the weights of a finished pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from faceavatar_export.toon import captions
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.conditions import ConditionMaker, Conditions
from faceavatar_export.toon.draw import HELD_OUT, load_scenes
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.network import make_projection, make_schedule, make_unet
from faceavatar_export.toon.settings import read_settings, stage_parser
from faceavatar_export.toon.text_encoder import TextEncoder
from faceavatar_export.toon.training import (
    Average,
    Stage,
    choose_device,
    data_workers,
    endless,
    join_processes,
    load_checkpoint,
)

SHEET_EVERY = 1000
HELD_OUT_EVERY, HELD_OUT_ROWS = 500, 128


@dataclass(frozen=True, slots=True)
class Settings:
    """The section [unet]."""

    minutes: float
    batch: int
    lr: float
    decay: float
    face_weight: float
    default_weight: float


class Model(nn.Module):
    """UNet and face projection, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.projection = make_unet(), make_projection()

    def forward(self, sample: Tensor, timestep: Tensor, states: Tensor, face_embeds: Tensor) -> Tensor:
        scale = torch.ones(1, dtype=sample.dtype, device=sample.device)
        return torch.as_tensor(self.unet(sample, timestep, states, self.projection(face_embeds), scale))


def load_text(run: Path, tokenizer_file: Path) -> ConditionMaker:
    """The frozen text encoder of a run, ready to make conditions."""
    encoder = TextEncoder(torch.load(run / "known_tokens.pt", weights_only=True))
    if load_checkpoint(run / "text.pt", encoder=encoder)[0] == 0:
        raise FileNotFoundError(f"{run / 'text.pt'}: no trained text encoder; run train_text first")
    return ConditionMaker(Tokenizer.from_file(str(tokenizer_file)), encoder)


@torch.inference_mode()
def sample_latents(
    model: Model, states: Tensor, empty: Tensor, faces: Tensor, guidance: float, steps: int, noise: Tensor
) -> Tensor:
    """DDIM with guidance: states (B, N, D), empty (1, N, D), faces (B, 24), noise (B, 64, h, w) -> latents.

    An empty face, all zeros, and `empty` states make the unconditional half.
    """
    schedule = make_schedule()
    schedule.set_timesteps(steps)
    both = torch.cat([empty.expand(len(states), -1, -1), states])
    embeds = torch.cat([torch.zeros_like(faces), faces])
    latents = noise
    for t in schedule.timesteps:
        stamps = t.to(noise.device).expand(2 * len(states))
        uncond, cond = model(torch.cat([latents] * 2), stamps, both, embeds).float().chunk(2)
        latents = schedule.step(uncond + guidance * (cond - uncond), t, latents).prev_sample
    return latents


def write_sheet(model: Model, maker: ConditionMaker, material: Material, run: Path) -> None:
    """RUN/sheet.png: samples of sixteen prompts, two seeds each, as the weights stand."""
    rows = sheet_rows([material.people[i] for i in material.held], material.embeddings[material.held])
    codec = Autoencoder()
    load_checkpoint(run / "autoencoder.pt", model=codec)
    device = next(model.parameters()).device
    states = maker.states([text for text, _ in rows for _ in range(2)], 1).to(device)
    faces = torch.stack([face for _, face in rows for _ in range(2)]).to(device)
    noise = torch.randn(len(faces), 64, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
    latents = sample_latents(model, states, maker.states([""], 1).to(device), faces, 2.5, 20, noise).cpu()
    with torch.inference_mode():
        pictures = codec.decoder(latents).clamp(-1, 1)[:, :, ::2, ::2]
    tiles = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    lines = [np.concatenate(list(tiles[i : i + 8]), axis=1) for i in range(0, len(tiles), 8)]
    Image.fromarray(np.concatenate(lines, axis=0)).save(run / "sheet.png")


def sheet_rows(people: list[tuple[Identity, Scene]], embeddings: np.ndarray) -> list[tuple[str, Tensor]]:
    """Sixteen prompts: the default one for four people, and captions of drawn scenes."""
    rng = np.random.default_rng(4)
    rows = []
    for i in range(16):
        k = -1 - 9 * i  # nine is no multiple of the eight pictures of a person: all styles come by
        identity, scene = people[k]
        told = captions.default_caption(identity, rng) if i < 4 else captions.sample(identity, scene, rng)
        rows.append((told.text, torch.from_numpy(embeddings[k])))
    return rows


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on: latents (N, 64, 8, 8) float16, embeddings (N, 24), who and how; `weights` sum to 1.

    `held` are rows that no step trains on.
    """

    latents: np.ndarray
    embeddings: np.ndarray
    people: list[tuple[Identity, Scene]]
    weights: np.ndarray
    held: range


def load_material(data: Path, default_weight: float) -> Material:
    """A drawn set with its latents, its last HELD_OUT pictures held out."""
    latents = np.load(data / "latents.npy", mmap_mode="r")
    people, embeddings = load_scenes(data), np.load(data / "embeddings.npy")
    if len(latents) != len(people):
        raise ValueError(
            f"{data / 'latents.npy'}: {len(latents)} latents of {len(people)} pictures; run encode_latents"
        )
    count = len(people) - HELD_OUT
    weights = np.array(
        [default_weight if captions.is_default_scene(scene) else 1.0 for _, scene in people[:count]]
    )
    return Material(latents, embeddings, people, weights / weights.sum(), range(count, len(people)))


@cache
def _alphas(device: torch.device) -> Tensor:
    return torch.as_tensor(make_schedule().alphas_cumprod).to(device)


def noise_loss(
    model: Model, weights: Tensor, clean: Tensor, told: Conditions, noise: Tensor, t: Tensor
) -> Tensor:
    """The weighted v-prediction error of a batch, (B,): clean and noise (B, 64, 8, 8), t int64 (B,).

    `weights` (1, 1, 8, 8) are those of the cells.
    """
    a = _alphas(clean.device)[t][:, None, None, None]
    noisy, v = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
    with torch.autocast(clean.device.type, torch.bfloat16):
        predicted = model(noisy, t, told.states, told.face_embeds)
    snr = a / (1 - a).clamp(min=1e-6)
    weight = snr.clamp(max=5) / (snr + 1) + 0.2  # the floor keeps the first, purely noisy step trained
    return torch.as_tensor((weight * weights * (predicted.float() - v).square()).mean((1, 2, 3)))


def face_weights(weight: float, device: torch.device) -> Tensor:
    """(1, 1, 8, 8): the cells where faces are weigh `weight`, the others 1."""
    weights = torch.ones(1, 1, 8, 8, device=device)
    weights[:, :, 2:6, 2:6] = weight  # eyes and mouth are a few cells, and most of what an expression is
    return weights


Batch = tuple[Tensor, Conditions, Tensor, Tensor]  # clean latents, conditions, noise, timesteps


class Batches:
    """Makes batches on the CPU, with a generator that is given."""

    def __init__(self, material: Material, maker: ConditionMaker) -> None:
        self._material, self._maker = material, maker

    def draw(self, count: int, rng: np.random.Generator) -> Batch:
        """A batch of `count` random pictures, held-out ones apart."""
        weights = self._material.weights
        return self.of(rng.choice(len(weights), count, p=weights), rng)

    def of(self, rows: np.ndarray, rng: np.random.Generator) -> Batch:
        """A batch of the pictures given."""
        m = self._material
        windows = 2 if rng.random() < 0.08 else 1
        told = self._maker.make([m.people[i] for i in rows], m.embeddings[rows], rng, windows)
        clean = torch.from_numpy(m.latents[rows].astype(np.float32))
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        return clean, told, noise, torch.from_numpy(rng.integers(0, 1000, len(rows)))


def batch_loss(model: Model, weights: Tensor, batch: Batch) -> Tensor:
    """noise_loss of a batch, (B,), moved to where the cells' `weights` are."""
    device = weights.device
    clean, told, noise, t = batch
    told = Conditions(told.states.to(device), told.face_embeds.to(device))
    return noise_loss(model, weights, clean.to(device), told, noise.to(device), t.to(device))


@torch.inference_mode()
def held_out_loss(model: Model, weights: Tensor, material: Material, maker: ConditionMaker) -> float:
    """The loss on held-out pictures, always with the same captions, noise and timesteps."""
    batches, rng = Batches(material, maker), np.random.default_rng(77)
    rows = np.array(material.held)[:: max(1, len(material.held) // HELD_OUT_ROWS)][:HELD_OUT_ROWS]
    parts = [batch_loss(model, weights, batches.of(part, rng)) for part in np.array_split(rows, 4)]
    return torch.cat(parts).mean().item()


def start_warm(model: Model, warm: Path) -> None:
    """Fills the model from warm_start's file."""
    model.load_state_dict(torch.load(warm, weights_only=True)["unet"])


def prepare(
    run: Path, settings: Settings, device: torch.device, warm: Path | None
) -> tuple[Stage, Model, Average[Model]]:
    """A fresh, a warm or a restored run on its device."""
    team = join_processes(device)
    torch.manual_seed(0)  # the same first weights in every process
    model = Model()
    if warm is not None and not (run / "unet.pt").exists():
        start_warm(model, warm)
    model = model.to(device)
    average = Average(model, settings.decay)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, (0.9, 0.98), weight_decay=1e-3, fused=True)
    stage = Stage(run / "unet.pt", ("loss", "held_out"), settings, team, model, optimizer, average=average)
    return stage, model, average


def train(
    data: Path, run: Path, tokenizer: Path, settings: Settings, device: torch.device, warm: Path | None = None
) -> None:
    """Trains for the settings' minutes of wall clock; RUN/unet.pt is the checkpoint."""
    material, maker = load_material(data, settings.default_weight), load_text(run, tokenizer)
    stage, model, average = prepare(run, settings, device, warm)
    weights = face_weights(settings.face_weight, device)
    make = partial(Batches(material, maker).draw, settings.batch)
    batches = endless(make, (8, stage.step, stage.rank), data_workers(device))
    for _ in stage.steps():
        loss = batch_loss(model, weights, next(batches)).mean()
        stage.learn(loss)
        stage.note(loss=loss)
        if not stage.leads:
            continue
        average.update(model, stage.step)
        if stage.step % HELD_OUT_EVERY == 0:
            stage.note(held_out=held_out_loss(average.module, weights, material, maker))
        if stage.step % SHEET_EVERY == 0:
            write_sheet(average.module, maker, material, run)
    if stage.leads:
        write_sheet(average.module, maker, material, run)


def main() -> None:
    """The command line of the module's docstring."""
    parser = stage_parser(__doc__, Settings)
    for path in ("data", "run", "tokenizer"):
        parser.add_argument(path, type=Path)
    parser.add_argument("--warm", type=Path, help="warm.pt of warm_start, for the first start")
    args = parser.parse_args()
    device = choose_device(args.device)
    settings = read_settings(Settings, "unet", device.type, args.config, vars(args))
    train(args.data, args.run, args.tokenizer, settings, device, args.warm)


if __name__ == "__main__":
    main()
