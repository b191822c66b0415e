"""An engine's memory: what it may take, what it has taken already, and what of a request would fit.

Knows forecasts, the budget, and how to tell a failed allocation; does not run anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

from faceavatar.backends import failure
from faceavatar.budget import machine_budget
from faceavatar.errors import FaceAvatarError, OutOfMemory, OverBudget
from faceavatar.forecast import Forecast, Shape, forecast, shape_of
from faceavatar.manifest import Manifest
from faceavatar.plan import Plan

LEAST_SIDE, SIDE_STEP = 256, 64
# Their memory is not the machine's, and nothing here asks them how much of it is free.
_ON_DEVICES = frozenset({"cuda", "tensorrt", "tensorrt-rtx"})


class Allowance:
    """One engine's. budget: bytes, or None for what the machine has free whenever a request comes. sees:
    whether photos are looked at. tiling: whether pictures may be decoded in tiles that do not fit whole.

    It counts one run at a time: whoever runs several at once on one engine wants a budget for each.
    """

    def __init__(
        self, manifest: Manifest, provider: str, sees: bool, budget: int | None, tiling: bool = False
    ) -> None:
        self._manifest, self._provider, self._sees, self._fixed = manifest, provider, sees, budget
        self._tiling = tiling
        self._taken: dict[str, int] = {}
        self._lock = Lock()

    @property
    def budget(self) -> int | None:
        """What the process may grow to now; None where nothing says so."""
        if self._fixed is not None or self._provider in _ON_DEVICES:
            return self._fixed
        return machine_budget()

    def forecast(self, plans: Sequence[Plan]) -> Forecast:
        """Of requests that are drawn as one batch."""
        return forecast(self._manifest, self._provider, self._shape(plans))

    def fits(self, plans: Sequence[Plan]) -> bool:
        """Whether they can be drawn as one batch, in tiles if need be."""
        budget = self.budget
        return budget is None or self._needs(self._smallest(self._shape(plans))) <= budget

    def tiled(self, plans: Sequence[Plan]) -> bool:
        """Whether they have to be decoded in tiles, and may."""
        budget = self.budget
        return self._tiling and budget is not None and self._needs(self._shape(plans)) > budget

    def check(self, plans: Sequence[Plan]) -> None:
        """Raises OverBudget, with what would fit."""
        budget, shape = self.budget, self._smallest(self._shape(plans))
        if budget is None or (needed := self._needs(shape)) <= budget:
            return
        height, width = plans[0].drawn_size
        raise OverBudget(
            "batch" if shape.pictures > 1 else "height",
            f"{shape.pictures} of {width}x{height}",
            self._largest(shape, (height, width), budget),
            needed,
            budget,
        )

    @contextmanager
    def held(self, plans: Sequence[Plan], drawing: bool = True) -> Iterator[None]:
        """Work on these plans; what it took stays taken. Raises OutOfMemory, with the forecast."""
        expected = self.forecast(plans)
        try:
            yield
        except OutOfMemory as error:
            raise OutOfMemory(error.what, expected.peak) from error
        except FaceAvatarError:
            raise
        except Exception as error:  # numpy, OpenCV, Pillow and Python itself have each an error of their own
            told = failure(type(error).__name__, error)
            if isinstance(told, OutOfMemory):
                raise OutOfMemory(told.what, expected.peak) from error
            raise
        if drawing:
            with self._lock:
                for stage, count in expected.stages.items():
                    if stage != "pictures":  # which are given back
                        self._taken[stage] = max(count, self._taken.get(stage, 0))

    def _shape(self, plans: Sequence[Plan]) -> Shape:
        return shape_of(plans, self._sees)

    def _smallest(self, shape: Shape) -> Shape:
        return replace(shape, tiled=self._tiling)

    def _needs(self, shape: Shape) -> int:
        with self._lock:
            return forecast(self._manifest, self._provider, shape).beside(self._taken)

    def _largest(self, shape: Shape, size: tuple[int, int], budget: int) -> str:
        """The largest batch of this size that fits, or the largest picture of this form, in words."""
        height, width = size
        for pictures in range(shape.pictures - 1, 0, -1):
            if self._needs(replace(shape, pictures=pictures)) <= budget:
                return f"{pictures} of {width}x{height} at once"
        grain = shape.pixels // shape.cells
        long = max(size)
        sides = () if self._manifest.sizes.native else range(long - SIDE_STEP, LEAST_SIDE - 1, -SIDE_STEP)
        for side in sides:
            high, wide = (max(LEAST_SIDE, round(one * side / long / 8) * 8) for one in size)
            smaller = replace(shape, pictures=1, pixels=high * wide, cells=high * wide // grain)
            if self._needs(smaller) <= budget:
                return f"1 of {wide}x{high} at once"
        least = forecast(self._manifest, self._provider, shape).stages["loaded"]
        return f"none: no picture fits, and the pack alone takes {least / 1e9:.2f} GB; raise memory_budget"
