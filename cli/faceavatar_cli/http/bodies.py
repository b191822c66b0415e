"""Requests out of HTTP bodies: JSON or a form, capped, and refused in words.

A form's values are text, so numbers are read from them; in JSON they are not taken from text. An uploaded
file becomes a data URI, so that all that follows knows one kind of request.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Mapping
from contextlib import aclosing
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from faceavatar.errors import InvalidRequest
from faceavatar_cli.http.contract import (
    COLOR_PATTERN,
    IMAGE_PATTERN,
    LONGEST_URL,
    URL_PATTERN,
    GetImage,
    ImageToImage,
    shown_source,
)
from faceavatar_cli.http.problems import BodyTooLarge, BodyTooSlow, UnreadableBody, UnsupportedMediaType

SECONDS = 60.0  # for a whole body to arrive
SMALL = 2**16  # bytes of a body that holds no picture
_LARGE = 2**20  # from here on reading JSON takes longer than changing threads
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_PAIRS = frozenset({"guidance_interval"})  # "0.2,0.8" in a form
_TEXTS = frozenset({"prompt", "negative_prompt"})  # where nothing is something else than absence
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
_PATTERNS = {
    IMAGE_PATTERN: "an http(s) URL or a data URI; a file is uploaded as multipart/form-data",
    URL_PATTERN: f"an http(s) URL of at most {LONGEST_URL} characters",
    COLOR_PATTERN: "#RRGGBB or #RGB",
}
Model = TypeVar("Model", bound=BaseModel)


async def read_image_to_image(request: Request, most: int) -> ImageToImage:
    """The request in a body of at most `most` bytes.

    Raises UnsupportedMediaType, BodyTooLarge, BodyTooSlow, UnreadableBody, InvalidRequest.
    """
    kind = _media_type(request)
    if kind in _FORMS:
        form = await _in_time(_read_form(_capped(request, most), most))
        try:
            return await _of_form(form)
        finally:
            await form.close()
    return await _read_json(request, ImageToImage, most)


async def read_get_image(request: Request) -> GetImage:
    """The body of /getImage. Raises as read_image_to_image."""
    return await _read_json(request, GetImage, SMALL)


async def _read_json(request: Request, model: type[Model], most: int) -> Model:
    kind = _media_type(request)
    if kind != "application/json":
        allowed = f"application/json or {_FORMS[0]}" if model is ImageToImage else "application/json"
        raise UnsupportedMediaType(f"the body is {kind or 'of no named type'}; expected {allowed}")
    body = await _in_time(_capped(request, most).body())
    if len(body) < _LARGE:
        return _checked(model, body)
    return await asyncio.to_thread(_checked, model, body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _capped(request: Request, most: int) -> Request:
    """The same request, whose body raises BodyTooLarge once it has become too large."""
    too_large = BodyTooLarge(f"the body has more than {most} bytes; send a smaller picture, or its URL")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_large
        return message

    return Request(request.scope, receive)


async def _in_time(reading: Any) -> Any:
    try:
        async with asyncio.timeout(SECONDS):
            return await reading
    except TimeoutError as error:
        raise BodyTooSlow(f"the body was not there after {SECONDS:.0f} s; send it again") from error
    except ClientDisconnect as error:
        raise UnreadableBody("the connection ended before the body did") from error


class _InMemory(MultiPartParser):
    """Starlette's own puts a file of more than a megabyte on the disk, which may be full, or keep a face."""

    spool_max_size = sys.maxsize


async def _read_form(request: Request, most: int) -> FormData:
    fields = len(ImageToImage.model_fields)
    try:
        if _media_type(request) != _FORMS[0]:
            return await request.form(max_files=1, max_fields=fields, max_part_size=most)
        async with aclosing(request.stream()) as stream:
            return await _InMemory(
                request.headers, stream, max_files=1, max_fields=fields, max_part_size=most
            ).parse()
    except (HTTPException, MultiPartException) as error:
        told = error.detail if isinstance(error, HTTPException) else error.message
        raise UnreadableBody(f"the form cannot be read: {told}") from error


async def _of_form(form: FormData) -> ImageToImage:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise InvalidRequest(name, "several values", "one value")
        if isinstance(value, UploadFile):
            if name != "image":
                raise InvalidRequest(name, "a file", "text; the picture's field is called image")
            data = await value.read()
            value = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
        if value or name in _TEXTS:
            fields[name] = value.split(",") if name in _PAIRS else value
    return _checked(ImageToImage, fields)


def _checked(model: type[Model], body: bytes | Mapping[str, Any]) -> Model:
    """The model, or what is wrong in the words of an InvalidRequest."""
    try:
        if isinstance(body, bytes):
            return model.model_validate_json(body, strict=True)
        return model.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
    if problem["type"] == "json_invalid" or not problem["loc"]:
        raise UnreadableBody(f"{problem['msg']}; expected one JSON object in UTF-8")
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        raise InvalidRequest(name, "a field of that name", f"these only: {', '.join(model.model_fields)}")
    got = "nothing" if problem["type"] == "missing" else problem["input"]
    if name in {"image", "webhook"} and isinstance(got, str):
        got = shown_source(got)
    raise InvalidRequest(name, got, allowed(model, name))


@cache
def allowed(model: type[BaseModel], name: str) -> str:
    """What a field takes, in words made of its JSON schema."""
    schema = model.model_json_schema()["properties"][name]
    return " or ".join(_words(option) for option in schema.get("anyOf", [schema]))


def _words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema["type"] == "array":
        low, high = schema["prefixItems"][0]["minimum"], schema["prefixItems"][0]["maximum"]
        return f"two numbers of {low:g}..{high:g}, the smaller first"
    kind = _KINDS[str(schema["type"])]
    if "exclusiveMinimum" in schema:
        return f"{kind} above {schema['exclusiveMinimum']}, up to {schema['maximum']}"
    if "minimum" in schema:
        return f"{kind} {schema['minimum']}..{schema['maximum']}"
    if "pattern" in schema:
        return _PATTERNS[str(schema["pattern"])]
    if "maxLength" in schema:
        return f"text of at most {schema['maxLength']} characters"
    return kind
