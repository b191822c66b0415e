"""One machine without set-up: embedded broker and worker live and die with the server, tasks do not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_rig import LONG, Queue, alive, environment, submission, until

from faceavatar_cli.queue.embedded import LONGEST_SOCKET, EmbeddedBroker, socket_of
from faceavatar_cli.queue.local import LocalQueue, StateInUse, WorkerOptions, default_state, local_settings
from faceavatar_cli.queue.runner import CeleryRunner

OPTIONS = WorkerOptions(provider="cpu")
# A server in small: starts the queue, tells the children's ids, and waits for its end.
SERVER = """
import sys, time
from pathlib import Path
from faceavatar_cli.queue.local import LocalQueue, WorkerOptions
queue = LocalQueue.start(Path(sys.argv[1]), WorkerOptions(provider="cpu"))
while None in queue.pids:
    time.sleep(0.01)
print(*queue.pids, flush=True)
sys.stdin.read()
queue.stop()
"""


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalQueue]:
    queue = LocalQueue.start(tmp_path / "state", OPTIONS)
    try:
        yield queue
    finally:
        queue.stop()


def pids_of(queue: LocalQueue) -> tuple[int, int]:
    return until(
        lambda: (broker, worker) if None not in (broker := queue.pids[0], worker := queue.pids[1]) else None,
        "broker and worker run",
    )  # type: ignore[return-value]


def test_a_task_is_drawn_and_both_children_end_with_the_queue(tmp_path: Path) -> None:
    queue = LocalQueue.start(tmp_path / "state", OPTIONS)
    try:
        view = Queue(queue.settings, tmp_path)
        pids = pids_of(queue)
        task = view.submit(num_inference_steps=1)
        assert view.ended(task).status == "completed"
        assert len(view.pictures()) == 1
        view.close()
    finally:
        queue.stop()
    assert not any(alive(pid) for pid in pids)
    assert not socket_of(tmp_path / "state" / "broker").exists()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_a_killed_broker_too_and_nothing_is_lost(
    local: LocalQueue, tmp_path: Path
) -> None:
    view, runner = Queue(local.settings, tmp_path), CeleryRunner.open(local.settings)

    async def further() -> str:
        """By a runner whose connections were made before the broker died."""
        try:
            return (await runner.submit(submission(num_inference_steps=1))).id
        finally:
            await runner.close()

    _, worker = pids_of(local)
    task = view.submit(**LONG)
    asyncio.run(runner.submit(submission(num_inference_steps=1, seed=1)))
    view.drawing(task)
    os.kill(worker, signal.SIGKILL)
    until(lambda: local.pids[1] not in (worker, None), "another worker is started")
    view.drawing(task, attempt=2)
    broker = local.pids[0]
    assert broker is not None
    os.kill(broker, signal.SIGKILL)
    until(lambda: local.pids[0] not in (broker, None), "another broker is started")
    assert view.ended(task).status == "completed"
    assert view.ended(asyncio.run(further())).status == "completed"
    assert len(view.pictures()) == 3
    view.close()


@pytest.mark.slow
def test_when_the_server_is_killed_nothing_stays_and_the_next_one_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-c", SERVER, str(state)]
    with subprocess.Popen(
        command, env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
        view = Queue(local_settings(state), tmp_path)
        done = view.submit(num_inference_steps=1)
        view.ended(done)
        begun, waiting = view.submit(**LONG, batch=2), view.submit(num_inference_steps=1)
        view.drawing(begun)
        server.kill()
    until(lambda: not any(alive(pid) for pid in pids), "broker and worker end", 20)
    assert len(view.pictures()) == 1
    view.close()
    again = LocalQueue.start(state, OPTIONS)
    try:
        view = Queue(again.settings, tmp_path)
        assert view.record(done).status == "completed"
        assert [view.ended(task).status for task in (begun, waiting)] == ["completed", "completed"]
        outputs = [name for task in (done, begun, waiting) for name in view.record(task).outputs]
        assert len(outputs) == 4
        assert sorted(outputs) == view.pictures()
        view.close()
    finally:
        again.stop()


def test_a_state_folder_belongs_to_one_server(local: LocalQueue, tmp_path: Path) -> None:
    with pytest.raises(StateInUse, match=r"state: another server uses this state folder; .*--state"):
        LocalQueue.start(tmp_path / "state", OPTIONS)


def test_a_further_worker_joins_by_the_state_folder(local: LocalQueue, tmp_path: Path) -> None:
    async def workers() -> None:
        runner = CeleryRunner.open(local.settings)
        try:
            command = [sys.executable, "-m", "faceavatar_cli", "worker", "--state", str(tmp_path / "state")]
            with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as further:
                try:
                    view = Queue(local.settings, tmp_path)
                    until(lambda: view.records.alive("", 0) == 2, "two workers are there")
                    view.close()
                finally:
                    further.terminate()
            assert await runner.ready() is None
        finally:
            await runner.close()

    asyncio.run(workers())


def test_a_broker_that_outlived_its_server_is_ended_first(tmp_path: Path) -> None:
    first, second = EmbeddedBroker(tmp_path / "broker"), EmbeddedBroker(tmp_path / "broker")
    first.start()
    try:
        second.start()
        assert second.running()
        until(lambda: not first.running(), "the first has ended", 10)
    finally:
        first.stop()
        second.stop()


def test_a_long_folder_name_still_gets_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120) / "broker"
    assert len(os.fsencode(socket_of(deep))) <= LONGEST_SOCKET
    assert socket_of(deep) == socket_of(deep) != socket_of(deep.parent)
    broker = EmbeddedBroker(deep)
    broker.start()
    try:
        assert broker.socket.parent.stat().st_mode & 0o077 == 0
    finally:
        broker.stop()


def test_a_broker_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    from faceavatar_cli.http.problems import QueueUnavailable

    (tmp_path / "broker" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "broker" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(QueueUnavailable, match=r"did not start; .*valkey.log says why"):
        EmbeddedBroker(tmp_path / "broker").start()


def test_the_default_state_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_state() == tmp_path / "faceavatar"
        monkeypatch.delenv("XDG_STATE_HOME")
        assert default_state() == Path.home() / ".local/state/faceavatar"


def test_submissions_are_refused_once_enough_wait(tmp_path: Path) -> None:
    from faceavatar_cli.http.problems import Busy

    broker = EmbeddedBroker(tmp_path / "broker")
    broker.start()
    try:
        from faceavatar_cli.queue.settings import queue_settings

        settings = queue_settings(broker.url, str(tmp_path / "outputs"), limit=2)

        async def fill() -> None:
            runner = CeleryRunner.open(settings)
            try:
                assert "no worker is there" in (await runner.ready() or "")
                for _ in range(2):
                    await runner.submit(submission())
                with pytest.raises(Busy, match="2 tasks wait already"):
                    await runner.submit(submission())
                assert await runner.waiting() == 2
            finally:
                await runner.close()

        asyncio.run(fill())
        assert len(list((tmp_path / "outputs" / ".photos").iterdir())) == 2
    finally:
        broker.stop()
