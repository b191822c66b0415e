"""What the UNet is told of a picture in training: a caption and a face embedding, noisy, partial or missing.

A face encoder errs, so the embedding is jittered; a prompt outweighs the photo, so what a caption names about
the person is often hidden or contradicted in the embedding; guidance needs an unconditional model, so both
are sometimes dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from faceavatar_export.toon import captions
from faceavatar_export.toon.identity import Identity, Scene
from faceavatar_export.toon.text_encoder import TextEncoder
from faceavatar_export.toon.train_text import tokenize

HIDDEN = 0.4
COLORLESS = 0.2  # of the photos that hidden words may stand against, the share without any hair
# What a caption names -> the slots of the face embedding that say the same.
_SLOTS = {
    "hair": slice(7, 11),
    "curly": slice(11, 13),
    "hair_color": slice(4, 7),
    "beard": slice(13, 15),
    "glasses": slice(15, 17),
    "female": slice(17, 18),
    "old": slice(18, 19),
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """encoder_hidden_states (B, N, 192) and face_embeds (B, 24)."""

    states: Tensor
    face_embeds: Tensor


def scramble(
    embedding: np.ndarray, named: frozenset[str], identity: Identity, rng: np.random.Generator
) -> np.ndarray:
    """The embedding as a face encoder might have seen it, with some of what the caption names hidden."""
    e = embedding.copy()
    e[1:7] += rng.normal(0, 0.12, 6) * (e[1:7] != 0)
    e[7:19] *= rng.uniform(0.7, 1.0, 12)
    hide = {name for name in _SLOTS if name in named and rng.random() < HIDDEN}
    if "female" in named and identity.female and rng.random() < HIDDEN:
        hide.add("beard")  # a woman asked for with a bearded man's photo: the words win
    for name in hide:
        part = e[_SLOTS[name]]
        # Another colour is any plausible one; a switch is anything between no and yes.
        part[:] = rng.normal(0, 1, part.shape) if name == "hair_color" else rng.uniform(-1, 1, part.shape)
    _hide_bareness(e, hide, identity, rng)
    return e


def _hide_bareness(e: np.ndarray, hide: set[str], identity: Identity, rng: np.random.Generator) -> None:
    """Hair colour is zeros where neither hair nor beard is (identity.embed): hidden, both may not show by it.

    A bald man asked for may have sent a photo with hair, and long hair may be asked of a bald man's photo.
    """
    hairless = identity.hair_length == "bald" or "hair" in hide
    beardless = identity.beard == "none" or "beard" in hide
    if not hide & {"hair", "beard"} or not (hairless and beardless):
        return
    if rng.random() < COLORLESS:
        e[4:7] = 0
    elif not e[4:7].any():
        e[4:7] = rng.normal(0, 1, 3)


class ConditionMaker:
    """Holds the tokenizer and the frozen text encoder; makes the conditions of a batch."""

    def __init__(self, tokenizer: Tokenizer, encoder: TextEncoder) -> None:
        self._tokenizer, self._encoder = tokenizer, encoder.eval().requires_grad_(False)

    def states(self, texts: list[str], windows: int) -> Tensor:
        """Texts -> (B, 77 windows, 192), encoded a window at a time and joined."""
        ids = torch.from_numpy(tokenize(self._tokenizer, texts, windows))
        with torch.no_grad():
            out: Tensor = self._encoder(ids.flatten(0, 1))
        return out.reshape(len(texts), -1, out.shape[-1])

    def make(
        self,
        people: list[tuple[Identity, Scene]],
        embeddings: np.ndarray,
        rng: np.random.Generator,
        windows: int,
    ) -> Conditions:
        """One batch; a second window, mostly empty, is what a long prompt beside a short one brings."""
        texts, faces = [], []
        for (identity, scene), embedding in zip(people, embeddings, strict=True):
            caption = captions.sample(identity, scene, rng)
            face = scramble(embedding, caption.named, identity, rng)
            drop = rng.random()
            texts.append("" if drop < 0.12 else caption.text)
            faces.append(np.zeros_like(face) if drop < 0.08 or drop > 0.96 else face)
        return Conditions(self.states(texts, windows), torch.from_numpy(np.stack(faces)))
