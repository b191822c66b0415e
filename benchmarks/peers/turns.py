"""One engine's turn: a process of its own, asked for one measurement, gone before the next one begins."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineup import Engine

WARM_UP = 7  # the number of a picture that is never counted
PROCESS_STEPS = 4


class PeerFailed(Exception):
    """A peer's own words for why it cannot run."""


@dataclass(frozen=True)
class Child:
    """How to start a peer: its interpreter, what it is told, and where it works."""

    python: Path
    engine: Engine
    spec: Mapping[str, Any]

    def run(self, asked: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], float]:
        """The answers to some requests, the first one being its import's; and seconds from start to exit.

        Raises PeerFailed.
        """
        room = Path(__file__).parent
        spec = json.dumps({**self.spec, "options": dict(self.engine.options)})
        command = [str(self.python), str(room / "child.py"), self.engine.room, spec]
        lines = "".join(json.dumps(one) + "\n" for one in asked)
        environment = _environment(self.engine)
        with tempfile.TemporaryFile("w+") as words:
            start = time.perf_counter()
            ran = subprocess.run(
                command, input=lines, stdout=subprocess.PIPE, stderr=words, text=True, env=environment
            )
            seconds = time.perf_counter() - start
            words.seek(0)
            last = (words.read().strip().splitlines() or ["it said nothing"])[-1]
        answers = [json.loads(line) for line in ran.stdout.splitlines()]
        for answer in answers:
            if "error" in answer:
                raise PeerFailed(answer["error"])
        if len(answers) != len(asked) + 1:
            raise PeerFailed(f"it ended with {ran.returncode}: {last}")
        return answers, seconds


def _environment(engine: Engine) -> dict[str, str]:
    """Ours is run as this process is; a peer sees nothing of this environment, and nobody fetches."""
    kept = {name: value for name, value in os.environ.items() if engine.ours or name != "PYTHONPATH"}
    kept.pop("OMP_NUM_THREADS", None)  # every engine takes the threads it takes by itself
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def measure_step(child: Child, number: int, picture: Path) -> dict[str, Any]:
    """Guidance steps of a loaded engine at 512x512: seconds of each, the first one of a run left out."""
    (_, load, _, drawn), _ = child.run(
        [_load(), _draw(WARM_UP, 2, decode=False), _draw(number, 6, decode=False)]
    )
    return {"load": load["seconds"], **_kept(drawn)}


def measure_picture(child: Child, number: int, picture: Path) -> dict[str, Any]:
    """A whole picture of a loaded engine: 20 steps and the decoder at 512x512, from prompt to pixels."""
    (_, load, _, drawn), _ = child.run(
        [_load(), _draw(WARM_UP, 2), _draw(number, 20, out=str(picture.with_suffix(".npy")))]
    )
    return {"load": load["seconds"], **_kept(drawn)}


def measure_process(
    child: Child, number: int, picture: Path, size: int = 512, cold: bool = False
) -> dict[str, Any]:
    """A fresh process: start, import, load, four steps, decode, PNG, exit. Its files are in memory before.

    cold: they are not; the system is asked to forget them.
    """
    files = list(_files(child))
    _forget(files) if cold else _remember(files)
    (imported, load, drawn), seconds = child.run(
        [_load(size), _draw(number, PROCESS_STEPS, size=size, out=str(picture.with_suffix(".png")))]
    )
    return {"process": seconds, "import": imported["import"], "load": load["seconds"], **_kept(drawn)}


def _load(size: int = 512) -> dict[str, Any]:
    return {"do": "load", "size": size}


def _draw(number: int, steps: int, size: int = 512, decode: bool = True, out: str = "") -> dict[str, Any]:
    return {"do": "draw", "number": number, "steps": steps, "size": size, "decode": decode, "out": out}


def _kept(drawn: Mapping[str, Any]) -> dict[str, Any]:
    names = ("seconds", "first_step", "steps", "decode", "peak_mb", "busy")
    return {"picture": drawn["seconds"], **{name: drawn[name] for name in names if name != "seconds"}}


def _files(child: Child) -> Iterable[Path]:
    """The weights that a child reads: of ours the engines for its provider, where there are some, and not the
    others, which together are more than many a machine's memory holds."""
    if child.engine.ours:
        yield from read_by_ours(Path(child.spec["pack"]), child.engine.options)
        return
    names = {"diffusers": ("checkpoint", "adapter")}.get(child.engine.venv, ("folder",))
    for root in (Path(child.spec[name]) for name in names):
        yield from [root] if root.is_file() else (path for path in root.rglob("*") if path.is_file())


def read_by_ours(pack: Path, options: Mapping[str, Any]) -> Iterable[Path]:
    """Of a pack's files those that an engine with these options reads, or at least looks for."""
    engines = pack / "engines" / "engines.json"
    entries = json.loads(engines.read_text(encoding="utf-8"))["engines"] if engines.exists() else []
    fitting = [one for one in entries if one["provider"] == options["provider"]]
    fitting = [one for one in fitting if one["asked"] == options["precision"]]
    yield from (engines.parent / file["file"] for one in fitting for file in one["files"])
    for path in pack.iterdir():
        if path.is_file() and not (fitting and path.suffix == ".data"):
            yield path


def _remember(files: Iterable[Path]) -> None:
    """Reads the files once, so that the system has them in memory."""
    for path in files:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def _forget(files: Iterable[Path]) -> None:
    """Tells the system that the files' pages are of no use; where it takes no such advice it keeps them."""
    if not hasattr(os, "posix_fadvise"):
        raise PeerFailed("this system takes no advice on files (posix_fadvise), so nothing can be cold")
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
