"""URLs and pictures meant to do harm: each is refused with a code, nothing inside is reached, all goes on.

One real server stands behind all of them. A stub of the resolver and of connecting plays the internet: names
lead where the table says, and a public address to a server of this test's own, which is as hostile as it can.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from live_server import serving
from service_client import EIGHT, PHOTOS, data_uri

from faceavatar import AvatarEngine, fetch
from faceavatar_cli.http import Limits, Settings, create_app

PUBLIC = "93.184.216.34"
NAMES: dict[str, list[list[str]]] = {
    "photos.example": [[PUBLIC]],
    "inside.example": [["127.0.0.1"]],
    "inside6.example": [["::1"]],
    "localhost.": [["127.0.0.1"]],
    "127.0.0.1.": [["127.0.0.1"]],
    "both.example": [[PUBLIC, "10.0.0.7"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "rebind.example": [[PUBLIC], ["127.0.0.1"]],  # each look-up gets the next answer
    "rebind-back.example": [["127.0.0.1"], [PUBLIC]],
}
SECONDS = 1.5  # for one fetch, here
MOST = 2**20  # bytes of a picture, here


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, before: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(megabytes: int) -> bytes:
    """So many of them, packed a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


FILES = {
    "/face.jpg": (PHOTOS / "astronaut.jpg").read_bytes(),
    "/bomb.png": png(50_000, 50_000, zeros(100)),
    "/wide.png": png(2**31 - 1, 1, zeros(1)),
    "/text-bomb.png": png(8, 8, zlib.compress(bytes(200)), chunk(b"zTXt", b"a\0\0" + zeros(300))),
    "/short.png": png(600, 600, zlib.compress(b"")),
    "/bomb.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" + bytes(768) + b",",
    "/page.png": b"<!doctype html><script>alert(1)</script>",
    "/drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "/script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "/paper.pdf": b"%PDF-1.7\n1 0 obj\n",
    "/empty.png": b"",
}


