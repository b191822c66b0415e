"""Trains the text encoder before any picture is seen: every attribute must be readable from its states.

`python -m faceavatar_export.toon.train_text TOKENIZER.json OUT --minutes 6`. What a caption does not name has
a class of its own ("not said"), so that the UNet can tell silence from a wish.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from faceavatar_export.toon import captions, colors
from faceavatar_export.toon.draw import sample
from faceavatar_export.toon.identity import (
    BEARDS,
    EXPRESSIONS,
    FRAMINGS,
    GARMENTS,
    GLASSES,
    HAIR_LENGTHS,
    STYLES,
    Identity,
    Scene,
)
from faceavatar_export.toon.text_encoder import BOS, EOS, VOCABULARY, WINDOW, Reader, TextEncoder
from faceavatar_export.toon.training import RunLog, load_checkpoint, save_checkpoint, warm_cosine

CLASSES = {  # one more class each: not said
    "style": len(STYLES) + 1,
    "expression": len(EXPRESSIONS) + 1,
    "garment": len(GARMENTS) + 1,
    "garment_color": len(colors.CLOTH_COLORS) + 1,
    "background": len(colors.BACKGROUND_COLORS) + 1,
    "background_end": len(colors.BACKGROUND_COLORS) + 1,
    "framing": len(FRAMINGS) + 1,
    "female": 3,
    "hair": len(HAIR_LENGTHS) + 1,
    "beard": len(BEARDS) + 1,
    "glasses": len(GLASSES) + 1,
}


def labels(identity: Identity, scene: Scene, caption: captions.Caption) -> list[int]:
    """What the caption says, one class an attribute in the order of CLASSES; the last class is "not said"."""
    default = caption.text.startswith(captions.DEFAULT_PROMPT[:40])
    named = caption.named | ({"style", "expression", "background", "framing"} if default else set())

    def said(key: str, value: int, count: int) -> int:
        return value if key in named else count

    top = list(colors.BACKGROUND_COLORS).index(
        colors.nearest_name(scene.background, colors.BACKGROUND_COLORS)
    )
    end = list(colors.BACKGROUND_COLORS).index(
        colors.nearest_name(scene.background_end, colors.BACKGROUND_COLORS)
    )
    cloth = list(colors.CLOTH_COLORS).index(colors.nearest_name(scene.garment_color, colors.CLOTH_COLORS))
    return [
        said("style", STYLES.index(scene.style), len(STYLES)),
        said("expression", EXPRESSIONS.index(scene.expression), len(EXPRESSIONS)),
        said("garment", GARMENTS.index(scene.garment), len(GARMENTS)),
        said("garment", cloth, len(colors.CLOTH_COLORS)),
        said("background", top, len(colors.BACKGROUND_COLORS)),
        said("background", end, len(colors.BACKGROUND_COLORS)),
        said("framing", FRAMINGS.index(scene.framing), len(FRAMINGS)),
        said("female", int(identity.female), 2),
        said("hair", HAIR_LENGTHS.index(identity.hair_length), len(HAIR_LENGTHS)),
        said("beard", BEARDS.index(identity.beard), len(BEARDS)),
        said("glasses", GLASSES.index(identity.glasses), len(GLASSES)),
    ]


def tokenize(tokenizer: Tokenizer, texts: list[str], windows: int = 1) -> np.ndarray:
    """int64 (B, windows, 77) as the engine makes them: 75 tokens a window, with start, end and padding."""
    out = np.full((len(texts), windows, WINDOW), EOS, np.int64)
    out[:, :, 0] = BOS
    for row, encoding in zip(out, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        for i in range(windows):
            part = encoding.ids[i * (WINDOW - 2) : (i + 1) * (WINDOW - 2)]
            row[i, 1 : 1 + len(part)] = part
    return out


def known_tokens(tokenizer: Tokenizer) -> Tensor:
    """(49408,) int64: a row for every token that 60,000 captions use, 0 for all others."""
    used = {BOS, EOS}
    rng = np.random.default_rng(7)
    for i in range(60_000):
        identity, scene = sample(99, i)
        used.update(
            tokenizer.encode(captions.sample(identity, scene, rng).text, add_special_tokens=False).ids
        )
    known = torch.zeros(VOCABULARY, dtype=torch.int64)
    known[torch.tensor(sorted(used))] = torch.arange(1, len(used) + 1)
    return known


def make_batch(tokenizer: Tokenizer, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Fresh captions: ids (count, 77), classes (count, 11)."""
    texts, classes = [], []
    for _ in range(count):
        identity, scene = sample(int(rng.integers(1 << 30)), 0)
        caption = captions.sample(identity, scene, rng)
        texts.append(caption.text)
        classes.append(labels(identity, scene, caption))
    ids = torch.from_numpy(tokenize(tokenizer, texts)[:, 0])
    return ids, torch.tensor(classes)


def train(tokenizer_file: Path, out: Path, minutes: float, batch_size: int, lr: float) -> None:
    """Trains for `minutes`; the checkpoint holds the encoder, the reader and the known tokens."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    known_file = out / "known_tokens.pt"
    if not known_file.exists():
        out.mkdir(parents=True, exist_ok=True)
        torch.save(known_tokens(tokenizer), known_file)
    encoder, reader = TextEncoder(torch.load(known_file, weights_only=True)), Reader(CLASSES)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], lr=lr, weight_decay=1e-3)
    step, spent = load_checkpoint(out / "text.pt", encoder=encoder, reader=reader, optimizer=optimizer)
    rng = np.random.default_rng((3, step))
    log, start = (
        RunLog(out / "text.csv", ("step", "minutes", "loss", "worst_accuracy", "mean_accuracy")),
        time.time() - spent,
    )
    while (elapsed := (time.time() - start) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        ids, classes = make_batch(tokenizer, rng, batch_size)
        if step % 8:  # the default prompt is thrice as long as the rest: most batches go without it
            short = (ids != EOS).sum(1) < 45
            ids, classes = ids[short], classes[short]
        longest = int((ids != EOS).sum(1).max()) + 2
        logits = reader(encoder(ids[:, :longest]))
        loss = torch.stack([F.cross_entropy(x, classes[:, i]) for i, x in enumerate(logits)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            right = torch.stack([(x.argmax(1) == classes[:, i]).float().mean() for i, x in enumerate(logits)])
            log.write(step, elapsed, loss.item(), right.min().item(), right.mean().item())
            save_checkpoint(
                out / "text.pt",
                step,
                time.time() - start,
                encoder=encoder,
                reader=reader,
                optimizer=optimizer,
            )


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    train(args.tokenizer, args.out, args.minutes, args.batch, args.lr)


if __name__ == "__main__":
    main()
