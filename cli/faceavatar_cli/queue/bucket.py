"""A SharedStore in whatever fsspec reaches: s3://, gs://, az://, sftp://, ..."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from typing import Any

from faceavatar.errors import InvalidRequest, MissingExtra
from faceavatar_cli.http.store import NAME
from faceavatar_cli.queue.stores import PHOTOS, cannot_write, new_name, photo_lost

# Where one PUT is seen whole or not at all, and a move would be a copy.
_WHOLE_PUTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})


class Bucket:
    """A SharedStore behind a file system of fsspec; make one with Bucket.at."""

    def __init__(self, filesystem: Any, root: str, whole_puts: bool) -> None:
        self._files, self._root, self._whole_puts = filesystem, root.rstrip("/"), whole_puts

    @classmethod
    def at(cls, url: str) -> Bucket:
        """Raises InvalidRequest: a protocol that fsspec does not know, or whose package is absent."""
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingExtra("queue", "fsspec") from error
        protocol = url.partition("://")[0].lower()
        try:
            filesystem, root = url_to_fs(url)
        except ValueError as error:
            allowed = "a folder, or a URL of a protocol that fsspec knows, such as s3://bucket/avatars"
            raise InvalidRequest("outputs", url, allowed) from error
        except ImportError as error:  # its words name the package
            raise InvalidRequest("outputs", url, f"what can be reached from here: {error}") from error
        return cls(filesystem, root, protocol in _WHOLE_PUTS)

    def put(self, task_id: str, index: int, png: bytes) -> str:
        """Under a name of its own."""
        name = new_name()
        self.keep(name, png)
        return name

    def open(self, name: str) -> bytes | None:
        """The picture, or None; a name of another form is never looked up."""
        if not NAME.fullmatch(name):
            return None
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def keep(self, name: str, png: bytes) -> None:
        """In one PUT, or beside it and moved in."""
        self._write(f"{self._root}/{name}", png)

    def drop(self, name: str) -> None:
        """If it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")

    def keep_photo(self, task_id: str, photo: bytes) -> None:
        """In a folder that nobody else reads."""
        self._write(f"{self._root}/{PHOTOS}/{task_id}", photo)

    def photo(self, task_id: str) -> bytes:
        """Or ImageError."""
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{PHOTOS}/{task_id}")
        except OSError as error:
            raise photo_lost(error) from error
        return content

    def drop_photo(self, task_id: str) -> None:
        """If it is there."""
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{PHOTOS}/{task_id}")

    def expire(self, seconds: float) -> int:
        """Pictures, and photos of tasks that somebody lost."""
        for path in self._older(f"{self._root}/{PHOTOS}", 2 * seconds):
            self._files.rm_file(path)
        old = [path for path in self._older(self._root, seconds) if NAME.fullmatch(path.rpartition("/")[2])]
        for path in old:
            self._files.rm_file(path)
        return len(old)

    def _older(self, folder: str, seconds: float) -> list[str]:
        before = time.time() - seconds
        try:
            found = self._files.ls(folder, detail=True, refresh=True)
        except FileNotFoundError:
            return []
        files = [entry["name"] for entry in found if entry["type"] == "file"]
        return [path for path in files if self._files.modified(path).timestamp() < before]

    def _write(self, path: str, content: bytes) -> None:
        """Raises CannotWrite; what goes wrong is as various as what fsspec reaches."""
        half = f"{path}.{secrets.token_hex(4)}"
        folder = path.rpartition("/")[0]
        try:
            self._files.makedirs(folder, exist_ok=True)
            if self._whole_puts:
                self._files.pipe_file(path, content)
                return
            self._files.pipe_file(half, content)
            self._files.mv(half, path)
        except Exception as error:
            raise cannot_write(folder, error) from error
