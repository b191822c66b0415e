"""Engines of OpenVINO: compiled models as it exports them, one for any shape and one for each asked for.

A list beside the blobs says which there are, what the graph takes and gives and what it computes in. Where
several shapes were asked for, a blob is opened when its shape first comes: those that never come cost neither
memory nor time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends._openvino import Opened, OpenVinoSession, names_of, settings, unpacked
from faceavatar.backends.session import Bucket, Dimensions, Precision, TensorSpec, failure
from faceavatar.errors import EngineStale, PackInvalid

_AGAIN = "compile it again: faceavatar compile PACK --provider openvino"
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def write_engine(
    path: Path, target: Path, threads: int, precision: Precision, shapes: Sequence[Bucket]
) -> tuple[Path, ...]:
    """Compile an ONNX file for any shape and for each bucket's usual one; gives the list, then the blobs.

    Below float32 the weights are stored as float16, half as long and nearer than what they are rounded to.
    Raises PackInvalid, OutOfMemory.
    """
    import openvino

    fixed = list({_key(bucket.usual): bucket.usual for bucket in shapes}.values())
    blobs = [target.with_name(f"{target.name}{mark}.blob") for mark in ("", *map(_mark, fixed))]
    try:
        core = openvino.Core()
        with _shorter(core.read_model(str(path)), target.parent, precision) as (read, names):
            for blob, shape in zip(blobs, (None, *fixed), strict=True):
                model = read()
                if shape is not None:
                    model.reshape({name: list(shape[name]) for name in names["inputs"]})
                _export(core.compile_model(model, "CPU", settings(precision, threads)), blob)
        session = OpenVinoSession(
            partial(_imported, blobs[0], names, threads, precision), path.name, precision
        )
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{path.name}: openvino cannot compile it", error, PackInvalid) from error
    listed = target.with_name(f"{target.name}.json")
    made = [{"file": blob.name, "inputs": shape} for blob, shape in zip(blobs[1:], fixed, strict=True)]
    content: dict[str, Any] = {"inputs": _written(session.inputs), "outputs": _written(session.outputs)}
    content |= {"precision": session.precision, "fixed": made}
    listed.write_text(json.dumps(content), encoding="utf-8")
    return listed, *blobs


def _export(model: Any, blob: Path) -> None:
    """OpenVINO writes to memory only."""
    with blob.open("wb") as file:
        file.write(model.export_model().getbuffer())


class EngineSession:
    """A Session over the blobs of one graph, each opened at its first run; at once where one will do."""

    provider = "openvino"

    def __init__(self, files: Sequence[Path], file: str, threads: int, precision: Precision) -> None:
        """files: as write_engine gave them. file: the graph's name. Raises EngineStale, OutOfMemory.

        So does a run that opens a blob.
        """
        listed, anything, *fixed = files
        self.warnings: tuple[str, ...] = ()
        self._lock, self._open = Lock(), dict[Path, OpenVinoSession]()
        try:
            listing = json.loads(listed.read_text(encoding="utf-8"))
            self.inputs, self.outputs = _read(listing["inputs"]), _read(listing["outputs"])
            by_name = {path.name: path for path in fixed}
            self._fixed = {_key(one["inputs"]): by_name[one["file"]] for one in listing["fixed"]}
            self.precision: Precision = listing["precision"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineStale(f"{listed.name}: cannot be read: {error}; {_AGAIN}") from error
        self._anything = anything
        names = {"inputs": list(self.inputs), "outputs": list(self.outputs)}
        self._made: Callable[[Path], OpenVinoSession] = lambda blob: OpenVinoSession(
            partial(_imported, blob, names, threads, precision), file, precision
        )
        if len(fixed) < 2:
            self._session(*fixed or [anything])

    def run(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        key = _key({name: array.shape for name, array in feeds.items()})
        return self._session(self._fixed.get(key, self._anything)).run(feeds)

    def _session(self, blob: Path) -> OpenVinoSession:
        with self._lock:
            if blob not in self._open:
                self._open[blob] = self._made(blob)
            return self._open[blob]


def _imported(blob: Path, names: Mapping[str, Sequence[str]], threads: int, precision: Precision) -> Opened:
    """A blob mapped and imported. Raises EngineStale, OutOfMemory."""
    import openvino

    try:
        # Mapped for writing, which the bindings ask for; nothing that were written would reach the file.
        mapped = np.memmap(blob, np.uint8, mode="c")
        tensor = openvino.Tensor(mapped, shared_memory=True)
        model = openvino.Core().import_model(tensor, "CPU", settings(precision, threads))
    except Exception as error:  # RuntimeError and several classes of the bindings
        raise failure(f"{blob.name}: openvino refuses it; {_AGAIN}", error, EngineStale) from error
    return model, names, (mapped, tensor)


@contextmanager
def _shorter(
    model: Any, folder: Path, precision: Precision
) -> Iterator[tuple[Callable[[], Any], dict[str, list[str]]]]:
    """A way to read the model again and again, folded and with weights as the precision wants them."""
    import openvino

    names = names_of(model)  # before it is compiled: see _openvino.compiled
    with tempfile.TemporaryDirectory(dir=folder) as place:
        written = Path(place) / "model.xml"
        openvino.save_model(unpacked(model), written, compress_to_fp16=precision != "fp32")
        yield lambda: openvino.Core().read_model(str(written)), names


def _key(shapes: Mapping[str, Sequence[int]]) -> Shapes:
    return tuple(sorted((name, tuple(shape)) for name, shape in shapes.items()))


def _mark(shapes: Dimensions) -> str:
    """A fixed shape in a file's name: the first input's sides, of the one with the most."""
    longest = max(shapes.values(), key=len)
    return "-" + "x".join(map(str, longest))


def _written(specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]]:
    return {name: [spec.dtype, list(spec.shape)] for name, spec in specs.items()}


def _read(specs: Mapping[str, tuple[str, Sequence[int | str]]]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(dtype, tuple(shape)) for name, (dtype, shape) in specs.items()}
