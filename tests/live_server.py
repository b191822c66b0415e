"""The service on a socket of this machine, in a thread, for tests that need a real connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from faceavatar import AvatarEngine
from faceavatar_cli.http.app import create_app
from faceavatar_cli.http.connections import TimedHeads
from faceavatar_cli.http.settings import Limits, Settings, Token
from faceavatar_cli.http.tokens import hash_secret

STARTS_SECONDS = 30.0
SECRET = "a secret of thirty characters."


def serving_one_caller(engines: Mapping[str, AvatarEngine], outputs: Path) -> AbstractContextManager[str]:
    """As serving, for the token whose secret is SECRET: it may ask five times, and then once a minute."""
    token = Token("tester", hash_secret(SECRET), Limits(per_minute=1))
    return serving(create_app(Settings(outputs=outputs, tokens=(token,)), engines=dict(engines)))


@contextmanager
def serving(app: FastAPI, port: int = 0, http: type[TimedHeads] = TimedHeads) -> Iterator[str]:
    """The URL of the running app, without a slash at its end; it is stopped on leaving."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, http=http, log_level="warning"))
    thread = threading.Thread(target=server.run, name="service")
    thread.start()
    try:
        deadline = time.monotonic() + STARTS_SECONDS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(STARTS_SECONDS)
        assert not thread.is_alive(), "the server did not stop"
