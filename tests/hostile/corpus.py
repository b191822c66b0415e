"""Hostile pictures, built by a script: python tests/hostile/corpus.py FOLDER writes them all.

Each has a name and what must come of it: "picture", "refused", or "either" where it is only the bounds that
matter (a file cut short may still hold a whole picture). `look` says more of a picture: the colours in the
middle of its four quarters, or a plain colour.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile import broken, colors, costly, foreign, shapes
from hostile.cases import Case

GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "broken": broken.cases,
    "shapes": shapes.cases,
    "colors": colors.cases,
    "costly": costly.cases,
    "foreign": foreign.cases,
}


def corpus() -> dict[str, Case]:
    """All cases by name; none is built yet."""
    found: dict[str, Case] = {}
    for group, cases in GROUPS.items():
        for case in cases():
            name = f"{group}-{case.name}"
            assert name not in found, name
            found[name] = case
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in corpus().items():
        (folder / name).write_bytes(case.build())
