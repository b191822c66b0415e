"""Compiling a pack ahead of time: each graph by its provider, held to float32, and written into engines.json.

An engine is made in a folder of its own and takes its place once it is proved: a compilation that fails or is
stopped leaves the engines as they were. Knows no provider's format.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faceavatar.backends import Platform, Session, compile_graph, open_engine
from faceavatar.buckets import PictureShape, bucket_of
from faceavatar.engines import FOLDER, Engine, EngineFile, Engines
from faceavatar.errors import EngineStale, PackInvalid
from faceavatar.opening import CPU_PROVIDERS, Asked, Opening, here, roles_for
from faceavatar.pack import Pack, stored_precision
from faceavatar.parity import GraphError, graph_errors
from faceavatar.stamps import sha256

# Those that a fixed shape makes faster on a processor; the others are small, or have one shape.
SHAPED_ROLES = frozenset({"unet", "vae_decoder"})
_BENCH = ".compiling-"
Say = Callable[[str], object]


@dataclass(frozen=True)
class Compiled:
    """What compile_pack made: the engines, and how far each strays from float32."""

    folder: Path
    engines: tuple[Engine, ...]
    errors: tuple[GraphError, ...]


def compile_pack(
    opening: Opening, shapes: Sequence[PictureShape] = (), into: Path | None = None, say: Say = lambda _: None
) -> Compiled:
    """Compile every graph of a pack for opening's provider and precision.

    shapes: the pictures that will be drawn; none where the provider takes any. into: the folder, by default
    `engines` in the pack's own. say: told of each graph.
    Raises ProviderUnavailable where the provider compiles nothing, PackInvalid for a folder that cannot be
    written or an engine that strays too far, and what opening a graph raises.
    """
    folder = (opening.pack.folder / FOLDER if into is None else into.expanduser()).absolute()
    made, errors, platform = [], [], here(opening.provider)
    known, asked = _existing(folder, opening.pack), tuple(str(shape) for shape in shapes)
    with _workshop(folder) as bench:
        for role in roles_for(opening.pack, opening.provider):
            say(f"compiling {role}")
            wanted = shapes if opening.provider not in CPU_PROVIDERS or role in SHAPED_ROLES else ()
            engine = _compile(opening, role, wanted, bench, platform, asked)
            (error,) = graph_errors(opening, (role,), partial(_open, opening, engine, bench), wanted)
            if error.problem is not None:
                raise PackInvalid(f"{opening.pack.name}: {error.problem}; nothing was written")
            say(f"{role}: {error.precision}, {error.error:.1e} away from fp32")
            made.append(engine)
            errors.append(error)
        for engine in made:
            for entry in engine.files:
                os.replace(bench / entry.file, folder / entry.file)
    now = known.with_entries(made)
    now.write()
    _sweep(known, now)
    return Compiled(folder, tuple(made), tuple(errors))


def _compile(
    opening: Opening,
    role: str,
    shapes: Sequence[PictureShape],
    bench: Path,
    platform: Platform,
    asked: tuple[str, ...],
) -> Engine:
    pack, provider = opening.pack, opening.provider
    stored = stored_precision(pack.graph(role))
    computed = opening.precision_of(role) or stored
    sources = pack.sources(role, provider)
    buckets = [bucket_of(pack.manifest, role, shape) for shape in shapes]
    mark = hashlib.sha256(repr((platform.device, platform.driver)).encode()).hexdigest()[:8]
    target = bench / f"{role}-{provider}-{computed}-{mark}"
    files = compile_graph(
        *(pack.file(sources[0]), target, provider, opening.threads, computed, buckets, stored)
    )
    return Engine(
        role=role,
        provider=provider,
        precision=computed,
        asked=_typed(opening.precision),
        shapes=asked,
        files=tuple(
            EngineFile(file=path.name, sha256=sha256(path), size=path.stat().st_size) for path in files
        ),
        graph=pack.source_hashes(role, provider),
        device=platform.device,
        driver=platform.driver,
        versions=dict(platform.versions),
    )


def _open(opening: Opening, engine: Engine, bench: Path, role: str) -> Session:
    pack = opening.pack
    path = pack.file(pack.sources(role, opening.provider)[0])
    precision = opening.precision_of(role) or stored_precision(pack.graph(role))
    files = [bench / entry.file for entry in engine.files]
    return pack.held(role, open_engine(files, path, opening.provider, opening.threads, precision))


def _typed(precision: Asked) -> str | None:
    """A precision as it is typed on a command line."""
    if precision is None or isinstance(precision, str):
        return precision
    return ",".join(f"{role}={name}" for role, name in precision.items())


def _existing(folder: Path, pack: Pack) -> Engines:
    """The engines that are there already. Those of another schema give way, those of another pack do not."""
    try:
        known = Engines.read(folder, pack.name, pack.found)
    except EngineStale:
        known = None
    return Engines(folder, pack.name, (), pack.found) if known is None else known


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder inside the folder, gone at the end: what is finished is moved out of it.

    One that a compilation left, whose process was killed, goes too: it may hold gigabytes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_BENCH}*"):
            if not _lives(left.name.removeprefix(_BENCH).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        bench = Path(tempfile.mkdtemp(prefix=f"{_BENCH}{os.getpid()}-", dir=folder))
    except OSError as error:
        raise PackInvalid(
            f"{folder}: cannot be written ({error.strerror}); choose another with --into"
        ) from error
    try:
        yield bench
    finally:
        shutil.rmtree(bench, ignore_errors=True)


def _lives(number: str) -> bool:
    """Whether a process of this number is there, as far as this one may know."""
    if sys.platform == "win32":
        return True  # there signal 0 is Ctrl-C
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        return True
    return True


def _sweep(before: Engines, now: Engines) -> None:
    """Remove the files of engines that others took the place of."""
    used = {entry.file for engine in now.entries for entry in engine.files}
    for engine in before.entries:
        for entry in engine.files:
            if entry.file not in used:
                (before.folder / entry.file).unlink(missing_ok=True)
