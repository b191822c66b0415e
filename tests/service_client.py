"""The service without a socket, for tests: a client of an app that is started for it and stopped after it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

PHOTOS = Path(__file__).resolve().parent / "fixtures" / "photos"
EIGHT = {"time_required", "error", "error_data", "input", "output", "app_id", "task_id", "status"}
Client = httpx.AsyncClient
Running = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def client_of(app: FastAPI, address: str = "127.0.0.1") -> AsyncIterator[Client]:
    """A client, from an address, of an app that is started for it and stopped after it."""
    transport = httpx.ASGITransport(app, client=(address, 50000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60) as client,
    ):
        yield client


def data_uri(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
