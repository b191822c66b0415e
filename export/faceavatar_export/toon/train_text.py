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
    HEADWEAR,
    PATTERNS,
    STYLES,
    Identity,
    Scene,
)
from faceavatar_export.toon.text_encoder import BOS, EOS, VOCABULARY, WINDOW, Reader, TextEncoder
from faceavatar_export.toon.training import RunLog, load_checkpoint, save_checkpoint, warm_cosine

POOL = 40_000
UNKNOWN = 0  # "!", which no caption holds
LOG = ("step", "minutes", "loss", "worst_held_out", "mean_held_out")
CLASSES = {  # one more class each: not said
    "style": len(STYLES) + 1,
    "expression": len(EXPRESSIONS) + 1,
    "garment": len(GARMENTS) + 1,
    "garment_color": len(colors.CLOTH_COLORS) + 1,
    "headwear": len(HEADWEAR) + 1,
    "headwear_color": len(colors.CLOTH_COLORS) + 1,
    "background": len(colors.BACKGROUND_COLORS) + 1,
    "background_end": len(colors.BACKGROUND_COLORS) + 1,
    "pattern": len(PATTERNS) + 1,
    "framing": len(FRAMINGS) + 1,
    "female": 3,
    "old": 3,
    "hair": len(HAIR_LENGTHS) + 1,
    "curly": 4,  # straight, curly, bun
    "hair_color": len(colors.HAIR_COLORS) + 1,
    "beard": len(BEARDS) + 1,
    "glasses": len(GLASSES) + 1,
}


def _nearest(color: str, names: dict[str, str]) -> int:
    return list(names).index(colors.nearest_name(color, names))


def labels(identity: Identity, scene: Scene, caption: captions.Caption) -> list[int]:
    """What the caption says, one class an attribute in the order of CLASSES; the last class is "not said"."""
    kind = 1 if identity.curly else 0
    true = {
        "style": STYLES.index(scene.style),
        "expression": EXPRESSIONS.index(scene.expression),
        "garment": GARMENTS.index(scene.garment),
        "garment_color": _nearest(scene.garment_color, colors.CLOTH_COLORS),
        "headwear": HEADWEAR.index(scene.headwear),
        "headwear_color": _nearest(scene.headwear_color, colors.CLOTH_COLORS),
        "background": _nearest(scene.background, colors.BACKGROUND_COLORS),
        "background_end": _nearest(scene.background_end, colors.BACKGROUND_COLORS),
        "pattern": PATTERNS.index(scene.pattern),
        "framing": FRAMINGS.index(scene.framing),
        "female": int(identity.female),
        "old": int(identity.old),
        "hair": HAIR_LENGTHS.index(identity.hair_length),
        "curly": 2 if identity.bun and "bun" in caption.text.lower() else kind,
        "hair_color": _nearest(identity.hair_color, colors.HAIR_COLORS),
        "beard": BEARDS.index(identity.beard),
        "glasses": GLASSES.index(identity.glasses),
    }
    if caption.default:
        true["expression"] = EXPRESSIONS.index("smile")
    named = caption.named | ({"background_end"} if "background" in caption.named else set())
    return [true[key] if key in named else count - 1 for key, count in CLASSES.items()]


