"""Pictures in a folder, under names that cannot be guessed."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faceavatar_cli.exits import CannotWrite

NAME = re.compile(r"[A-Za-z0-9_-]{32,64}\.png")


@dataclass(frozen=True)
class FolderStore:
    """An OutputStore in one folder; the name is all that protects a picture: long and random."""

    folder: Path

    def put(self, task_id: str, index: int, png: bytes) -> str:
        """Written beside and moved in, so that no reader sees half a picture. Raises CannotWrite."""
        name = f"{secrets.token_urlsafe(24)}.png"
        half = self.folder / f".{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            half.write_bytes(png)
            half.replace(self.folder / name)
        except OSError as error:
            with suppress(OSError):  # half a picture would only keep a full disk full
                half.unlink(missing_ok=True)
            raise CannotWrite(
                f"{self.folder}: cannot be written ({error.strerror}); "
                "make room there, or choose another folder with --outputs"
            ) from error
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
            with suppress(FileNotFoundError):  # another server sweeps the same folder
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
        return gone
