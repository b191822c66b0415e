"""How long the toon pack takes: a fresh process, load, later pictures, batches; and the memory used.

    python benchmarks/toon.py [--provider cpu] [--runs 7]

Prints a table, then one line of JSON. Medians over the runs; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faceavatar import AvatarEngine, AvatarRequest

PHOTO = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "photos" / "astronaut.jpg"


def seconds(run: Callable[[], object], runs: int) -> float:
    """Median seconds of one call."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def fresh(provider: str) -> None:
    """A Python process that imports, loads and makes one picture."""
    code = (
        "from faceavatar import AvatarEngine, AvatarRequest\n"
        f"AvatarEngine.load('toon', {provider!r}).generate(AvatarRequest(image={str(PHOTO)!r}, seed=1))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    report: dict[str, float] = {"fresh process to first picture": seconds(partial(fresh, args.provider), 3)}
    report |= {"load": seconds(lambda: AvatarEngine.load("toon", args.provider), 3)}
    engine = AvatarEngine.load("toon", args.provider)
    cases: dict[str, dict[str, object]] = {
        "512x512": {},
        "512x512, batch 4": {"batch": 4},
        "512x512, batch 8": {"batch": 8},
        "512x512, 1 step": {"num_inference_steps": 1},
        "512x512, 8 steps": {"num_inference_steps": 8},
        "512x512, 20 steps": {"num_inference_steps": 20},
        "512x512, 20 steps, guidance 7.5": {"num_inference_steps": 20, "guidance_scale": 7.5},
        "512x512, negative prompt": {"negative_prompt": "sad, hat"},
        "512x512, cut out": {"remove_background": True},
        "1536x1536": {"height": 1536, "width": 1536},
    }
    for name, fields in cases.items():
        request = AvatarRequest(image=PHOTO, seed=1).model_copy(update=fields)
        report[name] = seconds(partial(engine.generate, request), args.runs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in report.items():
        print(f"{name:34} {value:7.3f} s")
    print(f"{'peak memory':34} {peak:7.0f} MB")
    print(json.dumps({"provider": engine.provider, "cores": os.cpu_count(), "peak_mb": peak, **report}))


if __name__ == "__main__":
    main()
