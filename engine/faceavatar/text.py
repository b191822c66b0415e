"""Words to vectors: CLIP's tokenizer and a text encoder, in windows when a prompt is long.

Knows tokens and windows; does not know what the vectors are for.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from faceavatar.backends import Session
from faceavatar.cache import Cache
from faceavatar.errors import NumericalError, PackInvalid
from faceavatar.manifest import Text

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


class TextEncoder:
    """Encodes prompts of any length; remembers the windows it has seen."""

    def __init__(self, session: Session, tokenizer: Tokenizer, settings: Text) -> None:
        self.session = session
        self._settings = settings
        self._tokenizer = tokenizer
        self._seen: Cache[NDArray[np.float32]] = Cache(REMEMBERED_WINDOWS)

    def windows(self, text: str) -> NDArray[np.int64]:
        """Token ids (windows, max_length) int64: each window begins, ends and is padded as a prompt alone.

        The empty text is one window. max_length 77 leaves 75 tokens of content to a window.
        """
        settings = self._settings
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        room = settings.max_length - 2
        rows = []
        for start in range(0, max(len(ids), 1), room):
            row = [settings.bos_token_id, *ids[start : start + room], settings.eos_token_id]
            rows.append(row + [settings.pad_token_id] * (settings.max_length - len(row)))
        return np.array(rows, np.int64)

    def encode(self, *texts: str) -> list[NDArray[np.float32]]:
        """Hidden states (1, windows * max_length, D) float32 of each text, all equally long.

        Shorter texts are filled up with windows of the empty text, so that two of them fit in one batch.
        Raises NumericalError for NaN or infinite values.
        """
        tokens = [self.windows(text) for text in texts]
        most = max(len(rows) for rows in tokens)
        empty = self.windows("")
        return [
            np.concatenate([self._window(row) for row in [*rows, *[empty[0]] * (most - len(rows))]], axis=1)
            for rows in tokens
        ]

    def _window(self, row: NDArray[np.int64]) -> NDArray[np.float32]:
        # Always a batch of one: what a window encodes to must not depend on its neighbours or the cache.
        return self._seen.get(row.tobytes(), lambda: self._run(row))

    def _run(self, row: NDArray[np.int64]) -> NDArray[np.float32]:
        states = self.session.run({"input_ids": row[None]})["last_hidden_state"]
        if not np.isfinite(states).all():
            raise NumericalError("text_encoder")
        return states
