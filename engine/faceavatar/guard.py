"""Sessions that are watched: asked for leave before they run, and held to finite numbers after.

A graph of reduced precision whose values overflow is run again in fp32, where the pack has it in fp32 or the
provider can compute it so. Knows sessions; does not know what a graph is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Precision, Session, TensorSpec
from faceavatar.errors import NumericalError, ProviderUnavailable
from faceavatar.watch import Rerun, current, current_step

Arrays = dict[str, NDArray[Any]]


class GuardedSession:
    """A Session of a stage. in_fp32: opens the same graph in fp32, None where there is no such."""

    def __init__(self, session: Session, stage: str, in_fp32: Callable[[], Session] | None = None) -> None:
        self._session, self._stage, self._in_fp32 = session, stage, in_fp32
        self._exact: Session | None = None
        self._opening = Lock()

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._session.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._session.outputs

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def precision(self) -> Precision:
        return self._session.precision

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._session.warnings

    def run(self, feeds: Arrays) -> Arrays:
        """Run the graph once.

        Raises NumericalError for NaN or infinite values that fp32 does not cure, DeadlineExceeded before the
        run, and FaceAvatarError when the provider fails.
        """
        watch = current()
        watch.ask(self._stage)
        outputs = self._session.run(feeds)
        if _finite(outputs):
            return outputs
        if self.precision == "fp32" or self._in_fp32 is None:
            raise NumericalError(self._stage, current_step())
        outputs = self._run_exactly(self._in_fp32, feeds)
        if not _finite(outputs):
            raise NumericalError(self._stage, current_step())
        watch.note(Rerun(self._stage, self.precision, current_step()))
        return outputs

    def _run_exactly(self, in_fp32: Callable[[], Session], feeds: Arrays) -> Arrays:
        """In fp32, handed in and given back in the types of the graph that it stands in for."""
        with self._opening:
            try:
                self._exact = self._exact or in_fp32()
            except ProviderUnavailable as error:  # the pack has no such graph, and the provider no such way
                raise NumericalError(self._stage, current_step()) from error
        exact = self._exact
        fed = {name: array.astype(exact.inputs[name].dtype) for name, array in feeds.items()}
        given = exact.run(fed)
        return {name: given[name].astype(spec.dtype) for name, spec in self.outputs.items()}


def _finite(outputs: Arrays) -> bool:
    return all(
        bool(np.isfinite(array).all())
        for array in outputs.values()
        if np.issubdtype(array.dtype, np.floating)
    )
