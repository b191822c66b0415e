"""Apps in front of the tests' own pack, and what to send them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from service_client import PHOTOS, Client, Running, client_of, data_uri

from faceavatar import AvatarEngine
from faceavatar_cli.http import Limits, Settings, create_app


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def toon() -> AvatarEngine:
    return AvatarEngine.load("toon", provider="cpu")


@pytest.fixture(scope="session")
def photo() -> bytes:
    return (PHOTOS / "astronaut.jpg").read_bytes()


@pytest.fixture(scope="session")
def photo_uri(photo: bytes) -> str:
    return data_uri(photo)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an app for tests: pictures in a folder of its own, no rate limit to speak of."""
    return Settings(outputs=tmp_path / "outputs", limits=Limits(per_minute=1e6))


@pytest.fixture
def running(engine: AvatarEngine, settings: Settings) -> Running:
    """Starts an app in front of the tests' own pack, `tiny`, with some settings changed; gives its client."""

    def start(**changes: Any) -> AbstractAsyncContextManager[Client]:
        return client_of(create_app(replace(settings, **changes), {"tiny": engine}))

    return start
