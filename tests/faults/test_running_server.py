"""A server, its queue and its worker under four callers: killed, starved, its disk full, its callers rude.

Every call ends in a picture or in an error with a code, none hangs, nothing that was queued is lost, and the
server answers afterwards.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_rig import ONCE, Callers, Calls, Disk, Served, answers_again, dripping, hang_up, large_photo

from faceavatar import FaceAvatarError
from faceavatar.client import AvatarClient

BOUND = 60.0  # seconds of a call: an embedded broker that did not start is tried again after 30 at most
# What a call may end with: a picture, or an error by one of these codes.
TYPED = {
    *("picture", "unreadable_image"),  # one call in five sends what is no picture
    *("service_unavailable", "queue_unavailable", "not_ready", "interrupted"),  # killed, or its broker
    *("cannot_write", "internal", "out_of_memory", "numerical_error", "pack_error"),  # disk and memory
    *("worker_lost", "task_not_found"),  # three workers killed over it; forgotten with its server
}
# With which of them a task of the queue may end: each that was taken in does end.
TOLD = {"completed", "cannot_write", "internal", "out_of_memory", "worker_lost", "unreadable_image"}
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
    """Nothing more of memory than there is, and somebody who needs some."""
    photo, ends = large_photo(), set[str]()
    with served.limited(resource.RLIMIT_AS, None), AvatarClient(served.url, patience=ONCE) as client:
        end = time.monotonic() + seconds
        while not ends or (time.monotonic() < end and served.lives()):
            try:
                client.generate(photo)
                ends.add("picture")
            except FaceAvatarError as error:
                ends.add(error.code)
    assert ends - {"picture"}, "nothing was felt of it"


def rude_callers(served: Served, disk: Disk, seconds: float) -> None:
    with dripping(served.url):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            hang_up(served.url)


FAULTS: tuple[Fault, ...] = (rude_callers, kill_worker, kill_broker, fill_disk, starve, kill_server)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Of so many megabytes as the test asks for, few by default."""
    made = Disk(tmp_path / "disk", *([request.param] if hasattr(request, "param") else []))
    yield made
    made.close()


@pytest.fixture
def serve(tmp_path: Path, disk: Disk) -> Iterator[Callable[[str], Served]]:
    """Starts a server of a pack; its queue and its pictures lie on the disk that is filled."""
    started: list[Served] = []

    def start(pack: str) -> Served:
        started.append(Served(tmp_path, disk.folder / "state", "--pack", pack, "--threads", "1"))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@dataclass(frozen=True)
class Endured:
    """What came of faults under callers.

    recovered: seconds after each fault until the server answered; tasks: how those of the queue ended.
    """

    faults: int
    seconds: float
    calls: Calls
    recovered: list[float]
    tasks: Counter[str]

    def told(self) -> str:
        """One line of JSON."""
        told = {
            "faults": self.faults,
            "seconds": round(self.seconds, 1),
            "calls": self.calls.ends.total(),
            "ends": self.calls.ends,
            "longest call": round(self.calls.longest, 1),
            "longest recovery": round(max(self.recovered), 1),
            "queued tasks": self.tasks,
        }
        return json.dumps(told)


def endure(served: Served, disk: Disk, faults: Sequence[Fault], seconds: float) -> Endured:
    """The faults, one after the other, while callers work."""
    began, recovered = time.monotonic(), list[float]()
    callers = Callers(served.url)
    try:
        for fault in faults:
            time.sleep(0.3)
            fault(served, disk, seconds)
            if not served.lives():  # native code may end a process that starves: a supervisor starts it again
                served.start()
            recovered.append(answers_again(served.url, BOUND))
    finally:
        calls = callers.stop(BOUND)
    return Endured(len(faults), time.monotonic() - began, calls, recovered, ends_of(served.url, calls))


def ends_of(url: str, calls: Calls) -> Counter[str]:
    """How the queued tasks ended, all of them."""
    ends = Counter[str]()
    with AvatarClient(url, timeout=BOUND) as client:
        for task_id in calls.queued:
            end = time.monotonic() + BOUND
            while not (task := client.task(task_id)).ended:
                assert time.monotonic() < end, f"task {task_id} does not end"
                time.sleep(0.05)
            ends[task.error or task.status] += 1
    return ends


def check(endured: Endured) -> None:
    print(endured.told())
    calls, tasks = endured.calls, endured.tasks
    assert calls.untyped == []
    assert set(calls.ends) <= TYPED, calls.ends
    assert calls.ends["picture"] > 0
    assert calls.longest < BOUND
    assert tasks.total() == len(calls.queued) > 0
    assert set(tasks) <= TOLD, tasks


@pytest.mark.slow
def test_every_call_ends_in_a_picture_or_a_typed_error_whatever_is_done_to_the_server(
    serve: Callable[[str], Served], disk: Disk, tiny: Path
) -> None:
    check(endure(serve(str(tiny)), disk, FAULTS, 1.0))


@pytest.mark.heavy
@pytest.mark.parametrize("disk", [1024], indirect=True)  # minutes of pictures fill a small one by themselves
def test_the_same_for_minutes_in_any_order_on_the_toon_pack(
    serve: Callable[[str], Served], disk: Disk
) -> None:
    endured = endure(serve("toon"), disk, random.Random(0).choices(FAULTS, k=30), 3.0)
    check(endured)
    assert endured.tasks["completed"] > 0.8 * endured.tasks.total()
