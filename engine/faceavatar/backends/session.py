"""What every execution provider offers: named inputs and outputs with their shapes, a precision, and run.

Provider is what its module offers in turn: whether it works here, opening a graph, compiling one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from faceavatar.errors import FaceAvatarError, OutOfMemory

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# How the engines say it: ONNX Runtime's arena and C++ itself, CUDA and its libraries, oneDNN in OpenVINO.
_NO_MEMORY = (
    *("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory", "out_of_memory"),
    *("alloc_failed", "could not create a memory object", "not enough memory", "cannot allocate memory"),
    *("can't alloc", "cpu_memory.cpp", "std::length_error", "insufficient memory", "can't start new thread"),
)
Dimensions = Mapping[str, tuple[int, ...]]


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


@dataclass(frozen=True)
class Bucket:
    """A range of shapes that a graph is compiled for: for each input by name the least, usual and greatest.

    words: how it was asked for, such as "512x512x1..8".
    """

    words: str
    least: Dimensions
    usual: Dimensions
    most: Dimensions

    @property
    def static(self) -> bool:
        """Whether it holds one shape of each input only."""
        return self.least == self.most


@dataclass(frozen=True)
class Platform:
    """What an engine compiled here is good for, as far as the provider asks.

    device: the processor's or GPU's name and the features that count. driver: the GPU driver's version, ""
    where there is none. versions: of the libraries that read the engine, by package name.
    """

    device: str
    driver: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


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

    @property
    def precision(self) -> Precision:
        """What it really computes in, whatever was asked for."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is otherwise than one may expect: nodes left to another provider, by share."""

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once. Raises FaceAvatarError when the provider fails, with its own words."""


class Buffers(Protocol):
    """Named buffers on a session's device, which stay there from run to run. For one thread at a time."""

    def upload(self, buffer: str, array: NDArray[Any]) -> None:
        """Copy an array into a buffer; where it is of the same type and shape, at the same address."""

    def reserve(self, buffer: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """See that a buffer of this shape and type is there; what it holds is not said."""

    def download(self, buffer: str) -> NDArray[Any]:
        """A copy of what a buffer holds."""

    def run(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """Run the graph once; inputs and outputs: which buffer each of its tensors is. Waits for the end.

        Raises FaceAvatarError when the provider fails, with its own words.
        """


@runtime_checkable
class DeviceSession(Session, Protocol):
    """A session whose inputs and outputs can stay on its device."""

    def bind(self, shapes: Any) -> AbstractContextManager[Buffers]:
        """Buffers for runs of these shapes (anything with ==), at the addresses of earlier such runs."""


class Provider(Protocol):
    """What each provider's module in this folder offers."""

    def problem(self) -> str | None:
        """Why it cannot be used here, with the command that cures it, or None. May raise MissingExtra."""

    def open_session(
        self,
        path: Path,
        threads: int,
        precision: Precision | None = None,
        shapes: Sequence[Bucket] | None = None,
        stored: Precision = "fp32",
        record: bool = False,
    ) -> Session:
        """Open an ONNX file.

        precision: None as the graph is stored. shapes: what it will be run with, where that is known; hints,
        never limits. stored: what the graph's own nodes compute in. record: on a GPU, record the launches of
        runs on bound buffers once and replay them (CUDA graphs); `run` is then not for this session.
        Raises ProviderUnavailable for a precision that the provider or the device does not have, and
        PackInvalid for a file that it cannot read.
        """

    def platform(self) -> Platform:
        """What engines compiled now would be compiled for."""

    def compile_graph(
        self,
        path: Path,
        target: Path,
        threads: int,
        precision: Precision | None = None,
        shapes: Sequence[Bucket] | None = None,
        stored: Precision = "fp32",
    ) -> tuple[Path, ...]:
        """Compile an ONNX file to the engine `target` (its suffix is the provider's to choose).

        Gives the files written, in target's folder, the one to be opened first. Raises as open_session.
        """

    def open_engine(
        self,
        files: Sequence[Path],
        path: Path,
        threads: int,
        precision: Precision | None = None,
        record: bool = False,
    ) -> Session:
        """Open what compile_graph wrote, in that order; path: the ONNX file that it was made of.

        record: as open_session's. Hashes and platform were compared before. Raises EngineStale for an
        engine that is refused, and ProviderUnavailable for one that gave way to another provider.
        """


_OPENVINO_PLACES = ("Exception from src/", "Caught exception: ", "Check '", "FrontEnd API failed")


def failure(
    what: str, error: Exception, otherwise: type[FaceAvatarError] = FaceAvatarError
) -> FaceAvatarError:
    """What an engine's own error means: OutOfMemory where its words say so, else `otherwise`.

    what: which graph failed at what, as the message begins.
    """
    words = f"{what}: {first_line(error)}"
    lower = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in lower for sign in _NO_MEMORY):
        return OutOfMemory(words)
    return otherwise(words)


def first_line(error: Exception) -> str:
    """An engine's message without the pages that follow its first line.

    OpenVINO begins with places in its own source, and tells at the end which operators it does not know.
    """
    lines = [line.strip("- ") for line in str(error).split("\n") if line.strip("- ")]
    unknown = [line for line in lines if line.startswith("No conversion rule found")]
    telling = [line for line in lines if not line.startswith(_OPENVINO_PLACES)]
    return next(iter([*unknown, *telling, *lines]), type(error).__name__)
