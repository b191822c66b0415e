"""One fresh process, measured from its inside: import, load, two pictures, memory. Prints one JSON object.

    python -m faceavatar_cli.measure.child '{"pack": "toon", "provider": "cpu", ...}'

Nothing is imported here before the clock runs.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def _peak_memory_mb() -> float | None:
    """The most memory that this process has held; None where only psutil could tell and it is not there."""
    try:
        import resource
    except ImportError:  # Windows
        try:
            import psutil
        except ImportError:
            return None
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(asked: dict[str, Any]) -> dict[str, float | None]:
    """Seconds of import, load and of the first and the second picture; `case` as Case's fields."""
    start = time.perf_counter()
    from faceavatar import AvatarEngine

    imported = time.perf_counter()
    engine = AvatarEngine.load(**asked["load"])
    loaded = time.perf_counter()
    # Imported late: what it needs beyond the engine is the measuring's own and counts for nobody.
    from faceavatar_cli.measure.subject import Case, draw

    case = Case(**asked["case"])
    ready = time.perf_counter()
    draw(engine, case, 0)
    first = time.perf_counter()
    if asked["second"]:
        draw(engine, case, 1)
    return {
        "import": imported - start,
        "load": loaded - imported,
        "first picture": first - ready,
        "second picture": time.perf_counter() - first if asked["second"] else None,
        "own": ready - loaded,
        "at first picture": time.time() - (time.perf_counter() - first),
        "peak memory MB": _peak_memory_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
