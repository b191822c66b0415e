"""Bytes from an http(s) URL, with a cap on how many; and a POST under the same rules.

A URL may come from a stranger when this runs in a server. So the name is resolved once, every address it
has must be public, and the connection goes to the very address that was checked: no second look-up could
answer otherwise. Each redirect takes the same way. Proxies from the environment are not used: they would
resolve the name. The clock is held by closing the socket, so that no server can spin out its answer byte by
byte. This room knows nothing of pictures.
"""

from __future__ import annotations

import _thread
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from faceavatar.errors import ImageError, UrlRefused
from faceavatar.sources import DEFAULT_RULES, Rules, shown, source_kind, too_large
from faceavatar.watch import current

ALLOW_PRIVATE_URLS = "FACEAVATAR_ALLOW_PRIVATE_URLS"
_SOCKET_SECONDS = 10.0
_REDIRECTS = 5
_CHUNK = 2**16
_SAFE = "/%:=&?~+!$,;'@()*[]"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# A public address by its number, and yet the host's own door in Azure: metadata and agents answer there.
_INNER_DOORS = frozenset({ipaddress.IPv4Address("168.63.129.16")})


def fetch(url: str, rules: Rules = DEFAULT_RULES) -> bytes:
    """Fetches an http(s) URL from a public address: 10 s a socket operation, 30 s and 64 MB in all.

    Follows 5 redirects at most, never from https to http nor to another scheme. Raises ImageError, and
    UrlRefused where it leads to what is not fetched from.
    """
    name = shown(url)
    rules = replace(rules, seconds=min(rules.seconds, max(0.0, current().seconds_left)))
    deadline = time.monotonic() + rules.seconds
    with _late_for_the_caller(), _failures_named(name, "hand in a file"):
        for _ in range(_REDIRECTS + 1):
            with _connected(urlsplit(url), rules, deadline) as (connection, target):
                headers = {"User-Agent": "faceavatar", "Accept": "image/*"}
                connection.request("GET", target, headers=headers)
                with closing(connection.getresponse()) as response:
                    if response.status == 200:
                        return _read_capped(response, name, rules.max_bytes)
                    url = _next_url(url, response, name)
    raise ImageError(f"{name}: more than {_REDIRECTS} redirects; hand in the URL of the picture itself")


def post(url: str, body: bytes, headers: Mapping[str, str], rules: Rules = DEFAULT_RULES) -> int:
    """Posts a body where fetch would fetch from, and gives the answer's HTTP status; follows no redirect.

    Raises ImageError where no answer came, UrlRefused as fetch does.
    """
    deadline = time.monotonic() + rules.seconds
    with (
        _failures_named(shown(url), "let the server there answer in time"),
        _connected(urlsplit(url), rules, deadline) as (connection, target),
    ):
        connection.request("POST", target, body, {"User-Agent": "faceavatar", **headers})
        with closing(connection.getresponse()) as response:
            return response.status


@contextmanager
def _late_for_the_caller() -> Iterator[None]:
    """What failed because the caller's own time is over is told as that."""
    try:
        yield
    except ImageError:
        current().ask("load_image")
        raise


@contextmanager
def _failures_named(name: str, way_out: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ImageError(f"{name}: no whole answer in time ({error}); {way_out}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{name}: could not be fetched ({error}); check the URL, or {way_out}") from error


@contextmanager
def _connected(parts: SplitResult, rules: Rules, deadline: float) -> Iterator[tuple[HTTPConnection, str]]:
    """A connection to an address that was checked, closed at the deadline, and the target to ask it for."""
    host, secure = parts.hostname, parts.scheme.lower() == "https"
    if not host:
        raise UrlRefused("a URL without a host cannot be fetched, expected https://host/picture.jpg")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused(
            f"{host}: a URL with a user name or password is not fetched; hand in the bytes instead"
        )
    port = parts.port or (443 if secure else 80)
    reached = _reach(_checked_addresses(host, port, rules), port, deadline)
    if secure:
        context = ssl.create_default_context()
        reached = context.wrap_socket(reached, server_hostname=host, do_handshake_on_connect=False)
    over, late = threading.Event(), threading.Event()
    # Not a Thread: where memory has run out, its start would wait for ever for a thread that never began.
    _thread.start_new_thread(_hang_up, (reached, deadline, over, late))
    try:
        with closing((HTTPSConnection if secure else HTTPConnection)(host, port)) as connection:
            connection.sock = reached
            if isinstance(reached, ssl.SSLSocket):
                reached.do_handshake()
            query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
            yield connection, quote(parts.path or "/", safe=_SAFE) + query
            if late.is_set():  # what was cut off may look like an end
                raise TimeoutError
    except (OSError, HTTPException, ValueError, ImageError) as error:
        if late.is_set():
            raise TimeoutError(f"{rules.seconds:.0f} s are over") from error
        raise
    finally:
        over.set()
        reached.close()


def _hang_up(
    connection: socket.socket, deadline: float, over: threading.Event, late: threading.Event
) -> None:
    """Ends whatever waits on a socket beyond the deadline, in another thread: closing would not wake it."""
    if over.wait(max(0.0, deadline - time.monotonic())):
        return
    late.set()
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not the TLS one, which belongs to its reader


def _reach(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A socket to the first of the addresses that answers."""
    failure: OSError = TimeoutError("no time is left to connect")
    for address in addresses:
        seconds = min(_SOCKET_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            break
        try:
            reached = socket.create_connection((address, port), timeout=seconds)
        except OSError as error:
            failure = error
        else:
            reached.settimeout(_SOCKET_SECONDS)
            return reached
    raise failure


def _checked_addresses(host: str, port: int, rules: Rules) -> list[str]:
    """Resolves a name once; refuses it when any of its addresses is not public, unless that is allowed."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    private = [address for address in found if not is_public(address)]
    allowed = host.lower() in rules.allowed_hosts or os.environ.get(ALLOW_PRIVATE_URLS) == "1"
    if private and not allowed:
        raise UrlRefused(
            f"{host}: leads to {private[0]}, which is not a public address; "
            f"hand in the file, or set {ALLOW_PRIVATE_URLS}=1 where the sender is trusted"
        )
    return list(dict.fromkeys(found))


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
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and ip not in _INNER_DOORS


def _next_url(url: str, response: HTTPResponse, name: str) -> str:
    target = response.getheader("Location")
    if response.status not in (301, 302, 303, 307, 308) or not target:
        raise ImageError(f"{name}: answered {response.status} {response.reason}, expected 200; check the URL")
    following = urljoin(url, target)
    if source_kind(following) != "url" or (url[:6].lower() == "https:" and following[:6].lower() != "https:"):
        raise UrlRefused(
            f"{name}: redirects to {shown(following)}, which is not followed; hand in the file instead"
        )
    return following


def _read_capped(response: HTTPResponse, name: str, most: int) -> bytes:
    if response.length is not None and response.length > most:
        raise ImageError(too_large(name, most))
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > most:
            raise ImageError(too_large(name, most))
    if response.length:
        raise ImageError(f"{name}: the connection ended {response.length} bytes early; try again")
    return bytes(body)
