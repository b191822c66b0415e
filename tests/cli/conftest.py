"""The command line as users meet it: in a folder of its own, with the tests' pack on the search path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faceavatar_cli.main import main


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that stdout holds."""
        content = json.loads(self.out)
        assert isinstance(content, dict)
        return content


Runner = Callable[..., Ran]


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the commands; the pack `tiny` is found by its name."""
    monkeypatch.setenv("FACEAVATAR_PACKS", str(tiny.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place: Path, capfd: pytest.CaptureFixture[str]) -> Runner:
    """Runs a command in this process, by way of the entry point."""

    def call(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Ran(code, printed.out, printed.err)

    return call


@pytest.fixture
def make(run: Runner) -> Runner:
    """Runs `generate` on the pack `tiny` and the processor, on the bundled photo unless --from is given."""

    def call(*arguments: object) -> Ran:
        photo = () if "--from" in arguments or "PHOTO" in arguments else ("--example",)
        rest = [argument for argument in arguments if argument != "PHOTO"]
        return run("generate", *photo, "--pack", "tiny", "--provider", "cpu", *rest)

    return call


@pytest.fixture
def process(place: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts a command as a process of its own."""

    def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "faceavatar_cli", *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": place, **options}
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **options)

    return start
