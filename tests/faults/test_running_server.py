"""A server, its queue and its worker while four callers work: killed, starved, its disk full, its callers rude.

Every call ends in a picture or in an error with a code, none hangs, nothing that was queued is lost, and the
server answers afterwards.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_rig import Callers, Calls, Disk, Served, answers_again, dripping, hang_up

from faceavatar.client import AvatarClient

BOUND = (
    60.0  # seconds, of one call: an embedded broker that could not be started is tried again after 30 at most
)
REFUSED = {
    "picture",
    "unreadable_image",
}  # what callers get where nothing is amiss: one in five sends rubbish
# What else a call may end with, whatever is done to the server.
TYPED = REFUSED | {
    *("service_unavailable", "queue_unavailable", "not_ready", "interrupted"),  # killed, or its broker
    *("cannot_write", "internal", "out_of_memory", "numerical_error"),  # disk and memory
    *(
        "worker_lost",
        "task_not_found",
    ),  # a task that killed three workers; one in the memory of a dead server
    *("pack_error", "service_error"),
}
Fault = Callable[[Served, Disk, float], None]


def kill_worker(served: Served, disk: Disk, seconds: float) -> None:
    assert served.kill_beneath("worker")
    time.sleep(seconds)


def kill_broker(served: Served, disk: Disk, seconds: float) -> None:
    assert served.kill_beneath("valkey-server")
    time.sleep(seconds)


def kill_server(served: Served, disk: Disk, seconds: float) -> None:
    served.kill()
    time.sleep(seconds / 4)
    served.start()


def fill_disk(served: Served, disk: Disk, seconds: float) -> None:
    with disk.full(served):
        time.sleep(seconds)


def starve(served: Served, disk: Disk, seconds: float) -> None:
    with served.limited(resource.RLIMIT_AS, None):
        time.sleep(seconds)


def rude_callers(served: Served, disk: Disk, seconds: float) -> None:
    with dripping(served.url):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            hang_up(served.url)


FAULTS: tuple[Fault, ...] = (rude_callers, kill_worker, kill_broker, fill_disk, starve, kill_server)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def served(tmp_path: Path, disk: Disk, tiny: Path) -> Iterator[Served]:
    """On the tests' own pack; the state of its queue and its pictures lie on the disk that is filled."""
    started = Served(tmp_path, disk.folder / "state", "--pack", str(tiny), "--threads", "1")
    yield started
    started.kill()


def ends_of(url: str, calls: Calls) -> dict[str, int]:
    """How the queued tasks ended, all of them."""
    ends: dict[str, int] = {}
    with AvatarClient(url, timeout=BOUND) as client:
        for task_id in calls.queued:
            end = time.monotonic() + BOUND
            while not (task := client.task(task_id)).ended:
                assert time.monotonic() < end, f"task {task_id} does not end"
                time.sleep(0.05)
            word = task.error or task.status
            ends[word] = ends.get(word, 0) + 1
    return ends


def endure(served: Served, disk: Disk, faults: list[Fault], seconds: float) -> dict[str, object]:
    """The faults, one after the other, while callers work; what came of it."""
    callers, recovered = Callers(served.url), []
    try:
        for fault in faults:
            time.sleep(0.3)
            fault(served, disk, seconds)
            if not served.lives():  # killed by what was done to it: whoever supervises it starts it again
                served.start()
            recovered.append(answers_again(served.url, BOUND))
    finally:
        calls = callers.stop(BOUND)
    return {
        "faults": len(faults),
        "calls": calls.ends.total(),
        "ends": dict(calls.ends),
        "untyped": calls.untyped,
        "longest call": round(calls.longest, 1),
        "longest recovery": round(max(recovered), 1),
        "queued": len(calls.queued),
        "queued tasks ended": ends_of(served.url, calls),
    }


def check(told: dict[str, object], said: str) -> None:
    assert told["untyped"] == []
    assert set(told["ends"]) <= TYPED, told
    assert told["ends"]["picture"] > 0
    assert told["longest call"] < BOUND


@pytest.mark.slow
def test_every_call_ends_in_a_picture_or_a_typed_error_whatever_is_done_to_the_server(
    served: Served, disk: Disk
) -> None:
    told = endure(served, disk, list(FAULTS), 1.5)
    check(told, served.said())
    print(json.dumps(told))
