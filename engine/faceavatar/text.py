"""Words to vectors: CLIP's tokenizer and a text encoder, in windows when a prompt is long.

Knows tokens and windows; does not know what the vectors are for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from faceavatar.backends import Session
from faceavatar.cache import Cache
from faceavatar.errors import NumericalError, PackInvalid
from faceavatar.manifest import DefaultStyle, Text

REMEMBERED_WINDOWS = 64


def open_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json. What it says of cutting and padding is dropped: windows are made here.

    Raises PackInvalid.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the bindings raise Exception itself
        raise PackInvalid(f"{path.name}: not a tokenizer that can be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@dataclass(frozen=True)
class TextStates:
    """A prompt encoded: states (1, N, D) float32, and the pooled vector (1, P) where the pack makes one."""

    states: NDArray[np.float32]
    pooled: NDArray[np.float32] | None = None

    def zeros(self) -> TextStates:
        """The same shapes, all zero."""
        pooled = None if self.pooled is None else np.zeros_like(self.pooled)
        return TextStates(np.zeros_like(self.states), pooled)


class TextEncoder:
    """Encodes prompts of any length; remembers the windows it has seen."""

    def __init__(
        self, session: Session, tokenizer: Tokenizer, settings: Text, pad_token_id: int | None = None
    ) -> None:
        self.session = session
        self._settings = settings
        self._tokenizer = tokenizer
        self._pad = settings.pad_token_id if pad_token_id is None else pad_token_id
        self._seen: Cache[dict[str, NDArray[np.float32]]] = Cache(REMEMBERED_WINDOWS)

    def windows(self, text: str) -> NDArray[np.int64]:
        """Token ids (windows, max_length) int64: each window begins, ends and is padded as a prompt alone.

        The empty text is one window. max_length 77 leaves 75 tokens of content to a window.
        """
        return windows_of(text, self._tokenizer, self._settings, self._pad)

    def encode(self, *texts: str) -> list[NDArray[np.float32]]:
        """Hidden states (1, windows * max_length, D) float32 of each text, all equally long.

        Shorter texts are filled up with windows of the empty text, so that two of them fit in one batch.
        Raises NumericalError for NaN or infinite values.
        """
        tokens = [self.windows(text) for text in texts]
        most = max(len(rows) for rows in tokens)
        empty = self.windows("")
        return [
            np.concatenate(
                [self._window(row)["last_hidden_state"] for row in [*rows, *[empty[0]] * (most - len(rows))]],
                axis=1,
            )
            for rows in tokens
        ]

    def pooled(self, text: str) -> NDArray[np.float32]:
        """The pooled vector (1, P) float32 of a text's first window, of a graph that gives `text_embeds`."""
        return self._window(self.windows(text)[0])["text_embeds"]

    def _window(self, row: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        # Always a batch of one: what a window encodes to must not depend on its neighbours or the cache.
        return self._seen.get(row.tobytes(), lambda: self._run(row))

    def _run(self, row: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        outputs = self.session.run({"input_ids": row[None]})
        if not all(np.isfinite(states).all() for states in outputs.values()):
            raise NumericalError("text_encoder")
        return outputs


def windows_of(text: str, tokenizer: Tokenizer, settings: Text, pad: int) -> NDArray[np.int64]:
    """As TextEncoder.windows, without an encoder."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    room = settings.max_length - 2
    rows = []
    for start in range(0, max(len(ids), 1), room):
        row = [settings.bos_token_id, *ids[start : start + room], settings.eos_token_id]
        rows.append(row + [pad] * (settings.max_length - len(row)))
    return np.array(rows, np.int64)


def with_style(prompt: str, default: DefaultStyle | None) -> str:
    """The prompt, and a default style where it names none."""
    if default is None:
        return prompt
    words = "|".join(re.escape(word) for word in default.words)
    if re.search(rf"(?<!\w)(?:{words})(?!\w)", prompt, re.IGNORECASE):
        return prompt
    return f"{prompt}, {default.style}" if prompt.strip() else default.style


class TextEncoders:
    """One encoder, or SDXL's two: their states side by side, and the second one's pooled vector.

    Source: Podell et al., "SDXL", 2023, section 2.1.
    """

    def __init__(self, first: TextEncoder, second: TextEncoder | None, settings: Text) -> None:
        self.first, self.second = first, second
        self._zeros_when_unset = settings.zeros_when_unset
        self._default_style = settings.default_style

    def styled(self, prompt: str) -> str:
        """The prompt, with the pack's default style where it names none."""
        return with_style(prompt, self._default_style)

    def encode(self, *texts: str | None) -> list[TextStates]:
        """All texts, equally long. None is the empty text, or zeros where the pack takes zeros for unset.

        Raises NumericalError for NaN or infinite values.
        """
        words = [text or "" for text in texts]
        states = self.first.encode(*words)
        if self.second is None:
            encoded = [TextStates(one) for one in states]
        else:
            second = self.second
            pairs = zip(states, second.encode(*words), words, strict=True)
            encoded = [
                TextStates(np.concatenate([one, other], axis=2), second.pooled(word))
                for one, other, word in pairs
            ]
        if not self._zeros_when_unset:
            return encoded
        return [one.zeros() if text is None else one for text, one in zip(texts, encoded, strict=True)]
