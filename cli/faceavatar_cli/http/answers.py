"""Records and errors as answers of eight fields."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from faceavatar_cli.http.contract import Answer, TaskAnswer, TaskNews
from faceavatar_cli.http.problems import STATUS_OF, Problem
from faceavatar_cli.http.tasks import OutputStore, TaskEvent, TaskRecord


def answer_of(record: TaskRecord, output: list[str]) -> Answer:
    """A task as the contract tells it; output: URLs or data URIs of its pictures."""
    return Answer(
        time_required=round(record.seconds(), 3),
        error=record.error,
        error_data=None if record.error_data is None else dict(record.error_data),
        input=dict(record.input),
        output=output,
        app_id=record.app_id,
        task_id=record.id,
        status=record.status,
    )


def task_answer_of(record: TaskRecord, output: list[str]) -> TaskAnswer:
    """The same, and how far it is."""
    return TaskAnswer(
        **answer_of(record, output).model_dump(),
        refID=record.ref_id,
        step=record.step,
        total=record.total,
        warnings=list(record.warnings),
        queue_position=record.position,
    )


def news_of(event: TaskEvent, output: list[str]) -> TaskNews:
    """An event of a task."""
    preview = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in event.previews]
    return TaskNews(**task_answer_of(event.record, output).model_dump(), preview=preview)


def error_response(problem: Problem, seconds: float, asked: Mapping[str, Any] | None = None) -> JSONResponse:
    """An error that came before there was a task; asked: the request's echo, where it was read."""
    answer = Answer(
        time_required=round(seconds, 3),
        error=problem.code,
        error_data=dict(problem.data),
        input=None if asked is None else dict(asked),
        output=[],
        app_id=None if asked is None else asked.get("app_id"),
        task_id=None,
        status="failed",
    )
    return JSONResponse(answer.model_dump(mode="json"), problem.status, headers=dict(problem.headers))


def status_of(record: TaskRecord) -> int:
    """The HTTP status of a task that was waited for."""
    if record.status == "cancelled":
        return STATUS_OF["cancelled"]
    return 200 if record.error is None else STATUS_OF.get(record.error, 500)


def output_url(base_url: str, name: str) -> str:
    """Where a picture is served."""
    return f"{base_url}/outputs/{name}"


async def outputs_of(record: TaskRecord, base_url: str, store: OutputStore | None) -> list[str]:
    """URLs of a task's pictures; data URIs where a store is given to read them from."""
    if store is None:
        return [output_url(base_url, name) for name in record.outputs]
    found = [await asyncio.to_thread(store.open, name) for name in record.outputs]
    return [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in found if png is not None]
