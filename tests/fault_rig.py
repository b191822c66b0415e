"""What is done to a running server, and the callers who work meanwhile.

A call ends in a picture or in an error with a code; what it ended in, and after how long, is kept. All of it
stays on this machine's loopback.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from PIL import Image
from queue_rig import PHOTO
from served import Server, children

from faceavatar import FaceAvatarError
from faceavatar.client import AvatarClient, Avatars, Patience

JPEG = PHOTO.read_bytes()
ONCE = Patience(tries=1)
_CLIENT_SECONDS = 240.0  # beyond every bound of these tests, so that a call that hangs shows as one


def free_port() -> int:
    """One that nobody uses now: a server that is started again keeps its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Served:
    """A server that can be killed and started again at the same address; its state lies in `state`."""

    def __init__(self, folder: Path, state: Path, *flags: str, **variables: str) -> None:
        self._folder, self._port, self._starts, self._variables = folder, free_port(), 0, variables
        self._flags = ("--state", str(state), "--per-minute", "1000000", *flags)
        self._server: Server | None = None
        self.logs: list[Path] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.process.pid

    def start(self) -> None:
        self.logs.append(self._folder / f"server-{len(self.logs)}.log")
        self._server = Server(self.logs[-1], *self._flags, port=self._port, **self._variables)

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()

    def lives(self) -> bool:
        return self._server is not None and self._server.process.poll() is None

    def said(self) -> str:
        return "".join(log.read_text(errors="replace") for log in self.logs)

    def beneath(self, program: str) -> int | None:
        """The process of its broker ("valkey-server") or its worker ("worker"); None while it is down."""
        for pid in children(self.pid):
            with suppress(OSError):
                if program in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return None

    def kill_beneath(self, program: str) -> bool:
        pid = self.beneath(program)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pid is not None

    @contextmanager
    def limited(self, what: int, most: int | None) -> Iterator[None]:
        """Server and worker under a limit of setrlimit; most None: what each has of address space now."""
        pids = [pid for pid in (self.pid, self.beneath("worker")) if pid is not None]
        for pid in pids:
            with suppress(OSError):  # it has ended meanwhile
                soft = most if most is not None else _address_space(pid)
                resource.prlimit(pid, what, (soft, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Disk:
    """A disk of a server's own that can be filled: a tmpfs, or where none may be mounted a limit on files."""

    def __init__(self, folder: Path, megabytes: int = 48) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
        self.mounted = (
            shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
        )

    @contextmanager
    def full(self, served: Served) -> Iterator[None]:
        if not self.mounted:
            with served.limited(resource.RLIMIT_FSIZE, 0):
                yield
            return
        ballast = self.folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        try:
            yield
        finally:
            ballast.unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@dataclass
class Calls:
    """What came of calls: how often each end ("picture" or an error's code), the longest, and queued ids."""

    ends: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    longest: float = 0.0
    queued: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, end: str, seconds: float) -> None:
        with self.lock:
            self.ends[end] += 1
            self.longest = max(self.longest, seconds)


class Callers:
    """Callers who each call, wait for the end, and call again: drawn at once, queued, and no photo at all."""

    def __init__(self, url: str, count: int = 4) -> None:
        self.calls = Calls()
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> Calls:
        """What came of it all; fails where a call still hangs after that time."""
        self._stop.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a call hangs"
        return self.calls

    def _work(self, number: int) -> None:
        with AvatarClient(self._url, timeout=_CLIENT_SECONDS, patience=ONCE) as client:
            for turn in range(number, 10**6):
                if self._stop.is_set():
                    return
                began = time.monotonic()
                try:
                    end = self._call(client, turn)
                except FaceAvatarError as error:
                    end = error.code
                except Exception as error:
                    end = "untyped"
                    self.calls.untyped.append(repr(error))
                self.calls.count(end, time.monotonic() - began)
                if end != "picture":
                    self._stop.wait(0.05)  # a server that is down is not asked a thousand times a second

    def _call(self, client: AvatarClient, turn: int) -> str:
        if turn % 5 == 4:
            client.generate(b"no picture at all")
            return "untyped"  # it was to be refused
        if turn % 2:
            task = client.submit(JPEG, num_inference_steps=2, seed=turn)
            self.calls.queued.append(task.id)
            made = client.wait(task.id, timeout=_CLIENT_SECONDS)
        else:
            made = client.generate(JPEG, num_inference_steps=2, seed=turn)
        check_picture(made.files[0])
        return "picture"


def large_photo() -> bytes:
    """A PNG of 16 megapixels: what it takes to read it is not to be had in a process that starves."""
    buffer = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.resize((4000, 4000)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check_picture(png: bytes) -> None:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        picture.load()
        assert picture.size == (512, 512)


def answers_again(url: str, seconds: float) -> float:
    """Seconds until the server is well, draws at once, and draws what is queued; fails beyond a bound."""
    began = time.monotonic()
    with AvatarClient(url, timeout=seconds, patience=ONCE) as client:

        def at_once() -> Avatars:
            return client.generate(JPEG, num_inference_steps=1)

        def queued() -> Avatars:
            return client.wait(client.submit(JPEG, num_inference_steps=1))

        for draw in (at_once, queued):
            while True:
                try:
                    assert httpx.get(f"{url}/healthz", timeout=seconds).json() == {"status": "ok"}
                    check_picture(draw().files[0])
                    break
                except (FaceAvatarError, httpx.TransportError):
                    if time.monotonic() - began > seconds:
                        raise
                    time.sleep(0.1)
    return time.monotonic() - began


def hang_up(url: str) -> None:
    """Callers that go away: within the head, within the body, while they wait, within the answer."""
    body = _body()
    head = _head(len(body))
    for sent in (head[:40], head, head + body[:5000], head + body, head + body):
        with _connected(url) as connection:
            connection.sendall(sent)
            if sent is not head:
                time.sleep(0.05)
    with _connected(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.recv(100)


@contextmanager
def dripping(url: str, connections: int = 20) -> Iterator[None]:
    """Connections whose heads and bodies come a byte at a time, for as long as it lasts."""
    stop = threading.Event()
    body = _body()

    def drip(sent: bytes, rest: bytes) -> None:
        with suppress(OSError), _connected(url) as connection:
            connection.sendall(sent)
            for byte in rest:
                if stop.wait(0.1):
                    return
                connection.sendall(bytes([byte]))

    head = _head(len(body))
    kinds = [(b"", head), (head, body)]
    threads = [threading.Thread(target=drip, args=kinds[number % 2]) for number in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _connected(url: str) -> socket.socket:
    port = urlsplit(url).port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _head(length: int) -> bytes:
    return (
        b"POST /getImageToImage HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )


def _body() -> bytes:
    from queue_rig import DATA_URI

    return b'{"image": "%s", "num_inference_steps": 2}' % DATA_URI.encode()


def _address_space(pid: int) -> int:
    """Bytes that a process has mapped."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()
