"""Hashes of files remembered between runs: a pack of gigabytes is read once, and not at every load.

A stamp is a file's path, size, modification and change time and inode beside its sha256; it counts only
while all of them are equal. Stamps lie in the user's own cache folder, one file each, never inside a pack:
what comes with a pack cannot vouch for itself. Whoever can write there could change this program as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

CACHE_VARIABLE = "FACEAVATAR_CACHE"
# A file written within the clock's grain of its hashing could change again and keep its times.
_SETTLED_SECONDS = 2.0


def cache_folder() -> Path:
    """FACEAVATAR_CACHE, or this user's folder for what programs can make again."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "faceavatar"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "faceavatar"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faceavatar"


def sha256(path: Path) -> str:
    """The file's sha256 in hex, read from the file itself."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamped_sha256(path: Path) -> str:
    """The file's sha256 in hex: remembered where nothing about the file has changed since, else computed.

    A cache that cannot be read or written costs time and is no error. Raises OSError for the file itself.
    """
    before = _Mark.of(path)
    place = _place(path)
    known = _read(place, before)
    if known is not None:
        return known
    found = sha256(path)
    settled = time.time_ns() - max(before.mtime_ns, before.ctime_ns) > _SETTLED_SECONDS * 1e9
    if place is not None and settled and _Mark.of(path) == before:
        with suppress(OSError):
            _write(place, json.dumps({**asdict(before), "sha256": found}))
    return found


@dataclass(frozen=True)
class _Mark:
    """What tells that a file was touched."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> _Mark:
        found = path.stat()
        return cls(str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _place(path: Path) -> Path | None:
    """Where a file's stamp lies; None where this user has no home."""
    try:
        folder = cache_folder()
    except RuntimeError:
        return None
    return folder / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:40]}.json"


def _read(place: Path | None, mark: _Mark) -> str | None:
    try:
        if place is None or _foreign(place):
            return None
        found = json.loads(place.read_text(encoding="utf-8"))
        known = found.pop("sha256")
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return known if found == asdict(mark) and isinstance(known, str) else None


def _foreign(place: Path) -> bool:
    """Whether another user wrote it: a cache in a shared folder vouches for nothing."""
    owner = getattr(os, "getuid", None)
    return owner is not None and place.stat().st_uid != owner()


def _write(place: Path, text: str) -> None:
    """All at once, so that nobody reads half of it."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, half = tempfile.mkstemp(dir=place.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(half, place)
    except OSError:
        with suppress(OSError):
            os.unlink(half)
        raise
