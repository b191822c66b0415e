"""Fresh processes: from the start of Python to the first picture, one process after the other."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from faceavatar import FaceAvatarError
from faceavatar_cli.measure.subject import Case


@dataclass(frozen=True)
class Fresh:
    """Medians over the processes, in seconds and MB; None for what was not measured.

    to_first_picture: from before the process was started until its first picture was there.
    first_picture: the first call by itself; second_picture: the next one.
    """

    runs: int
    import_seconds: float
    load_seconds: float
    first_picture: float
    second_picture: float | None
    to_first_picture: float
    peak_memory_mb: float | None


def measure_fresh(load: Mapping[str, Any], case: Case, runs: int, second: bool = True) -> Fresh:
    """So many processes. load: AvatarEngine.load's arguments. Raises FaceAvatarError with what one said."""
    found = [_process(load, case, second) for _ in range(runs)]

    def median(name: str) -> float | None:
        values = [one[name] for one in found if one[name] is not None]
        return statistics.median(values) if values else None

    return Fresh(
        runs=runs,
        import_seconds=_there(median("import")),
        load_seconds=_there(median("load")),
        first_picture=_there(median("first picture")),
        second_picture=median("second picture"),
        to_first_picture=_there(median("to first picture")),
        peak_memory_mb=median("peak memory MB"),
    )


def _process(load: Mapping[str, Any], case: Case, second: bool) -> dict[str, float]:
    asked = {"load": dict(load), "case": asdict(case), "second": second}
    command = [sys.executable, "-m", "faceavatar_cli.measure.child", json.dumps(asked)]
    paths = os.pathsep.join(path for path in sys.path if path)
    start = time.time()
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise FaceAvatarError(f"a fresh process ended with {ran.returncode}: {last}; try it with generate")
    found: dict[str, float] = json.loads(ran.stdout)
    # The clocks of two processes agree only as the time of day; what measuring imported itself is taken off.
    return found | {"to first picture": found["at first picture"] - start - found["own"]}


def _there(value: float | None) -> float:
    assert value is not None
    return value
