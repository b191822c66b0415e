"""Requests for the tests' own packs, and what their answers and sessions are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_pack import Recording

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult

PHOTO = Path(__file__).parent / "fixtures" / "photos" / "astronaut.jpg"
OTHER = PHOTO.with_name("obama.jpg")


def ask(**fields: Any) -> AvatarRequest:
    return AvatarRequest(**{"image": PHOTO, "seed": 1, **fields})


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def assert_same(one: AvatarResult, other: AvatarResult) -> None:
    for left, right in zip(one.images, other.images, strict=True):
        np.testing.assert_array_equal(left, right)


@contextmanager
def recorded(engine: AvatarEngine) -> Iterator[dict[str, Recording]]:
    """Record what each of an engine's sessions is fed, for as long as the block lasts."""
    rooms: dict[str, Any] = {
        "unet": engine.unet,
        "vae": engine.vae,
        "text": engine.text.first,
        "embedder": engine.embedder,
        "adapter": engine.adapter,
    }
    recordings = {name: Recording(room.session) for name, room in rooms.items()}
    before = {name: room.session for name, room in rooms.items()}
    for name, room in rooms.items():
        room.session = recordings[name]
    try:
        yield recordings
    finally:
        for name, room in rooms.items():
            room.session = before[name]


def runs(recordings: dict[str, Recording]) -> int:
    return sum(len(recording.feeds) for recording in recordings.values())
