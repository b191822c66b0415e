"""`faceavatar serve` and `faceavatar token` as commands."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_client import PHOTOS, data_uri

from faceavatar_cli.http.serving import Serving
from faceavatar_cli.http.settings import Limits
from faceavatar_cli.http.tokens import Keyring, read_file
from faceavatar_cli.serve import serve

PHOTO = (PHOTOS / "astronaut.jpg").read_bytes()
Start = Callable[..., tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def start(process: Callable[..., subprocess.Popen[bytes]]) -> Iterator[Start]:
    """Starts a server without a queue on a free port; gives its process and its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*flags: str) -> tuple[subprocess.Popen[bytes], str]:
        server = process("serve", "--port", "0", "--no-queue", "--pack", "tiny", "--state", "state", *flags)
        running.append(server)
        assert server.stderr is not None
        said = ""
        for line in server.stderr:
            said += line.decode()
            found = re.search(r"serves on (http://\S+)", said)
            if found:
                return server, found[1]
        raise AssertionError(said)

    yield begin
    for server in running:
        server.kill()
        server.communicate()


def ready(url: str) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not get ready")


def test_it_serves_until_it_is_told_to_stop(start: Start, place: Path) -> None:
    server, url = start()
    ready(url)
    answer = httpx.post(f"{url}/getImageToImage", json={"image": data_uri(PHOTO)}, timeout=30).json()
    assert answer["status"] == "completed", answer
    assert answer["app_id"] == "tiny"
    assert httpx.get(answer["output"][0]).content.startswith(b"\x89PNG")
    assert len(list((place / "state" / "outputs").glob("*.png"))) == 1
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) in {0, -signal.SIGTERM}
    assert server.stderr is not None
    rest = server.stderr.read().decode()
    assert "no tokens are configured: only programs on this machine may call" in rest
    assert "Traceback" not in rest


def test_tokens_of_the_environment_are_asked_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEAVATAR_TOKENS", "ann:a long enough secret")
    _, url = start()
    ready(url)
    assert httpx.get(f"{url}/metrics").status_code == 401
    headers = {"Authorization": "Bearer a long enough secret"}
    assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200


def test_a_port_that_is_taken_and_a_host_that_is_none_are_told(run: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run("serve", "--no-queue", "--port", port)
    assert (ran.code, ran.out) == (2, "")
    assert re.search(rf"--port: got {port}, allowed a port that is free on 127\.0\.0\.1", ran.err)
    ran = run("serve", "--no-queue", "--host", "10.255.255.1")
    assert "--host: got '10.255.255.1', allowed 127.0.0.1 or the like while there are no tokens" in ran.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5", "example.com"])
def test_without_tokens_it_listens_on_loopback_only(run: Any, host: str) -> None:
    ran = run("serve", "--host", host)
    assert ran.code == 2
    assert "give --tokens or FACEAVATAR_TOKENS" in ran.err


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (["--tokens", "none.txt"], {}, "none.txt"),
        ([], {"FACEAVATAR_TOKENS": "ann"}, "name:secret"),
        ([], {"FACEAVATAR_WEBHOOK_SECRET": "short"}, "16 characters or more"),
        (["--no-queue", "--broker", "redis://localhost"], {}, "one of the two"),
        (["--broker", "redis://localhost"], {}, "--outputs: got None, allowed a folder or fsspec URL"),
        (["--broker", "http://localhost", "--outputs", "x"], {}, "redis://"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_starts(
    run: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ran = run("serve", "--port", "0", *flags)
    assert ran.code == 2
    assert words in ran.err


def test_a_name_in_file_and_variable_is_refused(
    run: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "tokens").write_text(f"ann:{'0' * 64}\n")
    monkeypatch.setenv("FACEAVATAR_TOKENS", "ann:a long enough secret")
    assert "each name once" in run("serve", "--tokens", "tokens").err


def test_every_flag_finds_its_setting(place: Path) -> None:
    flags = (
        "--pack a --pack b --provider cpu --threads 3 --inline --public-url https://x.example --keep 120 "
        "--allow-host Photos.Internal --together 4 --gather 20 --waiting 9 --per-minute 30 --body 2 "
        "--no-queue --outputs pictures --state s"
    )
    context = serve.make_context("serve", shlex.split(flags))
    settings = Serving.of_flags(context.params, {"FACEAVATAR_WEBHOOK_SECRET": "0123456789abcdef"}).settings
    assert settings.packs == ("a", "b")
    assert (settings.provider, settings.threads, settings.inline) == ("cpu", 3, True)
    assert settings.public_url == "https://x.example"
    assert settings.outputs == Path("pictures")
    assert (settings.keep_seconds, settings.queue, settings.together) == (120, 9, 4)
    assert settings.gather_seconds == 0.02
    assert settings.allowed_hosts == {"photos.internal"}
    assert settings.limits == Limits(per_minute=30, body=2 * 2**20)
    assert settings.webhook_secret == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(settings)


def test_a_token_is_made_and_read_back(run: Any, place: Path) -> None:
    made = run("token", "joe", "--json").json
    (place / "tokens").write_text(made["line"] + "\n")
    found = Keyring(read_file(place / "tokens", Limits())).find(made["secret"])
    assert found is not None
    assert found.name == "joe"
    plain = run("token", "ann")
    assert len(plain.out.strip()) == 43
    assert "for the file of tokens: ann:" in plain.err
    assert plain.out.strip() not in plain.err
    assert run("token", "a name").code == 2
