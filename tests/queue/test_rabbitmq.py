"""RabbitMQ as the broker: what kombu does there by other means. Needs Debian's rabbitmq-server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_rig import LONG, Queue, answers, start_redis, until

from faceavatar_cli.http.problems import QueueUnavailable
from faceavatar_cli.queue.app import check_reachable
from faceavatar_cli.queue.settings import queue_settings

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


@pytest.fixture
def rabbit_queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue with messages in RabbitMQ and records in Redis."""
    assert SERVER.exists(), "this test needs RabbitMQ: apt-get install rabbitmq-server"
    ports = free_ports(3)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "RABBITMQ_NODENAME": f"faceavatar{ports[0]}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(ports[0]),
        "RABBITMQ_DIST_PORT": str(ports[1]),
        "ERL_EPMD_PORT": str(ports[2]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(tmp_path / "rabbit"),
        "RABBITMQ_LOG_BASE": str(tmp_path / "rabbit"),
        "RABBITMQ_SERVER_START_ARGS": "-start_epmd true",
    }
    redis, results = start_redis(tmp_path / "redis")
    with (tmp_path / "rabbit.log").open("wb") as log:
        rabbit = subprocess.Popen(
            [str(SERVER)], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    settings = queue_settings(f"amqp://guest:guest@127.0.0.1:{ports[0]}//", str(tmp_path / "out"), results)
    made = Queue(settings, tmp_path)
    try:
        until(lambda: answers(results) and reachable(made), "RabbitMQ and Redis answer")
        yield made
    finally:
        made.close()
        os.killpg(rabbit.pid, signal.SIGTERM)
        rabbit.wait(60)
        redis.kill()
        redis.wait()
        epmd = shutil.which("epmd")
        if epmd:
            subprocess.run([epmd, "-port", str(ports[2]), "-kill"], capture_output=True)


def reachable(queue: Queue) -> bool:
    try:
        check_reachable(queue.app, queue.settings)
    except QueueUnavailable:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_priorities_lost_messages_and_killed_workers_with_rabbitmq(rabbit_queue: Queue) -> None:
    assert rabbit_queue.bell.silent({"toon"})
    late, ordinary, urgent = (rabbit_queue.submit(priority, num_inference_steps=1) for priority in (0, 4, 9))
    assert not rabbit_queue.bell.silent({"toon"})
    first = rabbit_queue.worker()
    begun = [rabbit_queue.ended(task).started or 0 for task in (urgent, ordinary, late)]
    assert begun == sorted(begun)

    task = rabbit_queue.submit(**LONG)
    rabbit_queue.drawing(task)
    second = rabbit_queue.worker()
    first.kill()
    assert rabbit_queue.ended(task).status == "completed"
    assert len(rabbit_queue.pictures()) == 4

    task = rabbit_queue.submit(**LONG, batch=4)
    rabbit_queue.drawing(task)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert rabbit_queue.record(task).status == "queued"
    rabbit_queue.worker()
    assert rabbit_queue.ended(task).status == "completed"
    assert len(rabbit_queue.pictures()) == 8
