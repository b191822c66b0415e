"""A pack: a folder with pack.json, ONNX graphs and the small files beside them.

Knows the manifest, where packs live, how to check their files, and how to open a graph and hold it to its
signature. Does not know what the graphs compute or in which order they run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from faceavatar.backends import PRECISIONS, Bucket, Precision, Session, TensorSpec, open_session
from faceavatar.errors import (
    HashMismatch,
    MissingGraph,
    PackError,
    PackInvalid,
    PackNotFound,
    SignatureMismatch,
)
from faceavatar.manifest import Graph, Manifest, read_manifest
from faceavatar.stamps import sha256, stamped_sha256

EMBEDDED = Path(__file__).parent / "packs"
SEARCH_VARIABLE = "FACEAVATAR_PACKS"
MANIFEST = "pack.json"


@dataclass(frozen=True)
class Pack:
    """A pack whose manifest was read and whose files were found. `folder` is absolute."""

    folder: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: Path, check_hashes: bool = True) -> Pack:
        """Read and check the pack in a folder; opens no graph.

        check_hashes: hold every file to its sha256. One that was hashed before and has not been touched since
        (stamps.py) is not read again; `verify` reads all.
        Raises PackNotFound without a pack.json, PackInvalid for a manifest that cannot be used, MissingGraph
        for an absent file and HashMismatch for a changed one.
        """
        folder = folder.resolve()
        path = folder / MANIFEST
        if not path.is_file():
            raise PackNotFound(f"{folder}: no {MANIFEST} in this folder; a pack is a folder that holds one")
        pack = cls(folder, read_manifest(path))
        for name in pack.manifest.files:
            if not pack.file(name).is_file():
                raise MissingGraph(f"{pack.name}: the file {name} is missing from {folder}; install it again")
        if check_hashes:
            problems = pack.changed_files(stamps=True)
            if problems:
                raise HashMismatch(f"{pack.name}: {problems[0]}; install the pack again")
        return pack

    @property
    def name(self) -> str:
        return self.manifest.name

    def file(self, name: str) -> Path:
        """The path of one of the pack's files. Raises PackInvalid when it would lie outside the folder."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise PackInvalid(f"{self.name}: the file {name!r} lies outside the pack's folder {self.folder}")
        return path

    def changed_files(self, stamps: bool = False) -> list[str]:
        """One line for each file whose sha256 is not the manifest's.

        stamps: files that are as they were when they were hashed last are not read again.
        """
        names, digest = list(self.manifest.files), stamped_sha256 if stamps else sha256
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda name: digest(self.file(name)), names)
        wanted = [self.manifest.files[name].sha256 for name in names]
        return [
            f"the file {name} has sha256 {got}, expected {want}"
            for name, got, want in zip(names, found, wanted, strict=True)
            if got != want
        ]

    def graph(self, role: str) -> Graph:
        """The manifest's entry of a role. Raises MissingGraph when the pack has none."""
        try:
            return self.manifest.graphs[role]
        except KeyError:
            has = ", ".join(self.manifest.graphs)
            raise MissingGraph(f"{self.name}: this pack has no {role} graph, only {has}") from None

    def open(
        self,
        role: str,
        provider: str,
        threads: int | None = None,
        precision: Precision | None = None,
        shapes: Sequence[Bucket] | None = None,
        record: bool = False,
    ) -> Session:
        """Open the graph of a role, as its provider runs it best, and hold it to the manifest's signature.

        Raises MissingGraph, SignatureMismatch, and what backends.open_session raises.
        """
        path, stored = self.file(self.sources(role, provider)[0]), stored_precision(self.graph(role))
        return self.held(role, open_session(path, provider, threads, precision, shapes, stored, record))

    def sources(self, role: str, provider: str) -> list[str]:
        """The names of the files that a provider runs a role from: the graph, then its weights beside it."""
        graph = self.graph(role)
        own, shared = f"{graph.file}.data", f"{self.graph('unet').file}.data"
        weights = shared if role == "unet_step" and own not in self.manifest.files else own
        return [graph.file_for(provider), *([weights] if weights in self.manifest.files else [])]

    def held(self, role: str, session: Session) -> Session:
        """The session, once it has the role's signature. Raises SignatureMismatch."""
        graph = self.graph(role)
        for side, stated, real in (
            ("input", graph.inputs, session.inputs),
            ("output", graph.outputs, session.outputs),
        ):
            wanted = {name: TensorSpec(tensor.dtype, tensor.shape) for name, tensor in stated.items()}
            problem = _difference(side, wanted, real)
            if problem is not None:
                raise SignatureMismatch(f"{self.name}: {role} ({graph.file}): {problem}; export it again")
        return session

    def open_fp32(self, role: str, provider: str, threads: int | None = None) -> Session:
        """The graph of a role in fp32: the file that the pack has of it, or its own graph computed so.

        Raises ProviderUnavailable where there is neither, SignatureMismatch, and what Pack.open raises.
        """
        graph = self.graph(role)
        if graph.fp32 is None:
            return self.open(role, provider, threads, "fp32")
        session = open_session(self.file(graph.fp32), provider, threads)
        for side, stated, real in (
            ("inputs", graph.inputs, session.inputs),
            ("outputs", graph.outputs, session.outputs),
        ):
            if stated.keys() != real.keys():
                raise SignatureMismatch(
                    f"{self.name}: {role} ({graph.fp32}): {side} are {', '.join(real)}, expected "
                    f"{', '.join(stated)}; export it again"
                )
        return session


