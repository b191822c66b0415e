"""URLs are fetched from public addresses only, in bounded time and size; a real server answers here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from faceavatar import ImageError, fetch, sources
from faceavatar.image import encode_png, load_image

PICTURE = encode_png(np.full((4, 4, 3), 77, np.uint8))
REDIRECTS = {
    "/moved": "/a.png",
    "/elsewhere": "http://169.254.169.254/latest/meta-data",
    "/file": "file:///etc/passwd",
    "/ftp": "ftp://example.com/a.png",
    "/round": "/round",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[path])
            self.end_headers()
        elif path == "/missing":
            self.send_error(404)
        elif path == "/short":
            self.answer(PICTURE, len(PICTURE) + 100)
        elif path == "/endless":
            self.answer(b"\0" * (sources.MAX_BYTES + 1), None)
        else:
            self.answer(PICTURE, len(PICTURE))

    def answer(self, body: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetch.ALLOW_PRIVATE_URLS, "1")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("path", ["/a.png", "/moved", "/a b/ü.png?size=4&x=y", "?only=query"])
def test_a_picture_is_fetched_through_redirects_and_odd_paths(server: str, path: str) -> None:
    assert (load_image(server + path) == 77).all()


def test_a_local_address_is_refused_unless_the_switch_is_set(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(fetch.ALLOW_PRIVATE_URLS, raising=False)
    with pytest.raises(ImageError, match=r"127\.0\.0\.1, which is not a public address"):
        load_image(server + "/a.png")
    monkeypatch.setenv(fetch.ALLOW_PRIVATE_URLS, "yes")
    with pytest.raises(ImageError, match="FACEAVATAR_ALLOW_PRIVATE_URLS=1"):
        load_image(server + "/a.png")


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0"]
)
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ImageError):
        fetch.fetch(f"http://{host}:9/a.png")


def test_a_redirect_to_a_private_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    assert fetch.fetch(server + "/moved") == PICTURE
    with pytest.raises(ImageError, match=r"169\.254\.169\.254, which is not a public address"):
        fetch.fetch(server + "/elsewhere")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("path", ["/file", "/ftp"])
def test_a_redirect_to_another_scheme_is_not_followed(server: str, path: str) -> None:
    with pytest.raises(ImageError, match="which is not followed"):
        fetch.fetch(server + path)


@pytest.mark.usefixtures("trusted")
def test_redirects_in_a_circle_end(server: str) -> None:
    with pytest.raises(ImageError, match="more than 5 redirects"):
        fetch.fetch(server + "/round")


@pytest.mark.usefixtures("trusted")
def test_a_missing_page_a_broken_body_and_a_closed_port_are_named(server: str) -> None:
    with pytest.raises(ImageError, match="answered 404"):
        fetch.fetch(server + "/missing")
    with pytest.raises(ImageError, match="early"):
        fetch.fetch(server + "/short")
    with pytest.raises(ImageError, match="could not be fetched"):
        fetch.fetch("http://127.0.0.1:1/a.png")


@pytest.mark.usefixtures("trusted")
def test_a_body_without_end_is_cut_off(server: str) -> None:
    with pytest.raises(ImageError, match="more than 64 MB"):
        fetch.fetch(server + "/endless")


@pytest.mark.usefixtures("trusted")
def test_a_plain_server_is_no_https_server(server: str) -> None:
    with pytest.raises(ImageError, match="could not be fetched"):
        fetch.fetch(server.replace("http", "https") + "/a.png")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://[::1",
        "http://a:b:c/",
        "http://example.com:99999/",
        "https://exa mple/",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ImageError):
        fetch.fetch(url)


def test_a_message_shows_neither_password_nor_query() -> None:
    with pytest.raises(ImageError) as caught:
        fetch.fetch("http://me:secret@example.com/a.png?token=secret")
    assert "secret" not in str(caught.value)
    assert sources.shown("https://me:secret@example.com/a.png?token=secret") == "https://example.com/a.png"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:0a00:0001::", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
    ],
)
def test_an_address_is_public_or_not(address: str, public: bool) -> None:
    assert fetch.is_public(address) is public


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("https://a/b", "url"),
        ("HTTP://a/b", "url"),
        ("data:image/png;base64,AA", "data"),
        ("ftp://a/b", "other"),
        ("photo.jpg", "path"),
        ("C:\\photo.jpg", "path"),
        ("http.jpg", "path"),
    ],
)
def test_a_string_is_known_by_its_beginning(source: str, kind: str) -> None:
    assert sources.source_kind(source) == kind


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ImageError, match="expected http or https"):
        sources.read_bytes("ftp://example.com/a.png")
    with pytest.raises(ImageError, match="No such file"):
        sources.read_bytes(Path("no/such.png"))
