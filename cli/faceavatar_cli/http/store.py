"""Pictures in a folder, under names that cannot be guessed."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_-]{32,64}\.png")


@dataclass(frozen=True)
class FolderStore:
    """An OutputStore in one folder; the name is all that protects a picture: long and random."""

    folder: Path

    def put(self, task_id: str, index: int, png: bytes) -> str:
        """Written beside and moved in, so that no reader sees half a picture."""
        name = f"{secrets.token_urlsafe(24)}.png"
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self.folder / f".{name}"
        half.write_bytes(png)
        half.replace(self.folder / name)
        return name

    def open(self, name: str) -> bytes | None:
        """The picture, or None; a name of another form is never looked up."""
        if not NAME.fullmatch(name):
            return None
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def expire(self, seconds: float) -> int:
        """Remove what is older."""
        before, gone = time.time() - seconds, 0
        for path in self.folder.glob("*.png"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                gone += 1
        return gone