@dataclass(frozen=True)
class PackListing:
    """A pack found on the search path; `problem` says why it cannot be used, `pack` is None then."""

    name: str
    folder: Path
    pack: Pack | None
    problem: str | None


def find_pack(name: str | os.PathLike[str]) -> Path:
    """The folder of a pack, given its name or a path to it.

    Looks for an embedded pack, then in each folder of FACEAVATAR_PACKS, then takes the name as a path.
    Raises PackNotFound.
    """
    text = os.fspath(name)
    plain = text not in {"", ".", ".."} and Path(text).name == text
    candidates = [root / text for root in _roots()] if plain else []
    for folder in [*candidates, Path(text).expanduser()]:
        if text and (folder / MANIFEST).is_file():
            return folder.resolve()
    known = ", ".join(sorted({folder.name for folder in _folders()})) or "none"
    raise PackNotFound(
        f"no pack called {text!r}, and no folder of that path holds a {MANIFEST}; packs found: {known}; "
        f"name one of them, give a pack's folder, or set {SEARCH_VARIABLE} to the folder that holds yours"
    )


def list_packs() -> list[PackListing]:
    """All packs on the search path, embedded ones first. A broken pack is listed with its problem."""
    listings = []
    for folder in _folders():
        try:
            pack = Pack.load(folder, check_hashes=False)
            listings.append(PackListing(pack.name, folder, pack, None))
        except PackError as error:
            listings.append(PackListing(folder.name, folder, None, str(error)))
    return listings


def verify(pack: Pack, provider: str = "cpu", threads: int | None = None) -> list[str]:
    """Check every file's hash and every graph's signature: a line for each problem, none when all is well."""
    problems = pack.changed_files()
    for role in pack.manifest.graphs:
        try:
            pack.open(role, provider, threads)
        except PackError as error:
            problems.append(str(error))
    return problems


def stored_precision(graph: Graph) -> Precision:
    """What a graph's own nodes compute in; weights stored as int8 are widened to float32 before."""
    return next((name for name in PRECISIONS if graph.precision.startswith(name)), "fp32")


def _roots() -> list[Path]:
    extra = os.environ.get(SEARCH_VARIABLE, "")
    return [EMBEDDED, *(Path(part).expanduser() for part in extra.split(os.pathsep) if part)]


def _folders() -> list[Path]:
    return [path.parent for root in _roots() for path in sorted(root.glob(f"*/{MANIFEST}"))]


def _difference(side: str, wanted: Mapping[str, TensorSpec], real: Mapping[str, TensorSpec]) -> str | None:
    if wanted.keys() != real.keys():
        return f"{side}s are {', '.join(real)}, expected {', '.join(wanted)}"
    for name, want in wanted.items():
        got = real[name]
        if want.dtype != got.dtype or not _fits(want.shape, got.shape):
            return f"{side} {name} is {got}, expected {want}"
    return None


def _fits(want: tuple[int | str, ...], got: tuple[int | str, ...]) -> bool:
    """A side that varies in the graph fits any; a fixed one must be stated, and equal."""
    return len(want) == len(got) and all(isinstance(b, str) or a == b for a, b in zip(want, got, strict=True))
