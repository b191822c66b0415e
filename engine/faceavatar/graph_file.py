"""What an ONNX file says of itself, read without ONNX: which further files it wants, which operators it has.

Every runtime follows the paths in a graph's external_data by itself, so they are held to the manifest before
any runtime sees the graph. The file is protobuf (onnx.proto, https://github.com/onnx/onnx); only what is
needed here is read, and weights are stepped over. Does not know packs.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faceavatar.errors import PackInvalid

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
COMPILED = "EPContext"  # holds an engine, or leads to one; engines have a list of their own
_DEEPEST = 64  # graphs in graphs
_LONGEST_NAME = 4096
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
Span = tuple[int, int]

# Message -> field number -> what it holds; fields that are not here are stepped over.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_NODE_OPERATOR, _NODE_DOMAIN, _FUNCTION_DOMAIN = 4, 7, 10
_TEXTS = {"Node": (_NODE_OPERATOR, _NODE_DOMAIN), "Function": (_FUNCTION_DOMAIN,)}


@dataclass(frozen=True)
class Elsewhere:
    """Weights in another file: location as the graph writes it, and bytes `offset`..`offset + length` there;
    length None is all the rest.
    """

    tensor: str
    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class GraphFile:
    """operators: (domain, operator) of every node. functions: domains that the file itself defines."""

    elsewhere: tuple[Elsewhere, ...]
    operators: frozenset[tuple[str, str]]
    functions: frozenset[str]

    @property
    def strange(self) -> list[str]:
        """The operators that neither ONNX nor ONNX Runtime nor the file itself defines."""
        known = DOMAINS | self.functions
        names = (f"{domain}:{operator}" for domain, operator in self.operators if domain not in known)
        return sorted(names)


def read_graph(path: Path) -> GraphFile:
    """Read an ONNX file's structure. Raises PackInvalid for a pickle, an archive or anything else."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).read()
    except (OSError, ValueError, IndexError) as error:
        kind = _kind(path)
        raise PackInvalid(
            f"{path.name}: {kind or 'no ONNX graph'} ({error}), expected ONNX; get the pack anew"
        ) from error


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLES):
        return "a Python pickle, which is never loaded"
    if start == b"PK\x03\x04":
        return "a zip archive, as torch.save writes it, which is never loaded"
    return "an empty file" if not start else None


class _Reader:
    """Walks one file once. Raises ValueError or IndexError where the bytes are no such message."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._elsewhere: list[Elsewhere] = []
        self._operators: set[tuple[str, str]] = set()
        self._functions: set[str] = set()
        self._graphs = 0

    def read(self) -> GraphFile:
        self._walk("Model", (0, len(self._data)), 0)
        if not self._graphs:
            raise ValueError("it has no graph in it")
        return GraphFile(tuple(self._elsewhere), frozenset(self._operators), frozenset(self._functions))

    def _walk(self, message: str, span: Span, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"graphs within graphs, more than {_DEEPEST} deep")
        if message == "Tensor":
            return self._tensor(span)
        self._graphs += message == "Graph"
        inside, texts = _FIELDS[message], dict.fromkeys(_TEXTS.get(message, ()), "")
        for number, place in self._fields(span):
            if number in inside:
                self._walk(inside[number], place, depth + 1)
            elif number in texts:
                texts[number] = self._text(place)
        if message == "Node":
            self._operators.add((texts[_NODE_DOMAIN], texts[_NODE_OPERATOR]))
        elif message == "Function":
            self._functions.add(texts[_FUNCTION_DOMAIN])
        return None

    def _tensor(self, span: Span) -> None:
        name, said = "", dict[str, str]()
        for number, place in self._fields(span):
            if number == _TENSOR_NAME:
                name = self._text(place)
            elif number == _TENSOR_EXTERNAL:
                pair = {part: self._text(where) for part, where in self._fields(place)}
                said[pair.get(1, "")] = pair.get(2, "")
        if said:
            length = int(said["length"]) if "length" in said else None
            found = Elsewhere(name, said.get("location", ""), int(said.get("offset", 0)), length)
            if found.offset < 0 or (length is not None and length < 0):
                raise ValueError(f"the weights {name} begin at {found.offset} and have {length} bytes")
            self._elsewhere.append(found)

    def _fields(self, span: Span) -> Iterator[tuple[int, Span]]:
        """Number and place of each field that has a length; the others are stepped over."""
        at, end = span
        data = self._data
        while at < end:
            key, at = self._varint(at)
            kind = key & 7
            if kind == _BYTES:
                length, at = self._varint(at)
                if at + length > end:
                    raise ValueError(f"a part at byte {at} goes beyond what holds it")
                yield key >> 3, (at, at + length)
                at += length
            elif kind == _VARINT:
                while data[at] & 0x80:
                    at += 1
                at += 1
            elif kind in (_FIXED64, _FIXED32):
                at += 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"byte {at} begins no field")
        if at != end:
            raise ValueError(f"a field goes beyond byte {end}")

    def _varint(self, at: int) -> tuple[int, int]:
        data, byte = self._data, self._data[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift = byte & 0x7F, 7
        while shift < 64:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at + 1
            shift += 7
        raise ValueError(f"a number at byte {at} does not end")

    def _text(self, place: Span) -> str:
        start, end = place
        if end - start > _LONGEST_NAME:
            raise ValueError(f"a name of {end - start} bytes")
        return self._data[start:end].decode("utf-8")
