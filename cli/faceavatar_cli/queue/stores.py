"""Photos on their way to a worker and pictures on their way back, where server and workers all reach them.

A folder (shared by NFS or the like where there are several machines), or any fsspec URL, such as
s3://bucket/avatars. Whoever writes a picture chooses its name beforehand, so that a task that is drawn twice
still leaves one picture; each appears whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from faceavatar.errors import ImageError
from faceavatar_cli.exits import CannotWrite
from faceavatar_cli.http.store import FolderStore
from faceavatar_cli.http.tasks import OutputStore

PHOTOS = ".photos"


class SharedStore(OutputStore, Protocol):
    """An OutputStore that also takes pictures by name, and photos. Methods block."""

    def keep(self, name: str, png: bytes) -> None:
        """Keep a picture under a name of new_name; what had it is replaced. Raises CannotWrite."""
        ...

    def drop(self, name: str) -> None:
        """Remove a picture, if it is there."""
        ...

    def keep_photo(self, task_id: str, photo: bytes) -> None:
        """Keep a request's photo until drop_photo. Raises CannotWrite."""
        ...

    def photo(self, task_id: str) -> bytes:
        """A request's photo. Raises ImageError where it is gone."""
        ...

    def drop_photo(self, task_id: str) -> None:
        """Remove a request's photo, if it is there."""
        ...


def new_name() -> str:
    """A picture's name, as OutputStore wants them: nobody guesses it."""
    return f"{secrets.token_urlsafe(24)}.png"


def open_store(place: str) -> SharedStore:
    """The store at a folder, a file:// URL, or another fsspec URL. Raises InvalidRequest, MissingExtra."""
    if "://" not in place:
        return SharedFolder(Path(place).expanduser().absolute())
    if place.lower().startswith("file://"):
        return SharedFolder(Path(place[len("file://") :]))
    from faceavatar_cli.queue.bucket import Bucket

    return Bucket.at(place)


def cannot_write(place: object, error: Exception) -> CannotWrite:
    """A picture or photo that did not reach its store."""
    reason = getattr(error, "strerror", None) or error
    return CannotWrite(f"{place}: cannot be written ({reason}); server and workers all need to reach it")


def photo_lost(error: Exception) -> ImageError:
    """A photo that a worker looks for in vain."""
    return ImageError(
        f"the photo is not in the output store ({type(error).__name__}); check that server and workers were "
        "given the same one, and hand the request in again"
    )


class SharedFolder(FolderStore):
    """A SharedStore in a folder: `FolderStore` and what workers need."""

    def put(self, task_id: str, index: int, png: bytes) -> str:
        """Under a name of its own."""
        name = new_name()
        self.keep(name, png)
        return name

    def keep(self, name: str, png: bytes) -> None:
        """On the disk, and not only in its cache, before a record says that it is there."""
        _write(self.folder / name, png)

    def drop(self, name: str) -> None:
        """If it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def keep_photo(self, task_id: str, photo: bytes) -> None:
        """In a folder that nobody else reads."""
        _write(self._photo(task_id), photo, 0o700)

    def photo(self, task_id: str) -> bytes:
        """Or ImageError."""
        try:
            return self._photo(task_id).read_bytes()
        except OSError as error:
            raise photo_lost(error) from error

    def drop_photo(self, task_id: str) -> None:
        """If it is there."""
        self._photo(task_id).unlink(missing_ok=True)

    def expire(self, seconds: float) -> int:
        """Pictures; photos of tasks that somebody lost; what was half written when its writer died."""
        before = time.time() - 2 * seconds
        for path in (*(self.folder / PHOTOS).glob("*"), *self.folder.glob(".*.png.*")):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
        return super().expire(seconds)

    def _photo(self, task_id: str) -> Path:
        return self.folder / PHOTOS / task_id


def _write(path: Path, content: bytes, mode: int = 0o777) -> None:
    """Beside and moved in, after it has reached the disk. Raises CannotWrite."""
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode, parents=True, exist_ok=True)
        with half.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise cannot_write(path.parent, error) from error
