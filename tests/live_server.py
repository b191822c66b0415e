"""The service on a socket of this machine, in a thread, for tests that need a real connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from faceavatar_cli.http.connections import TimedHeads

STARTS_SECONDS = 30.0


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
