"""What a picture is handed in as: a path, an http(s) URL, a data URI; its bytes, with a cap on how many.

Loads what talks to the network (fetch.py) when the first URL comes: most programs that draw never fetch one.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

from faceavatar.errors import ImageError, UrlRefused

MAX_BYTES = 64 * 2**20
_CHUNK = 2**20


@dataclass(frozen=True)
class Rules:
    """What a URL may do.

    allowed_hosts: names (or addresses as the URL writes them), lower case, that may lead to addresses that
    are not public. max_bytes: of a body. seconds: in all, redirects among them.
    """

    allowed_hosts: frozenset[str] = frozenset()
    max_bytes: int = MAX_BYTES
    seconds: float = 30.0


DEFAULT_RULES = Rules()


def source_kind(source: str) -> Literal["url", "data", "path", "other"]:
    """Says what a string names: an http(s) URL, a data URI, a URL of another scheme, or else a path."""
    start = source[:8].lower()
    if start.startswith(("http://", "https://")):
        return "url"
    if start.startswith("data:"):
        return "data"
    return "other" if "://" in source else "path"


def read_bytes(source: str | Path) -> bytes:
    """Reads a path, an http(s) URL or a data URI; 64 MB at most. Raises ImageError."""
    if isinstance(source, Path):
        return _read_file(source)
    if source_kind(source) == "path":
        return _read_file(Path(source))
    return read_remote(source)


def read_remote(source: str, rules: Rules = DEFAULT_RULES) -> bytes:
    """Reads an http(s) URL or a data URI and never a file: for what strangers send. Raises ImageError."""
    kind = source_kind(source)
    if kind == "url":
        from faceavatar.fetch import fetch  # http.client and ssl are a tenth of the whole import

        return fetch(source, rules)
    if kind == "data":
        return _read_data_uri(source, rules.max_bytes)
    if kind == "other":
        raise UrlRefused(
            f"{shown(source)}: this kind of URL is not read, expected http or https, a data URI or a path"
        )
    raise ImageError("a path is not read here, expected an http(s) URL or a data URI")


def shown(source: str | Path) -> str:
    """The source as it may stand in a message: a URL without credentials and query, a data URI cut short."""
    if isinstance(source, Path) or source_kind(source) == "path":
        return str(source)
    if source_kind(source) == "data":
        return f"{source[:30]}..."
    try:
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    except ValueError:
        return f"{source[:8]}..."


def _read_data_uri(uri: str, most: int) -> bytes:
    header, comma, body = uri.partition(",")
    if not comma:
        raise ImageError(f"{shown(uri)}: a data URI has a comma before its data: data:image/png;base64,...")
    if len(body) > most * 4 // 3 + 4:
        raise ImageError(too_large(shown(uri), most))
    raw = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise ImageError(
            f"{shown(uri)}: its base64 cannot be read ({error}); encode the file again"
        ) from error


def _read_file(path: Path) -> bytes:
    try:
        with open(path.expanduser(), "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(f"{path}: a pipe or device, expected a file; hand in its bytes")
            body = b""
            while len(body) <= MAX_BYTES and (more := file.read(_CHUNK)):  # a read of n bytes takes n
                body += more
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read ({reason}); check the path") from error
    if len(body) > MAX_BYTES:
        raise ImageError(too_large(str(path), MAX_BYTES))
    return body


def _without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would otherwise wait until somebody writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def too_large(name: str, most: int) -> str:
    """What an error says of bytes that are more than `most`."""
    return f"{name}: more than {most / 2**20:.0f} MB; hand in a smaller picture"
