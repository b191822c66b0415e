"""One finding of `doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was found, and for a problem the one line that cures it."""

    name: str
    found: str
    fix: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there is nothing to cure."""
        return self.fix is None
