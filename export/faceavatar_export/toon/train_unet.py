"""Trains the UNet and the face projection on latents, captions and identities; restarts from its checkpoint.

`python -m faceavatar_export.toon.train_unet DATA RUN TOKENIZER.json --minutes 80`, or
`torchrun --nproc-per-node N -m ...` for N processes that share their gradients. DATA holds latents.npy,
embeddings.npy and scenes.jsonl; RUN holds text.pt, known_tokens.pt and autoencoder.pt. v-prediction (Salimans
and Ho 2022), min-SNR weights (Hang et al. 2023, gamma 5), zero terminal SNR (Lin et al. 2023): without the
last, a black background is never black.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

from faceavatar_export.toon import captions
from faceavatar_export.toon.autoencoder import Autoencoder
from faceavatar_export.toon.conditions import ConditionMaker
from faceavatar_export.toon.draw import HELD_OUT, load_scenes
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.network import make_projection, make_schedule, make_unet
from faceavatar_export.toon.text_encoder import TextEncoder
from faceavatar_export.toon.training import (
    Average,
    RunLog,
    agreed,
    join_processes,
    load_checkpoint,
    save_checkpoint,
    share_gradients,
    warm_cosine,
)

SHEET_EVERY_S = 600.0
FACE_WEIGHT = 2.5  # eyes and mouth are a few cells of 64, and most of what a prompt's expression is judged by


class Model(nn.Module):
    """UNet and face projection, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.projection = make_unet(), make_projection()

    def forward(self, sample: Tensor, timestep: Tensor, states: Tensor, face_embeds: Tensor) -> Tensor:
        scale = torch.ones(1, dtype=sample.dtype)
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
        uncond, cond = (
            model(torch.cat([latents] * 2), t.expand(2 * len(states)), both, embeds).float().chunk(2)
        )
        latents = schedule.step(uncond + guidance * (cond - uncond), t, latents).prev_sample
    return latents


def write_sheet(
    model: Model, codec: Autoencoder, maker: ConditionMaker, rows: list[tuple[str, Tensor]], path: Path
) -> None:
    """A sheet of samples, two seeds a row of (prompt, face embedding)."""
    texts = [text for text, _ in rows for _ in range(2)]
    faces = torch.stack([face for _, face in rows for _ in range(2)])
    noise = torch.randn(len(texts), 64, 8, 8, generator=torch.Generator().manual_seed(1))
    latents = sample_latents(model, maker.states(texts, 1), maker.states([""], 1), faces, 2.5, 20, noise)
    with torch.inference_mode():
        pictures = codec.decoder(latents).clamp(-1, 1)[:, :, ::2, ::2]
    tiles = ((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    columns = 8
    lines = [np.concatenate(list(tiles[i : i + columns]), axis=1) for i in range(0, len(tiles), columns)]
    Image.fromarray(np.concatenate(lines, axis=0)).save(path)


def sheet_rows(people: list[tuple[Identity, Scene]], embeddings: np.ndarray) -> list[tuple[str, Tensor]]:
    """Sixteen prompts: the default one for four people, and captions of drawn scenes."""
    rng = np.random.default_rng(4)
    rows = []
    for i in range(16):
        identity, scene = people[-1 - 4 * i]
        word = "woman" if identity.female else "man"
        text = (
            captions.DEFAULT_PROMPT.format(gender_word=word)
            if i < 4
            else captions.sample(identity, scene, rng).text
        )
        rows.append((text, torch.from_numpy(embeddings[-1 - 4 * i])))
    return rows


def train(data: Path, run: Path, tokenizer_file: Path, minutes: float, batch_size: int, lr: float) -> None:
    """Trains for `minutes` of wall clock; RUN/unet.pt is the checkpoint. `batch_size` is one process's."""
    rank, processes = join_processes()
    torch.manual_seed(0)  # the same first weights in every process
    latents = np.load(data / "latents.npy", mmap_mode="r")[:-HELD_OUT]
    embeddings = np.load(data / "embeddings.npy")[: len(latents)]
    people = load_scenes(data)[: len(latents)]
    weights = np.array([3.0 if captions.is_default_scene(scene) else 1.0 for _, scene in people])
    weights /= weights.sum()
    maker, codec = load_text(run, tokenizer_file), Autoencoder()
    load_checkpoint(run / "autoencoder.pt", model=codec)
    model = Model()
    average = Average(model, 0.998)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-3)
    step, spent = load_checkpoint(run / "unet.pt", model=model, average=average, optimizer=optimizer)
    rng = np.random.default_rng((8, step, rank))
    torch.manual_seed(1000 * step + rank)
    abar = make_schedule().alphas_cumprod
    face_weight = torch.ones(1, 1, 8, 8)
    face_weight[:, :, 2:6, 2:6] = FACE_WEIGHT
    log, start, sheet_at = (
        RunLog(run / "unet.csv", ("step", "minutes", "loss")),
        time.time() - spent,
        time.time() + 300,
    )
    running = 0.0
    while (elapsed := agreed((time.time() - start) / 60, processes)) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        rows = rng.choice(len(latents), batch_size, p=weights)
        told = maker.make([people[i] for i in rows], embeddings[rows], rng, 2 if rng.random() < 0.08 else 1)
        clean = torch.from_numpy(latents[np.asarray(rows)].astype(np.float32))
        noise = torch.randn_like(clean)
        t = torch.from_numpy(rng.integers(0, len(abar), batch_size))
        a = abar[t][:, None, None, None]
        noisy, v = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noisy, t, told.states, told.face_embeds)
        snr = a / (1 - a).clamp(min=1e-6)
        weight = snr.clamp(max=5) / (snr + 1) + 0.2  # the floor keeps the first, purely noisy step trained
        loss = (weight * face_weight * (predicted.float() - v).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share_gradients(model, processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if rank > 0:
            continue
        average.update(model, step)
        running += loss.item() / 50
        if step % 50 == 0:
            log.write(step, elapsed, running)
            if not np.isfinite(running):
                raise RuntimeError(f"loss is {running} at step {step}")
            running = 0.0
        if step % 200 == 0:
            save_checkpoint(
                run / "unet.pt", step, time.time() - start, model=model, average=average, optimizer=optimizer
            )
        if time.time() > sheet_at:
            write_sheet(
                average.module, codec, maker, sheet_rows(people, embeddings), run / f"sheet-{step:06d}.png"
            )
            sheet_at = time.time() + SHEET_EVERY_S
    if rank > 0:
        return
    save_checkpoint(
        run / "unet.pt", step, time.time() - start, model=model, average=average, optimizer=optimizer
    )
    write_sheet(average.module, codec, maker, sheet_rows(people, embeddings), run / f"sheet-{step:06d}.png")


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=8e-4)
    args = parser.parse_args()
    train(args.data, args.run, args.tokenizer, args.minutes, args.batch, args.lr)


if __name__ == "__main__":
    main()
