"""Bytes from a path, an http(s) URL or a data URI, with a cap on how many.

A URL may come from a stranger when this runs in a server. So the name is resolved once, every address it
has must be public, and the connection goes to the very address that was checked: no second look-up could
answer otherwise. Each redirect takes the same way. Proxies from the environment are not used: they would
resolve the name. This room knows nothing of pictures.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import socket
import ssl
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from faceavatar.errors import ImageError

MAX_BYTES = 64 * 2**20
ALLOW_PRIVATE_URLS = "FACEAVATAR_ALLOW_PRIVATE_URLS"
_SOCKET_SECONDS = 10.0
_TOTAL_SECONDS = 30.0
_REDIRECTS = 5
_CHUNK = 2**16
_SAFE = "/%:=&?~+!$,;'@()*[]"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
    kind = source_kind(source)
    if kind == "url":
        return fetch(source)
    if kind == "data":
        return _read_data_uri(source)
    if kind == "other":
        raise ImageError(
            f"{shown(source)}: this kind of URL is not read, expected http or https, a data URI or a path"
        )
    return _read_file(Path(source))


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


def fetch(url: str) -> bytes:
    """Fetches an http(s) URL from a public address: 10 s a socket operation, 30 s and 64 MB in all.

    Follows 5 redirects at most, never from https to http nor to another scheme. Raises ImageError.
    """
    name = shown(url)
    deadline = time.monotonic() + _TOTAL_SECONDS
    try:
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            with closing(_connect(parts)) as connection:
                target = (
                    quote(parts.path or "/", safe=_SAFE)
                    + ("?" if parts.query else "")
                    + quote(parts.query, safe=_SAFE)
                )
                connection.request("GET", target, headers={"User-Agent": "faceavatar", "Accept": "image/*"})
                response = connection.getresponse()
                if response.status == 200:
                    return _read_capped(response, name, deadline)
                url = _next_url(url, response, name)
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(
            f"{name}: could not be fetched ({error}); check the URL, or hand in a file"
        ) from error
    raise ImageError(f"{name}: more than {_REDIRECTS} redirects; hand in the URL of the picture itself")


def _connect(parts: SplitResult) -> HTTPConnection:
    """A connection whose socket already leads to an address that was checked."""
    host, secure = parts.hostname, parts.scheme.lower() == "https"
    if not host:
        raise ImageError("a URL without a host cannot be fetched, expected https://host/picture.jpg")
    if parts.username is not None or parts.password is not None:
        raise ImageError(
            f"{host}: a URL with a user name or password is not fetched; hand in the bytes instead"
        )
    port = parts.port or (443 if secure else 80)
    connection = (HTTPSConnection if secure else HTTPConnection)(host, port, timeout=_SOCKET_SECONDS)
    plain = socket.create_connection(_checked_address(host, port), timeout=_SOCKET_SECONDS)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
        )
    except BaseException:
        plain.close()
        raise
    return connection


def _checked_address(host: str, port: int) -> tuple[str, int]:
    """Resolves a name once; refuses it when any of its addresses is not public, unless the switch is set."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    private = [address for address in found if not is_public(address)]
    if private and os.environ.get(ALLOW_PRIVATE_URLS) != "1":
        raise ImageError(
            f"{host}: leads to {private[0]}, which is not a public address; "
            f"hand in the file, or set {ALLOW_PRIVATE_URLS}=1 where the sender is trusted"
        )
    return found[0], port


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from anywhere: not loopback, private, link-local, reserved.

    IPv6 forms that carry an IPv4 address (mapped, 6to4, NAT64) are judged by that address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _next_url(url: str, response: HTTPResponse, name: str) -> str:
    target = response.getheader("Location")
    if response.status not in (301, 302, 303, 307, 308) or not target:
        raise ImageError(f"{name}: answered {response.status} {response.reason}, expected 200; check the URL")
    following = urljoin(url, target)
    if source_kind(following) != "url" or (url[:6].lower() == "https:" and following[:6].lower() != "https:"):
        raise ImageError(
            f"{name}: redirects to {shown(following)}, which is not followed; hand in the file instead"
        )
    return following


def _read_capped(response: HTTPResponse, name: str, deadline: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > MAX_BYTES:
            raise ImageError(_too_large(name))
        if time.monotonic() > deadline:
            raise ImageError(f"{name}: not complete after {_TOTAL_SECONDS:.0f} s; hand in a file instead")
    if response.length:
        raise ImageError(f"{name}: the connection ended {response.length} bytes early; try again")
    return bytes(body)


def _read_data_uri(uri: str) -> bytes:
    header, comma, body = uri.partition(",")
    if not comma:
        raise ImageError(f"{shown(uri)}: a data URI has a comma before its data: data:image/png;base64,...")
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise ImageError(_too_large(shown(uri)))
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
        with path.expanduser().open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read ({reason}); check the path") from error
    if len(body) > MAX_BYTES:
        raise ImageError(_too_large(str(path)))
    return body


def _too_large(name: str) -> str:
    return f"{name}: more than {MAX_BYTES // 2**20} MB; hand in a smaller picture"
