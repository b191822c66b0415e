"""What a hostile picture is: a name, how it is built, what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Color = tuple[int, int, int]
QUARTERS: tuple[Color, Color, Color, Color] = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


@dataclass(frozen=True)
class Case:
    """`build` gives the file. look: colours in the middle of the four quarters, or of all of it; None where
    the colours do not matter. near: by how much each channel may differ. size: (width, height).
    """

    name: str
    build: Callable[[], bytes]
    comes: Literal["picture", "refused", "either"] = "either"
    look: tuple[Color, ...] | None = None
    near: int = 3
    size: tuple[int, int] | None = None


def refused(name: str, build: Callable[[], bytes]) -> Case:
    """No picture may come of it."""
    return Case(name, build, "refused")


def picture(name: str, build: Callable[[], bytes], *look: Color, near: int = 3) -> Case:
    """A picture must come of it; look: one colour, four, or none where they do not matter."""
    return Case(name, build, "picture", look or None, near)
