"""What is to be made: a request out of the photo, an old picture's own request, and the flags given."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import faceavatar
from faceavatar import AvatarRequest, ImageError, InvalidRequest, read_metadata
from faceavatar.sources import source_kind

EXAMPLE = Path(faceavatar.__file__).parent / "examples" / "astronaut.jpg"
DEFAULT_PACK = "toon"


@dataclass(frozen=True)
class Order:
    """A valid request and its pack's name; `repeats` is what the old picture says of itself, or None."""

    request: AvatarRequest
    pack: str
    repeats: Mapping[str, Any] | None = None


def place_order(
    photo: str | None, example: bool, old: Path | None, pack: str | None, given: Mapping[str, Any]
) -> Order:
    """Puts the request together: fields `given` by flags win over those of the old picture.

    Raises click.UsageError when there is no photo or more than one, InvalidRequest for a field out of its
    range, ImageError when the old picture holds no request.
    """
    if photo is not None and example:
        raise click.UsageError("PHOTO and --example exclude each other: give one of them")
    if old is None and photo is None and not example:
        raise click.UsageError(
            "PHOTO is missing: give a picture's path or URL, or --example for the one that comes along"
        )
    repeats = None if old is None else _recorded(old)
    fields = {} if repeats is None else dict(repeats["request"])
    if pack is not None:
        fields.pop("app_id", None)  # it named the pack that this one replaces
    image = _picture(photo, example)
    if image is None:
        image = _reachable(str(fields.get("image")), old)
    request = AvatarRequest(**fields | dict(given) | {"image": image})
    return Order(request, pack or (DEFAULT_PACK if repeats is None else str(repeats["pack"])), repeats)


def _picture(photo: str | None, example: bool) -> bytes | str | None:
    if example:
        return str(EXAMPLE)
    return None if photo is None else read_photo(photo)


def read_photo(photo: str) -> bytes | str:
    """PHOTO as the engine takes it: for - what standard input holds."""
    return sys.stdin.buffer.read() if photo == "-" else photo


def _recorded(old: Path) -> Mapping[str, Any]:
    found = read_metadata(old)
    if not isinstance(found.get("request"), dict) or "pack" not in found:
        raise ImageError(f"{old}: holds no request, expected a PNG file that faceavatar wrote")
    return found


def _reachable(recorded: str, old: Path | None) -> str:
    """The photo an old picture was made from, wherever it can still be found."""
    if source_kind(recorded) == "url":
        return recorded
    beside = [] if old is None else [old.parent / recorded, old.parent / Path(recorded).name]
    for candidate in [Path(recorded), *beside]:
        if candidate.is_file():
            return str(candidate)
    if Path(recorded).parts[-2:] == EXAMPLE.parts[-2:]:  # the example of another installation
        return str(EXAMPLE)
    raise InvalidRequest(
        "image", recorded, f"a picture that is still there: give the photo of {old} as PHOTO"
    )
