"""One engine under many threads and for a long time: the same bytes, no more memory, nothing left open."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult

PHOTOS = Path(__file__).parent / "fixtures" / "photos"
NAMES = ("astronaut", "obama", "ardern", "macron")
GROWTH = 1.05


def mixed(count: int) -> Iterator[AvatarRequest]:
    """Requests that differ in all that changes the work."""
    for index in range(count):
        choices: dict[str, Any] = {
            "image": PHOTOS / f"{NAMES[index % 4]}.jpg",
            "seed": index,
            "prompt": (None, "a pirate", "a queen, laughing", "")[index % 4],
            "gender": (None, "woman", "man")[index % 3],
            "batch": 1 + (index % 7 == 0),
            "height": (512, 256, 320)[index % 3],
            "width": (512, 384)[index % 2],
            "num_inference_steps": 1 + index % 3,
            "guidance_scale": (None, 1.0, 5.0)[index % 3],
            "scheduler": (None, "ddim", "euler_ancestral", "unipc")[index % 4],
            "remove_background": index % 5 == 0,
            "bg_color": "#336699" if index % 11 == 0 else None,
            "best_of": 2 if index % 13 == 0 else 1,
        }
        yield AvatarRequest(**choices)


def contents(result: AvatarResult) -> tuple[bytes, ...]:
    return tuple(image.tobytes() for image in result.images)


def assert_same_bytes(engine: AvatarEngine, threads: int, each: int) -> None:
    requests = list(mixed(threads * each))
    alone = [contents(engine.generate(request)) for request in requests]
    with ThreadPoolExecutor(threads) as pool:
        together = list(pool.map(lambda request: contents(engine.generate(request)), requests))
    assert [index for index, pair in enumerate(zip(alone, together, strict=True)) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_threads_get_the_same_bytes_as_one_by_one(tiny: Path, provider: str) -> None:
    assert_same_bytes(AvatarEngine.load(tiny, provider=provider, threads=1), 8, 3)


@pytest.mark.heavy
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_eight_threads_of_25_mixed_requests_get_the_same_bytes_as_one_by_one(provider: str) -> None:
    assert_same_bytes(AvatarEngine.load("toon", provider=provider, threads=1), 8, 25)


def resident() -> int:
    """Bytes that this process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel tells no VmRSS")


def handles() -> tuple[int, int]:
    """Open files, and threads."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def assert_stays_small(engine: AvatarEngine, count: int, warm: int) -> None:
    """After `warm` requests that fill the caches and arenas, the rest take no more."""
    size = {"height": 256, "width": 256}
    requests = [request.model_copy(update=size | {"best_of": 1, "batch": 1}) for request in mixed(count)]
    for request in requests[:warm]:
        engine.generate(request)
    gc.collect()
    before, open_before = resident(), handles()
    for request in requests[warm:]:
        engine.generate(request)
    gc.collect()
    after, open_after = resident(), handles()
    print(f"{count} generations: {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB; handles {open_after}")
    assert after <= before * GROWTH
    assert all(late <= early for early, late in zip(open_before, open_after, strict=True))
    assert threading.active_count() <= open_after[1]


def test_a_hundred_generations_leave_nothing_behind(sd_engine: AvatarEngine) -> None:
    assert_stays_small(sd_engine, 100, 30)


@pytest.mark.heavy
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_thousand_generations_leave_nothing_behind(provider: str) -> None:
    assert_stays_small(AvatarEngine.load("toon", provider=provider, threads=1), 1000, 50)
