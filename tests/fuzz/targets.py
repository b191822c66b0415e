"""What is fuzzed: each target takes bytes and may raise a FaceAvatarError with a message, and nothing else.

Knows no fuzzer: run.py drives the targets with atheris, test_replay.py by itself.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request

from faceavatar.contradictions import contradictions
from faceavatar.errors import FaceAvatarError
from faceavatar.graph_file import read_graph
from faceavatar.identity import Identity
from faceavatar.image import load_image
from faceavatar.manifest import read_manifest
from faceavatar.request import AvatarRequest
from faceavatar.schedulers.schedule import NoiseSchedule
from faceavatar.sources import read_remote
from faceavatar_cli.http.bodies import read_get_image, read_image_to_image
from faceavatar_cli.http.contract import ImageToImage

KINDS = (
    "application/json",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "text/plain",
)
# Values that some field takes, so that the others are looked at as well.
_LIKELY = ("#0af", "man", "ddim", "data:,x", "https://example.com/a.png", 1, 512, 0.5, 1536, "sha256:0")
Target = Callable[[bytes], object]


def picture(data: bytes) -> None:
    """Decoding, as of an upload."""
    loaded = load_image(data)
    assert loaded.dtype == "uint8"
    assert loaded.ndim == 3
    assert max(loaded.shape) <= 1536


def identity(data: bytes) -> None:
    """An identity file."""
    Identity.load(data).to_bytes()


def manifest(data: bytes) -> None:
    """A pack.json, and what is made of its parts."""
    found = read_manifest(_written(data, "pack.json"))
    contradictions(found)
    NoiseSchedule.from_manifest(found.scheduler).sigmas  # noqa: B018  # computed when first asked for


def graph(data: bytes) -> None:
    """The structure of an ONNX file."""
    read_graph(_written(data, "unet.onnx"))


def request(data: bytes) -> None:
    """A request as JSON, as `--from` and the queue have it; bytes that are no JSON choose its fields."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = fields_of(data, [*AvatarRequest.model_fields, "other"])
    if isinstance(fields, dict):
        made = AvatarRequest.from_metadata(fields, b"a picture")
        assert AvatarRequest.from_metadata(made.to_metadata(), b"a picture") == made


def fields_of(data: bytes, names: list[str]) -> dict[str, Any]:
    """Fields and values chosen byte by byte: random text is hardly ever JSON, and nearly all of this is."""
    found, at = {}, 0
    while at + 3 <= len(data):
        name, kind, length = names[data[at] % len(names)], data[at + 1] % 9, data[at + 2] % 32
        some = data[at + 3 : at + 3 + length]
        whole = int.from_bytes(some[:9], "big", signed=True)
        values: tuple[Any, ...] = (
            some.decode("utf-8", "surrogatepass" if length % 2 else "replace")
            if some.isascii()
            else "\ud800",
            whole,
            whole / 8,
            bool(length % 2),
            None,
            float("nan") if length % 2 else float("inf"),
            [whole],
            {"a": whole},
            _LIKELY[length % len(_LIKELY)],
        )
        found[name] = values[kind]
        at += 3 + length
    return found


def data_uri(data: bytes) -> None:
    """A data URI; its bytes are looked at as a picture."""
    load_image(read_remote("data:" + data.decode("latin-1")))


def body(data: bytes) -> None:
    """The body of a POST to the service; its first byte chooses its type, and whether its JSON is made up."""
    kind = KINDS[data[0] % len(KINDS)] if data else ""
    sent = data[1:]
    if data and data[0] >= 128:
        kind = KINDS[0]
        sent = json.dumps(fields_of(data[1:], [*ImageToImage.model_fields, "id", "other"])).encode()
    asyncio.run(_posted(kind, sent))


async def _posted(kind: str, data: bytes) -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind.encode())]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    made = None
    try:
        made = await read_image_to_image(Request(scope, receive), 2**20)
        json.dumps(made.echo())
        made.to_avatar_request(b"a picture")
    finally:
        if made is None:
            await read_get_image(Request(scope, receive))


TARGETS: dict[str, Target] = {
    "picture": picture,
    "manifest": manifest,
    "graph": graph,
    "request": request,
    "body": body,
    "identity": identity,
    "data_uri": data_uri,
}


def tried(target: Target, data: bytes) -> None:
    """Runs a target; errors raised on purpose must say something, whatever was in the data."""
    try:
        target(data)
    except FaceAvatarError as error:
        words = str(error).encode("utf-8")  # a lone surrogate would break whoever prints it
        if not words.strip():
            raise AssertionError("an error without words") from error


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="faceavatar-fuzz-"))


def _written(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path
