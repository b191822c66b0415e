"""A pack: a folder with pack.json, ONNX graphs and the small files beside them.

Knows the manifest, where packs live, how to check their files, and how to open a graph and hold it to its
signature. Does not know what the graphs compute or in which order they run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from faceavatar.backends import PRECISIONS, Bucket, Precision, Session, TensorSpec, open_session
from faceavatar.contradictions import contradictions
from faceavatar.errors import (
    HashMismatch,
    MissingGraph,
    PackError,
    PackInvalid,
    PackNotFound,
    SignatureMismatch,
)
from faceavatar.graph_file import COMPILED, Elsewhere, read_graph
from faceavatar.manifest import Graph, Manifest, read_manifest
from faceavatar.stamps import sha256, stamped_sha256

EMBEDDED = Path(__file__).parent / "packs"
SEARCH_VARIABLE = "FACEAVATAR_PACKS"
MANIFEST = "pack.json"


# Graphs cut from others or built around them, on the same file of weights.
_SHARE_WEIGHTS = {"unet_step": "unet", "vae_decoder_low": "vae_decoder", "vae_decoder_tile": "vae_decoder"}


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
        pack = cls.read(folder)
        problem = next(pack.problems(stamped_sha256 if check_hashes else None), None)
        if problem is not None:
            raise problem
        return pack

    @classmethod
    def read(cls, folder: Path) -> Pack:
        """The pack in a folder with its manifest read and checked, and none of its other files looked at.

        Raises PackNotFound without a pack.json, and what read_manifest raises.
        """
        folder = folder.resolve()
        path = folder / MANIFEST
        if not path.is_file():
            raise PackNotFound(f"{folder}: no {MANIFEST} in this folder; a pack is a folder that holds one")
        return cls(folder, read_manifest(path))

    def problems(self, digest: Callable[[Path], str] | None = sha256) -> Iterator[PackError]:
        """All that is wrong with the pack, as far as it shows without opening a graph.

        digest: how files are hashed, None where they are not. Files first: they are there, inside the folder,
        unchanged; then the graphs in them: ONNX, with no weights and no operators from elsewhere; then the
        manifest's statements on shapes.
        """
        present = []
        for name in self.manifest.files:
            try:
                if self.file(name).is_file():
                    present.append(name)
                else:
                    words = f"the file {name} is missing from {self.folder}; install it again"
                    yield MissingGraph(f"{self.name}: {words}")
            except PackInvalid as error:
                yield error
        if digest is not None:
            for problem in self.changed_files(digest, present):
                yield HashMismatch(f"{self.name}: {problem}; install the pack again")
        for name in self.manifest.runnable:
            if name in present:
                yield from self._graph_problems(name)
        for words in contradictions(self.manifest):
            yield SignatureMismatch(f"{self.name}: {words}; export the pack again")

    def fit(self, name: str) -> bool:
        """Whether a file may be handed to a runtime: it is there, and an ONNX file leads nowhere else."""
        try:
            there = self.file(name).is_file()
        except PackInvalid:
            return False
        return there and not (name in self.manifest.runnable and any(self._graph_problems(name)))

    def _graph_problems(self, name: str) -> Iterator[PackError]:
        """What is wrong with one ONNX file: it is none, or it leads to what the manifest does not list."""
        try:
            graph = read_graph(self.file(name))
        except PackInvalid as error:
            yield PackInvalid(f"{self.name}: {error}")
            return
        if graph.strange:
            operators = f"{name} has operators that no runtime here knows: {', '.join(graph.strange[:5])}"
            yield PackInvalid(f"{self.name}: {operators}; do not use this pack, or export it again")
        if any(operator == COMPILED for _, operator in graph.operators):
            yield PackInvalid(
                f"{self.name}: {name} holds a compiled engine, expected a graph; compile it here"
            )
        said = set()
        for one in graph.elsewhere:
            problem = self._astray(name, one)
            if problem is not None and problem not in said:
                said.add(problem)
                yield PackInvalid(f"{self.name}: {name}: the weights {one.tensor[:80]!r} {problem}")

    def _astray(self, name: str, one: Elsewhere) -> str | None:
        """Why a graph's weights may not be read from where it says, None where they may."""
        place = str(PurePosixPath(name).parent / one.location)
        if "\\" in one.location or place not in self.manifest.files:
            return f"lie in {one.location[:200]!r}, which the manifest does not list; do not use this pack"
        path = self.file(place)
        size = path.stat().st_size if path.is_file() else 0
        end = one.offset if one.length is None else one.offset + one.length
        return f"end at byte {end} of {place}, which has {size}; get the pack anew" if end > size else None

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def found(self) -> str:
        """What one types for it: its name where it is on the search path, else its folder."""
        on_the_path = any(self.folder == (root / self.name).resolve() for root in _roots())
        return self.name if on_the_path else str(self.folder)

    def file(self, name: str) -> Path:
        """The path of one of the pack's files. Raises PackInvalid when it would lie outside the folder."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            outside = f"the file {name!r} lies outside the pack's folder {self.folder}"
            raise PackInvalid(f"{self.name}: {outside}; put a copy of it there, or get the pack anew")
        return path

    def changed_files(
        self, digest: Callable[[Path], str] = sha256, among: Iterable[str] | None = None
    ) -> list[str]:
        """One line for each file whose sha256 is not the manifest's.

        digest: how a file is hashed; stamped_sha256 does not read again what nobody has touched. among: the
        files to look at, None for all.
        """
        names = list(self.manifest.files if among is None else among)
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
        own, whole = f"{graph.file}.data", _SHARE_WEIGHTS.get(role, role)
        shared = f"{self.graph(whole).file}.data"
        weights = own if own in self.manifest.files else shared
        return [graph.file_for(provider), *([weights] if weights in self.manifest.files else [])]

    def source_hashes(self, role: str, provider: str) -> dict[str, str]:
        """The same with their sha256: what a compiled engine of the role is made of."""
        return {name: self.manifest.files[name].sha256 for name in self.sources(role, provider)}

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
    """Look at everything, files read anew and graphs opened: a line for each problem, none when all is well.

    A graph that is no ONNX, or leads elsewhere, is not opened.
    """
    problems = [str(problem) for problem in pack.problems()]
    for role in pack.manifest.graphs:
        if not all(pack.fit(name) for name in pack.sources(role, provider)):
            continue
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
