"""What every execution provider offers: named inputs and outputs with their shapes, and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorSpec:
    """dtype: numpy's name, such as "float32". shape: an int for a fixed side, a name for one that varies."""

    dtype: str
    shape: tuple[int | str, ...]

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape has the right rank and every fixed side."""
        return len(shape) == len(self.shape) and all(
            isinstance(wanted, str) or wanted == got for wanted, got in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(str(side) for side in self.shape)}]"


class Session(Protocol):
    """One opened graph; safe to run from several threads."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What run() must be fed, by name."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What run() gives, by name."""

    @property
    def provider(self) -> str:
        """The provider really in use, such as "cpu"."""

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once. Raises FaceAvatarError when the provider fails, with its own words."""


def first_line(error: Exception) -> str:
    """An engine's message without the pages that follow its first line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