def tokenize(tokenizer: Tokenizer, texts: list[str], windows: int = 1) -> np.ndarray:
    """int64 (B, windows, 77) as the engine makes them: 75 tokens a window, with start, end and padding."""
    out = np.full((len(texts), windows, WINDOW), EOS, np.int64)
    out[:, :, 0] = BOS
    for row, encoding in zip(out, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        for i in range(windows):
            part = encoding.ids[i * (WINDOW - 2) : (i + 1) * (WINDOW - 2)]
            row[i, 1 : 1 + len(part)] = part
    return out


def tell(rng: np.random.Generator, held_out: bool = False) -> tuple[captions.Caption, list[int]]:
    """A fresh caption of a fresh picture, and its classes."""
    identity, scene = sample(int(rng.integers(1 << 30)), int(rng.integers(1 << 20)))
    caption = captions.sample(identity, scene, rng, held_out)
    return caption, labels(identity, scene, caption)


def known_tokens(tokenizer: Tokenizer) -> Tensor:
    """(49408,) int64: a row for every token that 30,000 captions use, 0 for all others.

    Captions kept for scores are not looked at: a token that only they use must say nothing, as a user's
    unknown words do.
    """
    rng = np.random.default_rng(7)
    used = {BOS, EOS}
    for _ in range(30_000):
        used.update(tokenizer.encode(tell(rng)[0].text, add_special_tokens=False).ids)
    known = torch.zeros(VOCABULARY, dtype=torch.int64)
    known[torch.tensor(sorted(used))] = torch.arange(1, len(used) + 1)
    return known


def start_warm(encoder: TextEncoder, warm: Path) -> None:
    """Takes over another encoder's weights; tokens that it did not know keep their fresh embeddings."""
    state: dict[str, Tensor] = torch.load(warm, weights_only=True)["text"]
    theirs, ours = state.pop("known"), encoder.known
    rows = state.pop("token.weight")
    encoder.load_state_dict(state, strict=False)
    both = (theirs > 0) & (ours > 0)
    with torch.no_grad():
        encoder.token.weight[ours[both]] = rows[theirs[both]]


class Pool:
    """Captions told once and read many times: telling them costs more than a step of training."""

    def __init__(self, tokenizer: Tokenizer, rng: np.random.Generator, count: int, held_out: bool = False):
        told = [tell(rng, held_out) for _ in range(count)]
        self.ids = torch.from_numpy(tokenize(tokenizer, [caption.text for caption, _ in told])[:, 0])
        self.classes = torch.tensor([classes for _, classes in told])
        self.lengths = (self.ids != EOS).sum(1)

    def batch(self, rng: np.random.Generator, count: int, longest: int) -> tuple[Tensor, Tensor]:
        """ids (count, up to 77) and classes (count, 17) of captions of at most `longest` tokens.

        Half of them with words strewn in that the encoder does not know: a person's own sentence has many.
        """
        rows = rng.choice(np.flatnonzero(self.lengths.numpy() <= longest), count)
        ids = np.stack([strew(self.ids[i].numpy(), rng) if rng.random() < 0.5 else self.ids[i] for i in rows])
        return torch.from_numpy(ids[:, : int((ids != EOS).sum(1).max()) + 2]), self.classes[rows]


def strew(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window (77,) with up to ten unknown tokens between those it has, as far as there is room."""
    said = ids[1 : int((ids != EOS).sum())]
    room = WINDOW - 2 - len(said)
    extra = min(room, int(rng.integers(1, 11)))
    mixed = np.insert(said, rng.integers(0, len(said) + 1, extra), UNKNOWN)
    out = np.full(WINDOW, EOS, np.int64)
    out[0], out[1 : 1 + len(mixed)] = BOS, mixed
    return out


@torch.inference_mode()
def accuracy(encoder: TextEncoder, reader: Reader, pool: Pool) -> dict[str, float]:
    """The share of a pool's captions of which each attribute is read right."""
    right = [
        (x.argmax(1) == pool.classes[:, i]).float().mean().item()
        for i, x in enumerate(reader(encoder(pool.ids)))
    ]
    return dict(zip(CLASSES, right, strict=True))


def train(
    tokenizer_file: Path, out: Path, minutes: float, batch_size: int, lr: float, warm: Path | None = None
) -> None:
    """Trains for `minutes`; the checkpoint holds the encoder, the reader and the known tokens."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    known_file = out / "known_tokens.pt"
    if not known_file.exists():
        out.mkdir(parents=True, exist_ok=True)
        torch.save(known_tokens(tokenizer), known_file)
    encoder, reader = TextEncoder(torch.load(known_file, weights_only=True)), Reader(CLASSES)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], lr=lr, weight_decay=1e-3)
    step, spent = load_checkpoint(out / "text.pt", encoder=encoder, reader=reader, optimizer=optimizer)
    if step == 0 and warm is not None:
        start_warm(encoder, warm)
    rng = np.random.default_rng((3, step))
    pool = Pool(tokenizer, rng, POOL)
    unseen = Pool(tokenizer, np.random.default_rng(17), 1000, held_out=True)
    log, start = RunLog(out / "text.csv", LOG), time.time() - spent
    while (elapsed := (time.time() - start) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_cosine(elapsed / minutes)
        # The default prompt is thrice as long as the rest: most batches go without it.
        ids, classes = pool.batch(rng, batch_size, 45 if step % 8 else WINDOW)
        loss = torch.stack(
            [F.cross_entropy(x, classes[:, i]) for i, x in enumerate(reader(encoder(ids)))]
        ).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            held = accuracy(encoder, reader, unseen)
            log.write(step, elapsed, loss.item(), min(held.values()), float(np.mean(list(held.values()))))
            save_checkpoint(
                out / "text.pt",
                step,
                time.time() - start,
                encoder=encoder,
                reader=reader,
                optimizer=optimizer,
            )
    save_checkpoint(
        out / "text.pt", step, time.time() - start, encoder=encoder, reader=reader, optimizer=optimizer
    )
    print({key: round(value, 3) for key, value in accuracy(encoder, reader, unseen).items()})


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
    parser.add_argument("--warm", type=Path, help="warm.pt, as warm_start.py writes it")
    args = parser.parse_args()
    train(args.tokenizer, args.out, args.minutes, args.batch, args.lr, args.warm)


if __name__ == "__main__":
    main()
