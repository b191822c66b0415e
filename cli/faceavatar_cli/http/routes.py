"""The routes. What they do is in service.py; how bodies are read and answers made, in rooms of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from faceavatar.errors import FaceAvatarError
from faceavatar_cli.http.answers import news_of, status_of, task_answer_of
from faceavatar_cli.http.bodies import read_get_image, read_image_to_image
from faceavatar_cli.http.callers import Caller
from faceavatar_cli.http.contract import LONGEST_NAME, Answer, TaskAnswer
from faceavatar_cli.http.openapi import EVENTS, GET_IMAGE_BODY, IMAGE_TO_IMAGE_BODY, errors
from faceavatar_cli.http.problems import NotReady, OutputNotFound, TaskNotFound
from faceavatar_cli.http.service import Service
from faceavatar_cli.http.tasks import TaskEvent

PING_SECONDS = 15.0
GONE = 499  # nginx's own word for a caller that hung up; nobody reads it
TaskId = Annotated[str, Path(max_length=LONGEST_NAME, description="The task_id of an answer.")]
router = APIRouter()


async def _service(request: Request) -> Service:  # a plain function would be called in a thread
    service: Service = request.app.state.service
    return service


Svc = Annotated[Service, Depends(_service)]


def base_url_of(request: Request, service: Service) -> str:
    """What the URLs of pictures begin with."""
    return (service.settings.public_url or str(request.base_url)).rstrip("/")


@router.post(
    "/getImageToImage",
    response_model=Answer,
    responses=errors(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra={"requestBody": IMAGE_TO_IMAGE_BODY},
    tags=["contract"],
)
async def get_image_to_image(request: Request, service: Svc, caller: Caller) -> Response:
    """Make avatars of a face: wait for them, or queue the task (`celery: true`) and be told its id."""
    service.rates.take(caller)
    asked = await read_image_to_image(request, caller.limits.body)
    request.state.asked = asked.echo()
    app_id, base_url = service.check(asked, caller), base_url_of(request, service)
    record = await service.submit(asked, app_id, caller, base_url)
    if asked.celery:
        return _json(await service.answer(record, base_url))
    done = asyncio.ensure_future(service.wait(record.id))
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            await _cancel(service, record.id, caller)
            return Response(status_code=GONE)
        record = done.result()
    finally:
        done.cancel()
        gone.cancel()
    return _json(await service.answer(record, base_url), status_of(record))


@router.post(
    "/getImage",
    response_model=Answer,
    responses=errors(400, 401, 403, 404, 408, 413, 415, 422, 500, 503),
    openapi_extra={"requestBody": GET_IMAGE_BODY},
    tags=["contract"],
)
async def get_image(request: Request, service: Svc, caller: Caller) -> Response:
    """How a task stands, and its pictures once it is completed."""
    asked = await read_get_image(request)
    _, record = await service.find(asked.id, caller)
    if asked.refID is not None and record.ref_id is not None and asked.refID != record.ref_id:
        raise TaskNotFound("there is no such task of yours under that refID")
    return _json(await service.answer(record, base_url_of(request, service)))


@router.get(
    "/tasks/{task_id}",
    response_model=TaskAnswer,
    responses=errors(401, 403, 404, 422, 500, 503),
    tags=["tasks"],
)
async def get_task(request: Request, service: Svc, caller: Caller, task_id: TaskId) -> Response:
    """How a task stands, and how far it is."""
    _, record = await service.find(task_id, caller)
    return _json(task_answer_of(record, await service.outputs(record, base_url_of(request, service))))


@router.delete(
    "/tasks/{task_id}",
    response_model=TaskAnswer,
    responses=errors(401, 403, 404, 422, 500, 503),
    tags=["tasks"],
)
async def delete_task(request: Request, service: Svc, caller: Caller, task_id: TaskId) -> Response:
    """Cancel a task between two steps; one that has ended stays as it is."""
    record = await _cancel(service, task_id, caller)
    return _json(task_answer_of(record, await service.outputs(record, base_url_of(request, service))))


@router.get(
    "/tasks/{task_id}/events",
    response_class=StreamingResponse,
    responses={
        200: EVENTS,
        **errors(401, 403, 404, 422, 500, 503),
    },
    tags=["tasks"],
)
async def get_events(request: Request, service: Svc, caller: Caller, task_id: TaskId) -> Response:
    """Follow a task."""
    runner, _ = await service.find(task_id, caller)
    base_url = base_url_of(request, service)
    stream = _as_lines(service, runner.events(task_id), base_url)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


@router.get(
    "/outputs/{name}",
    response_class=Response,
    responses={200: {"description": "A picture.", "content": {"image/png": {}}}, **errors(404, 422, 500)},
    tags=["pictures"],
)
async def get_output(
    service: Svc, name: Annotated[str, Path(max_length=LONGEST_NAME, description="From an answer's output.")]
) -> Response:
    """A picture. Its name is all it takes, so no token is asked for."""
    png = await asyncio.to_thread(service.store.open, name)
    if png is None:
        raise OutputNotFound("there is no such picture, or no longer")
    headers = {
        "Cache-Control": "private, max-age=86400, immutable",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(png, media_type="image/png", headers=headers)


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses=errors(503), tags=["operation"])
async def readyz(service: Svc) -> dict[str, Any]:
    """Requests can be taken; says which packs are loaded."""
    problem = await service.not_ready()
    if problem is not None:
        raise NotReady(problem)
    return {"status": "ready", "app_ids": list(service.app_ids)}


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}},
        **errors(401, 403, 500),
    },
    tags=["operation"],
)
async def metrics(service: Svc, caller: Caller) -> Response:
    """Counters for Prometheus."""
    for queue, count in (await service.waiting()).items():
        service.metrics.waiting(queue, count)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _json(answer: Answer, status: int = 200) -> JSONResponse:
    return JSONResponse(answer.model_dump(mode="json"), status)


async def _cancel(service: Service, task_id: str, caller: Caller) -> Any:
    runner, record = await service.find(task_id, caller)
    return await runner.cancel(task_id) or record


async def _hung_up(request: Request) -> None:
    """Returns when the caller closes the connection; the body was read whole before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _as_lines(
    service: Service, events: AsyncIterator[TaskEvent], base_url: str
) -> AsyncGenerator[str, None]:
    """Events in the format of text/event-stream, with a remark now and then that keeps the line open."""
    following: asyncio.Future[TaskEvent] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=PING_SECONDS)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            except FaceAvatarError as error:  # the queue is away: too late for another status
                yield f": {error.code}\n\n"
                return
            following = None
            output = await service.outputs(event.record, base_url)
            told = news_of(event, output).model_dump_json()
            yield f"event: task\ndata: {told}\n\n"
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, FaceAvatarError):
                await following
        if isinstance(events, AsyncGenerator):
            await events.aclose()
