"""What the OpenAPI document says beyond what FastAPI finds by itself: bodies, errors, the webhook."""

from __future__ import annotations

import copy
from typing import Any

from fastapi import FastAPI

from faceavatar_cli.http.contract import (
    EXAMPLE_ANSWER,
    EXAMPLE_REQUEST,
    Answer,
    GetImage,
    ImageToImage,
    TaskNews,
)
from faceavatar_cli.http.problems import STATUSES

DESCRIPTION = """
One photo of a face in, avatars that keep that face out.

Every answer of `/getImageToImage` and `/getImage`, errors among them, has the same eight fields. `error` is a
stable code; `error_data.message` says what was got, what is allowed and what to do next.

```sh
curl -s localhost:8000/getImageToImage -H "Authorization: Bearer $TOKEN" \\
     -H "Content-Type: application/json" \\
     -d '{"image": "https://example.com/selfie.jpg", "gender": "woman", "batch": 2}'
curl -s localhost:8000/getImageToImage -H "Authorization: Bearer $TOKEN" -F image=@selfie.jpg -F batch=2
```
"""
PAIR_PATTERN = r"^[0-9.eE-]+,[0-9.eE-]+$"
_REFERENCE = "#/components/schemas/"
_WORDS = {
    400: "The body cannot be read",
    401: "No token, or none that is known",
    403: "This caller may not call",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "Cancelled while the caller waited",
    413: "The body is too large",
    415: "Neither JSON nor a form",
    422: "Something in the request cannot be used",
    429: "Too much at once; Retry-After says when to come again",
    500: "A fault of the server",
    503: "Not now; Retry-After says when to come again",
    504: "The server's time limit for a run passed",
}
GET_IMAGE_BODY = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": f"{_REFERENCE}GetImage"}}},
}
IMAGE_TO_IMAGE_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": f"{_REFERENCE}ImageToImage"}, "example": EXAMPLE_REQUEST},
        "multipart/form-data": {"schema": {"$ref": f"{_REFERENCE}ImageToImageForm"}},
    },
}

EVENTS = {
    "description": "Server-sent events named `task`: how it stands now, then every change until its end.",
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "event": {"const": "task"},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": f"{_REFERENCE}TaskNews"},
                    },
                },
            }
        }
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that may answer so; each has the eight fields."""
    return {status: _error(status) for status in statuses}


def _error(status: int) -> dict[str, Any]:
    codes = ", ".join(f"`{code}`" for code in STATUSES[status])
    example = EXAMPLE_ANSWER | {
        "error": STATUSES[status][0],
        "error_data": {"message": "..."},
        "output": [],
        "task_id": None,
        "status": "failed",
    }
    content = {"application/json": {"example": example}}
    return {"model": Answer, "description": f"{_WORDS[status]}: {codes}.", "content": content}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; made once, and kept where FastAPI keeps it."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        schemas = made["components"]["schemas"]
        for model in (ImageToImage, GetImage, TaskNews):
            schemas[model.__name__] = model.model_json_schema(ref_template=_REFERENCE + "{model}")
        schemas["ImageToImageForm"] = _form(schemas["ImageToImage"])
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None) if _default_422(operation) else None
        app.openapi_schema = made
    return app.openapi_schema


def _default_422(operation: dict[str, Any]) -> bool:
    """Whether it is the one that FastAPI adds, of a form that is never answered here."""
    told = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
    return bool(told.get("schema", {}).get("$ref", "").endswith("HTTPValidationError"))


def _form(schema: dict[str, Any]) -> dict[str, Any]:
    """The same fields as a form has them: the picture a file, and absence in place of null."""
    form = copy.deepcopy(schema)
    form["title"] = "ImageToImageForm"
    form.pop("examples", None)
    for name, field in form["properties"].items():
        for option in field.pop("anyOf", []):
            if option.get("type") != "null":
                field.update(option)
        field.pop("default", None)
        if field.get("type") == "array":  # a form would hold each number apart
            for word in ("minItems", "maxItems", "prefixItems"):
                field.pop(word)
            field |= {"type": "string", "pattern": PAIR_PATTERN}
        if name == "image":
            field.pop("pattern")
            field |= {"format": "binary", "description": "The picture's file, or a URL or data URI as text."}
    return form
