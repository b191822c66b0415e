"""`faceavatar serve` as a process of its own, for tests that kill it, or what runs beneath it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from queue_rig import DATA_URI, SECONDS, environment, until

FIELDS = {"time_required", "error", "error_data", "input", "output", "app_id", "task_id", "status"}
PNG = b"\x89PNG\r\n\x1a\n"


class Server:
    """A server that runs; its words go to a file."""

    def __init__(self, log: Path, *flags: str, port: int = 0, **variables: str) -> None:
        command = [sys.executable, "-m", "faceavatar_cli", "serve", "--port", str(port), "--provider", "cpu"]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, *flags], env=environment() | variables, stdout=file, stderr=file
            )
        self._log = log
        self.url = until(self._url, "the server tells where it is")
        until(self._ready, "the server is ready")

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def _url(self) -> str | None:
        assert self.process.poll() is None, self.said()
        found = re.search(r"serves on (http://\S+)", self.said())
        return found and found[1]

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def queue(self, **fields: Any) -> str:
        """Queue a task; its id."""
        asked = {"image": DATA_URI, "celery": True, "app_id": "toon"} | fields
        response = httpx.post(f"{self.url}/getImageToImage", json=asked, timeout=SECONDS)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert set(answer) == FIELDS
        assert (answer["status"], answer["output"], answer["error"]) == ("queued", [], None)
        assert answer["input"]["celery"] is True
        assert "base64" not in response.text
        return str(answer["task_id"])

    def ask(self, task: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.post(f"{self.url}/getImage", json={"id": task}, timeout=SECONDS).json()
        assert set(answer) == FIELDS
        return answer

    def drawing(self, task: str) -> None:
        """Wait until a task is in the middle of its steps."""
        until(lambda: 3 <= httpx.get(f"{self.url}/tasks/{task}").json()["step"] < 50, "it is drawn")

    def completed(self, task: str) -> list[bytes]:
        """Wait for a task's pictures, and get them by their URLs."""
        answer = until(
            lambda: answer if (answer := self.ask(task))["status"] not in ("queued", "running") else None,
            "the task ends",
        )
        assert (answer["status"], answer["error"]) == ("completed", None), answer
        assert 0 < answer["time_required"] < SECONDS
        pictures = [httpx.get(url).content for url in answer["output"]]
        assert all(picture.startswith(PNG) for picture in pictures)
        return pictures

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def children(pid: int) -> list[int]:
    """The ids of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            found.append(int(stat.parent.name))
    return found
