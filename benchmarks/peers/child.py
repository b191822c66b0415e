"""One engine in a process of its own, driven by lines: a JSON object comes in on stdin, one goes out.

    python benchmarks/peers/child.py ROOM '{"checkpoint": ..., "options": {...}}'

It runs in the peer's environment, so it knows the standard library and numpy only; a room beside it
(with_diffusers.py and so on) knows one library. {"do": "prepare"}, {"do": "load", "size"} and
{"do": "draw", "number", "steps", "size", "decode", "out"} are understood; what a room raises is answered as
{"error"}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

GUIDANCE = 7.5
NEGATIVE = "blurry"


class Drawn(Protocol):
    """What a room's draw gives: seconds on perf_counter's clock, and uint8 (H, W, 3) or None undecoded.

    step_ends: when each step was over. decode_seconds: where the engine itself can tell.
    """

    step_ends: list[float]
    decode_seconds: float | None
    picture: Any


Draw = Callable[[int, int, int, bool], Drawn]


def prompt_of(number: int) -> str:
    """A prompt for each picture: no cache of an earlier one answers."""
    return f"vector cartoon illustration of a woman, number {number}, plain background"


def latents_of(spec: dict[str, Any], number: int, size: int) -> Any:
    """Unit noise (1, 4, h, w) float32, the same for every engine."""
    import numpy as np

    return np.load(spec["inputs"])[f"latents {size} {number}"]


def memory_mb(field: str) -> float | None:
    """VmHWM (the most so far) or VmRSS of this process, in MB; None where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def draw(asked: dict[str, Any], function: Draw) -> dict[str, Any]:
    """One picture, timed; saved as PNG or as numpy's own file where `out` says so."""
    start, busy = time.perf_counter(), time.process_time()
    drawn = function(asked["number"], asked["steps"], asked["size"], asked["decode"])
    end = time.perf_counter()
    answer: dict[str, Any] = {
        "seconds": end - start,
        "busy": (time.process_time() - busy) / (end - start),
        "first_step": drawn.step_ends[0] - start,
        "steps": [b - a for a, b in zip(drawn.step_ends, drawn.step_ends[1:], strict=False)],
        "decode": drawn.decode_seconds,
        "peak_mb": memory_mb("VmHWM"),
    }
    if drawn.picture is not None and asked.get("out"):
        _save(drawn.picture, Path(asked["out"]))
        answer["save"] = time.perf_counter() - end
    return answer


def _save(picture: Any, out: Path) -> None:
    if out.suffix == ".npy":
        import numpy as np

        np.save(out, picture)
    else:
        from PIL import Image

        Image.fromarray(picture).save(out)


def main() -> None:
    # Answers have stdout to themselves: what libraries print there goes to stderr from here on.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec, start = json.loads(sys.argv[2]), time.perf_counter()
    try:
        room = importlib.import_module(sys.argv[1])
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        raise
    print(json.dumps({"import": time.perf_counter() - start}), file=answers, flush=True)
    function: Draw | None = None
    for line in sys.stdin:
        asked, start = json.loads(line), time.perf_counter()
        answer: dict[str, Any] = {}
        try:
            if asked["do"] == "prepare":
                room.prepare(spec)
            elif asked["do"] == "load":
                function = room.load({**spec, "size": asked["size"]})
            else:
                assert function is not None, "load comes before draw"
                answer = draw(asked, function)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        answer.setdefault("seconds", time.perf_counter() - start)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
