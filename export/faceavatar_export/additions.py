"""Graphs that an exported pack can have besides, each on the weights that it has already, by their names.

Each module has a command of its own too, for packs that exist: `python -m faceavatar_export.tiles PACK`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from faceavatar.errors import InvalidRequest
from faceavatar_export.step_cache import add_step_cache
from faceavatar_export.step_graph import add_step_graph
from faceavatar_export.tiles import add_tiles

ADDITIONS: Mapping[str, Callable[[Path], object]] = {
    "tiles": add_tiles,
    "step-cache": add_step_cache,
    "step-graph": add_step_graph,
}


def check_additions(names: Sequence[str]) -> None:
    """Raises InvalidRequest (--add) for a name that is none, and for two that exclude each other."""
    for name in names:
        if name not in ADDITIONS:
            raise InvalidRequest("--add", name, f"one of {', '.join(ADDITIONS)}")
    if {"step-cache", "step-graph"} <= set(names):
        allowed = "one of the two: where steps stay on the device there is no step cache"
        raise InvalidRequest("--add", "step-cache and step-graph", allowed)


def add_to(pack: Path, names: Sequence[str], say: Callable[[str], object]) -> None:
    """Adds the graphs to a finished pack, one after the other; raises what their modules raise.

    A pack is as it was before the graph that failed, and can be used.
    """
    for name in dict.fromkeys(names):
        say(f"adding {name}")
        ADDITIONS[name](pack)
