"""create_app: the service as an ASGI app."""

from __future__ import annotations

from fastapi import FastAPI

from faceavatar import __version__
from faceavatar_cli.http.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service; it can be embedded, and tested without a socket."""
    app = FastAPI(title="faceavatar", version=__version__)
    app.state.settings = settings or Settings()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
