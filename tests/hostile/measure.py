"""The child that opens pictures as a request does and says, a line of JSON each, what came and what it cost.

python tests/hostile/measure.py FILE... ; a name that is there twice is opened twice.

Peak memory is the kernel's own high-water mark, set back before each file (/proc/self/clear_refs), over what
the process held when it had opened its first picture: what a file leaves behind counts against the next. The
time is the processor's, of all threads, so that other work on the machine does not count; and the clock's.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from faceavatar.errors import FaceAvatarError
from faceavatar.identity import open_reference

MOST_MEMORY = 3 * 2**30  # of addresses: a runaway ends in MemoryError and not with the machine
SMALL = b"P6 1 1 255\n\x78\x3c\x1e"


def main() -> None:
    """Measures the files that are named."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    open_reference(SMALL)
    idle = held("VmRSS")
    for name in sys.argv[1:]:
        print(json.dumps({"file": name, **measured(name, idle)}), flush=True)


def measured(name: str, idle: int) -> dict[str, Any]:
    """What opening one file gives and costs."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    began, clock = time.process_time(), time.monotonic()
    found = came(name)
    spent, waited = time.process_time() - began, time.monotonic() - clock
    return {**found, "seconds": spent, "clock": waited, "megabytes": (held("VmHWM") - idle) / 1000}


def came(name: str) -> dict[str, Any]:
    """The picture's size and colours in the middle of its quarters, or the error's code and words."""
    try:
        picture = open_reference(name)
    except FaceAvatarError as error:
        return {"comes": "refused", "code": error.code, "words": str(error)}
    assert isinstance(picture, np.ndarray), "no identity file is among them"
    height, width = picture.shape[:2]
    places = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    colors = [picture[place].tolist() for place in places]
    return {"comes": "picture", "size": [width, height], "colors": colors, "dtype": str(picture.dtype)}


def held(what: str) -> int:
    """Kilobytes by /proc/self/status: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
