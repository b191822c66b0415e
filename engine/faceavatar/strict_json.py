"""JSON files that decide what runs, read strictly: of bounded size and depth, no key twice, no NaN.

JSON's own rules leave open what a key that is there twice means: two readers could see two manifests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 4 * 2**20  # a pack of six graphs has 10 kB


def read_json(path: Path) -> tuple[str, Any]:
    """The text of a file and what it holds.

    Raises ValueError for what is no JSON, too large, too deep, or has a key twice; OSError for the file.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    text = data.decode("utf-8")
    try:
        return text, json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twin[:80]!r} is there twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON's")
