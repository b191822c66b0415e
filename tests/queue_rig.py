"""A queue with its workers, as tests drive it, and a real Redis server of the system."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import ConnectionError as NotThere

from faceavatar_cli.http.contract import ImageToImage
from faceavatar_cli.http.tasks import Submission, TaskRecord
from faceavatar_cli.queue.app import Bell, close_app, make_app, open_records
from faceavatar_cli.queue.runner import CeleryRunner
from faceavatar_cli.queue.settings import QueueSettings
from faceavatar_cli.queue.stores import open_store
from faceavatar_cli.queue.sweep import Sweeper

SECONDS = 90.0  # a bound for waits, far beyond what they take
PHOTO = Path(__file__).parents[1] / "engine/faceavatar/examples/astronaut.jpg"
DATA_URI = "data:image/jpeg;base64," + base64.b64encode(PHOTO.read_bytes()).decode()
# Some seconds of drawing: long enough to be killed in the middle.
LONG = {"height": 1024, "width": 1024, "num_inference_steps": 50}

Got = TypeVar("Got")


def until(look: Callable[[], Got | None], what: str, seconds: float = SECONDS) -> Got:
    """What look gives once it gives something; fails after a while."""
    end = time.monotonic() + seconds
    while not (got := look()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.03)
    return got


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def submission(priority: int | None = None, **fields: Any) -> Submission:
    """A queued request of the bundled photo."""
    asked = ImageToImage(**{"image": DATA_URI, "celery": True} | fields)
    return Submission(
        asked, "toon", "local", "http://127.0.0.1", **({} if priority is None else {"priority": priority})
    )


def environment() -> dict[str, str]:
    """For child processes: this very code, and no settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FACEAVATAR_")}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@dataclass
class Queue:
    """A broker, its records, and the workers that a test starts."""

    settings: QueueSettings
    folder: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = make_app(self.settings)
        self.records = open_records(self.app, self.settings)
        self.bell = Bell(self.app, self.settings)
        self.store = open_store(self.settings.outputs)

    @property
    def client(self) -> Redis:
        backend: Any = self.app.backend
        client: Redis = backend.client
        return client

    def submit(self, priority: int | None = None, **fields: Any) -> str:
        """Queue a task as the server would; gives its id."""

        async def send() -> TaskRecord:
            runner = CeleryRunner.open(self.settings)
            try:
                return await runner.submit(submission(priority, **fields))
            finally:
                await runner.close()

        return asyncio.run(send()).id

    def sweeper(self) -> Sweeper:
        return Sweeper(self.records, self.bell, self.store)

    def worker(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start a worker; its words go to a file in the folder."""
        settings = self.settings
        command = [sys.executable, "-m", "faceavatar_cli", "worker", "--broker", settings.broker]
        command += ["--results", settings.results, "--outputs", settings.outputs, "--provider", "cpu"]
        with (self.folder / f"worker-{len(self.workers)}.log").open("wb") as log:
            process = subprocess.Popen([*command, *flags], env=environment(), stdout=log, stderr=log)
        self.workers.append(process)
        return process

    def said(self, number: int = 0) -> str:
        """What a worker said so far."""
        log = self.folder / f"worker-{number}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def record(self, task_id: str) -> TaskRecord:
        record = self.records.record(task_id)
        assert record is not None
        return record

    def drawing(self, task_id: str, steps: int = 3, attempt: int = 1) -> TaskRecord:
        """Wait until a task is in the middle of its steps, at this attempt."""

        def look() -> TaskRecord | None:
            if int(self.client.hget(f"faceavatar:task:{task_id}", "attempts") or 0) < attempt:
                return None
            record = self.record(task_id)
            return record if record.status == "running" and record.step >= steps else None

        return until(look, f"step {steps} of {task_id}: {self.said()}")

    def ended(self, task_id: str) -> TaskRecord:
        """Wait until a task has ended; the broker may be away meanwhile."""

        def look() -> TaskRecord | None:
            try:
                record = self.record(task_id)
            except NotThere:
                return None
            return record if record.ended else None

        return until(look, f"the end of {task_id}: {self.said()}")

    def pictures(self) -> list[str]:
        """The names of all pictures that are there."""
        return sorted(path.name for path in Path(self.settings.outputs).glob("*.png"))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        close_app(self.app)


def start_redis(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A real Redis or Valkey server of the system on a free port of this machine."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program, "these tests need Redis or Valkey: apt-get install redis-server"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    return process, f"redis://127.0.0.1:{port}/0"


def answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as client:
            return bool(client.ping())
    except NotThere:
        return False