class Hostile(BaseHTTPRequestHandler):
    """What a stranger's server may do."""

    def do_GET(self) -> None:
        name, _, argument = self.path[1:].partition("/")
        try:
            if self.path in FILES:
                self.answer(FILES[self.path], {"Content-Type": "image/png"})
            else:
                getattr(self, f"do_{name.replace('-', '_')}")(argument)
        except OSError:
            self.close_connection = True

    def answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def do_to(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", urlsafe_b64decode(target).decode())
        self.end_headers()

    def do_round(self, number: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"/round/{int(number or 0) + 1}")
        self.end_headers()

    def do_endless(self, argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(2**16))

    def do_long(self, argument: str) -> None:
        self.answer(b"few", {"Content-Length": str(10**12)})

    def do_drip(self, argument: str) -> None:
        """A byte now and then, so that no single wait is long."""
        if argument != "headers":
            self.send_response(200)
            self.end_headers()
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            self.wfile.write(b"a")
            self.wfile.flush()
            time.sleep(0.1)

    def do_continue(self, argument: str) -> None:
        while True:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.05)

    def do_silent(self, argument: str) -> None:
        self.connection.settimeout(20)
        self.connection.recv(1)

    def do_headers(self, argument: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 500 + b"\r\n")

    def do_line(self, argument: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")

    def do_rubbish(self, argument: str) -> None:
        self.wfile.write(b"\0\xff\r\n\r\n" * 100)

    def do_packed(self, argument: str) -> None:
        self.answer(zeros(200), {"Content-Encoding": "deflate", "Content-Type": "image/png"})

    def log_message(self, format: str, *args: object) -> None:
        pass


class Internet:
    """The two calls by which fetching leaves this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.looked_up: list[str] = []
        self.reached: list[str] = []
        self._left = {name: list(answers) for name, answers in NAMES.items()}

    def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        self.looked_up.append(host)
        answers = self._left.get(host)
        if answers is None:  # numbers in any spelling, and this machine's own names, are the system's matter
            return list(socket.getaddrinfo(host, port, **options))
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    def create_connection(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.reached.append(address[0])
        if address[0] != PUBLIC:
            raise AssertionError(f"{address} was reached")
        return socket.create_connection(("127.0.0.1", self._port), timeout)


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        played = Internet(server.server_port)
        shim = SimpleNamespace(
            **vars(socket)
            | {"getaddrinfo": played.getaddrinfo, "create_connection": played.create_connection}
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fetch, "socket", shim)
            patch.delenv(fetch.ALLOW_PRIVATE_URLS, raising=False)
            yield played
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(
    engine: AvatarEngine, internet: Internet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    settings = Settings(
        outputs=tmp_path_factory.mktemp("outputs"),
        limits=Limits(per_minute=1e6),
        image_bytes=MOST,
        image_pixels=4_000_000,
        fetch_seconds=SECONDS,
    )
    with (
        serving(create_app(settings, {"tiny": engine})) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def redirected(target: str) -> str:
    return f"http://photos.example/to/{urlsafe_b64encode(target.encode()).decode()}"


REFUSED = "url_refused"
UNREADABLE = "unreadable_image"
INVALID = "invalid_request"
URLS = [
    # this machine, in every spelling
    ("http://127.0.0.1/a.png", REFUSED),
    ("http://localhost/a.png", REFUSED),
    ("http://LOCALHOST./a.png", REFUSED),
    ("http://127.1/a.png", REFUSED),
    ("http://2130706433/a.png", REFUSED),
    ("http://0x7f000001/a.png", REFUSED),
    ("http://017700000001/a.png", REFUSED),
    ("http://0177.0.0.1/a.png", REFUSED),
    ("http://0x7f.0x0.0x0.0x1/a.png", REFUSED),
    ("http://127.0.0.1.:80/a.png", REFUSED),
    ("http://１２７.０.０.１/a.png", REFUSED),
    ("http://127。0。0。1/a.png", REFUSED),
    ("http://0/a.png", REFUSED),
    ("http://0.0.0.0/a.png", REFUSED),
    ("http://[::]/a.png", REFUSED),
    ("http://[::1]/a.png", REFUSED),
    ("http://[0:0:0:0:0:ffff:127.0.0.1]/a.png", REFUSED),
    ("http://[::ffff:7f00:1]/a.png", REFUSED),
    ("http://[::127.0.0.1]/a.png", REFUSED),
    ("http://[64:ff9b::7f00:1]/a.png", REFUSED),
    ("http://[2002:7f00:1::]/a.png", REFUSED),
    # its neighbours, and the doors of clouds
    ("http://10.0.0.1/a.png", REFUSED),
    ("http://172.16.0.1/a.png", REFUSED),
    ("http://192.168.0.1/a.png", REFUSED),
    ("http://[fc00::1]/a.png", REFUSED),
    ("http://[fe80::1]/a.png", REFUSED),
    ("http://224.0.0.1/a.png", REFUSED),
    ("http://255.255.255.255/a.png", REFUSED),
    ("http://169.254.169.254/latest/meta-data/", REFUSED),
    ("http://[::ffff:169.254.169.254]/", REFUSED),
    ("http://[fd00:ec2::254]/latest/meta-data/", REFUSED),
    ("http://100.100.100.200/latest/meta-data/", REFUSED),
    ("http://168.63.129.16/machine/?comp=goalstate", REFUSED),
    ("http://metadata.google.internal/computeMetadata/v1/", REFUSED),
    # names that lead inside
    ("http://inside.example/a.png", REFUSED),
    ("https://inside6.example/a.png", REFUSED),
    ("http://both.example/a.png", REFUSED),
    ("http://rebind-back.example/face.jpg", REFUSED),
    # a host that is not the one it looks like
    ("http://photos.example@127.0.0.1/a.png", REFUSED),
    ("http://user:secret@photos.example/face.jpg", REFUSED),
    ("http://127.0.0.1\\@photos.example/face.jpg", REFUSED),
    ("http://127.0.0.1#@photos.example/face.jpg", REFUSED),
    ("http://127.0.0.1%2f@photos.example/face.jpg", REFUSED),
    ("http://photos.example:80:80/face.jpg", UNREADABLE),
    ("http://photos.example:99999/face.jpg", UNREADABLE),
    ("http://photos.example%00.evil/face.jpg", UNREADABLE),
    ("http://[::1/a.png", UNREADABLE),
    ("http://", REFUSED),
    ("http:///etc/passwd", REFUSED),
    ("http://" + "a" * 300 + ".example/", UNREADABLE),
    ("http://photos.example/" + "a" * 5000, UNREADABLE),
    # no web at all
    ("file:///etc/passwd", INVALID),
    ("FILE://localhost/etc/passwd", INVALID),
    ("ftp://photos.example/face.jpg", INVALID),
    ("gopher://127.0.0.1:6379/_FLUSHALL", INVALID),
    ("dict://127.0.0.1:11211/stats", INVALID),
    ("jar:http://photos.example/face.jpg!/a", INVALID),
    ("javascript:alert(1)", INVALID),
    ("//127.0.0.1/a.png", INVALID),
    ("/etc/passwd", INVALID),
    ("../../etc/passwd", INVALID),
    ("\\\\127.0.0.1\\share\\a.png", INVALID),
    ("C:\\windows\\win.ini", INVALID),
    (" http://127.0.0.1/", INVALID),
    ("\nhttp://127.0.0.1/", INVALID),
    ("http:127.0.0.1/a.png", INVALID),
    ("", INVALID),
    ("data:image/png;base64", UNREADABLE),
    ("data:image/png;base64,!!!", UNREADABLE),
    ("data:text/plain,/etc/passwd", UNREADABLE),
    # redirects
    (redirected("http://127.0.0.1/a.png"), REFUSED),
    (redirected("http://127.0.0.1:6379/"), REFUSED),
    (redirected("//127.0.0.1/a.png"), REFUSED),
    (redirected("http://[::1]/a.png"), REFUSED),
    (redirected("http://2130706433/a.png"), REFUSED),
    (redirected("http://0177.0.0.1/a.png"), REFUSED),
    (redirected("http://169.254.169.254/latest/meta-data"), REFUSED),
    (redirected("http://inside.example/a.png"), REFUSED),
    (redirected(redirected("http://10.0.0.1/a.png")), REFUSED),
    (redirected("file:///etc/passwd"), REFUSED),
    (redirected("gopher://127.0.0.1:6379/_FLUSHALL"), REFUSED),
    (redirected("data:image/png;base64,AAAA"), REFUSED),
    (redirected("http://user:secret@photos.example/face.jpg"), REFUSED),
    ("http://photos.example/round/", UNREADABLE),
    # servers that answer badly
    ("http://photos.example/endless/", UNREADABLE),
    ("http://photos.example/long/", UNREADABLE),
    ("http://photos.example/drip/", UNREADABLE),
    ("http://photos.example/drip/headers", UNREADABLE),
    ("http://photos.example/continue/", UNREADABLE),
    ("http://photos.example/silent/", UNREADABLE),
    ("http://photos.example/headers/", UNREADABLE),
    ("http://photos.example/line/", UNREADABLE),
    ("http://photos.example/rubbish/", UNREADABLE),
    ("http://photos.example/packed/", UNREADABLE),
    ("https://photos.example/face.jpg", UNREADABLE),  # no TLS there
    ("http://no-such-name.invalid/face.jpg", UNREADABLE),
    # pictures that are none, or far more than they seem
    *((f"http://photos.example{path}", UNREADABLE) for path in FILES if path != "/face.jpg"),
]


@pytest.mark.parametrize(("url", "code"), URLS, ids=[str(number) for number in range(len(URLS))])
def test_it_is_refused_with_a_code(service: httpx.Client, internet: Internet, url: str, code: str) -> None:
    began = time.monotonic()
    response = service.post("/getImageToImage", json={"image": url})
    answer = response.json()
    assert (response.status_code, answer["error"], answer["status"]) == (422, code, "failed"), answer
    assert set(answer) == EIGHT
    assert set(internet.reached) <= {PUBLIC}
    assert time.monotonic() - began < SECONDS + 5
    assert service.get("/healthz").status_code == 200
    for secret in ("secret", "root:", "10.0.0.7", "169.254.169.254 "):
        assert secret not in response.text


def test_the_list_is_long_enough() -> None:
    assert len(URLS) >= 100
    assert len({url for url, _ in URLS}) == len(URLS)


def test_a_name_that_changes_its_address_is_asked_once(service: httpx.Client, internet: Internet) -> None:
    internet.looked_up.clear()
    response = service.post("/getImageToImage", json={"image": "http://rebind.example/face.jpg"})
    assert response.json()["status"] == "completed"
    assert internet.looked_up == ["rebind.example"]
    again = service.post("/getImageToImage", json={"image": "http://rebind.example/face.jpg"})
    assert again.json()["error"] == REFUSED
    assert set(internet.reached) == {PUBLIC}


def test_the_server_goes_on_serving(service: httpx.Client) -> None:
    """After all of them; and the photo of a good stranger is fetched and drawn."""
    for image in ("http://photos.example/face.jpg", redirected("/face.jpg"), data_uri(FILES["/face.jpg"])):
        answer = service.post("/getImageToImage", json={"image": image}).json()
        assert answer["status"] == "completed", answer
        assert service.get(answer["output"][0]).content.startswith(b"\x89PNG")


def test_slow_servers_of_one_caller_do_not_hold_up_the_others(service: httpx.Client) -> None:
    slow = {"image": "http://photos.example/drip/", "celery": True}
    tasks = [service.post("/getImageToImage", json=slow).json()["task_id"] for _ in range(12)]
    began = time.monotonic()
    quick = service.post("/getImageToImage", json={"image": data_uri(FILES["/face.jpg"])}).json()
    assert quick["status"] == "completed"
    assert time.monotonic() - began < 2 * SECONDS
    for task_id in tasks:
        service.delete(f"/tasks/{task_id}")


def test_uploaded_bombs_are_refused_too(service: httpx.Client) -> None:
    for name in ("/bomb.png", "/wide.png", "/text-bomb.png", "/bomb.gif", "/script.eps"):
        answer = service.post("/getImageToImage", files={"image": FILES[name]}).json()
        assert answer["error"] == UNREADABLE, name


def test_a_host_that_is_allowed_by_name_is_fetched_from(
    engine: AvatarEngine, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "socket", socket)

    class Photos(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(photo)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Photos) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings = Settings(outputs=tmp_path, allowed_hosts=frozenset({"localhost"}))
        with (
            serving(create_app(settings, {"tiny": engine})) as url,
            httpx.Client(base_url=url, timeout=30) as client,
        ):
            for host, status in (("localhost", 200), ("LocalHost", 200), ("127.0.0.1", 422)):
                image = f"http://{host}:{server.server_port}/a.jpg"
                assert client.post("/getImageToImage", json={"image": image}).status_code == status, host
        server.shutdown()
        thread.join()
