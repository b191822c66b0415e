"""create_app: the service as an ASGI app, to be served, embedded or tested without a socket."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceavatar import AvatarEngine, FaceAvatarError, InvalidRequest, __version__
from faceavatar_cli.http.answers import error_response
from faceavatar_cli.http.openapi import DESCRIPTION, document
from faceavatar_cli.http.page import page, page_headers
from faceavatar_cli.http.problems import Problem, problem_of
from faceavatar_cli.http.routes import router
from faceavatar_cli.http.service import Service
from faceavatar_cli.http.settings import Settings
from faceavatar_cli.http.tasks import OutputStore, QueueRunner

_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
_CODES = {404: "not_found", 405: "method_not_allowed"}
_log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None,
    engines: Mapping[str, AvatarEngine] | None = None,
    store: OutputStore | None = None,
    queue: QueueRunner | None = None,
) -> FastAPI:
    """The service.

    engines: by app_id, the default first; None loads settings.packs when the app starts. store: where
    pictures are kept; None: the folder settings.outputs. queue: who runs tasks of `celery: true`; None runs
    them in this process, where they are lost when it ends. The app must be started (its lifespan entered): a
    server does that, a test does `async with app.router.lifespan_context(app)`.
    """
    service = Service(settings or Settings(), engines, store, queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.open()
        try:
            yield
        finally:
            await service.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="faceavatar",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(router)
    # FastAPI's own way to another document is to replace the method.
    app.openapi = lambda: document(app)  # type: ignore[method-assign]

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return Response(page(), headers=dict(page_headers()))

    for kind, handler in _handlers(service).items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Counted, service=service)
    return app


class Counted:
    """Counts each answer, and notes when its request came."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["began"] = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._service.metrics.answered(route, method, message["status"])
            await send(message)

        await self._app(scope, receive, counting)


def _handlers(service: Service) -> dict[Any, Callable[[Request, Any], Any]]:
    """Every error becomes an answer of eight fields."""

    def tell(request: Request, problem: Problem) -> Response:
        service.metrics.failed(problem.code)
        began = getattr(request.state, "began", time.perf_counter())
        return error_response(problem, time.perf_counter() - began, getattr(request.state, "asked", None))

    async def on_purpose(request: Request, error: FaceAvatarError) -> Response:
        return tell(request, problem_of(error))

    async def from_http(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "unreadable_body")
        data = {"message": f"{request.method} {request.url.path[:80]}: {error.detail}"}
        return tell(request, Problem(code, data, error.status_code, error.headers or {}))

    async def from_fastapi(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        return tell(
            request, problem_of(InvalidRequest(str(problem["loc"][-1]), problem["input"], problem["msg"]))
        )

    async def unforeseen(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return tell(request, problem_of(error))

    return {
        FaceAvatarError: on_purpose,
        HTTPException: from_http,
        RequestValidationError: from_fastapi,
        Exception: unforeseen,
    }
