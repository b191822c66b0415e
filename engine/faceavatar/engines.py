"""Compiled engines: engines.json beside them says what each was made of and for, and which one fits here.

An engine is one role's graph, compiled ahead of time for one provider, precision, device, driver and set of
library versions. It is as trusted as its pack: its files are held to the hashes in engines.json, and it is
taken only while graph, device, driver and versions are those it was made for. Knows no provider's format.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from faceavatar.backends import Platform
from faceavatar.errors import EngineStale, HashMismatch, PackInvalid
from faceavatar.manifest import Part
from faceavatar.stamps import sha256, stamped_sha256
from faceavatar.strict_json import read_json

FOLDER, LIST = "engines", "engines.json"
SCHEMA_VERSION = 1  # goes up when engines are made or opened otherwise than before
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class EngineFile(Part):
    """file: its name in the folder of engines.json."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sha256: Digest
    size: Annotated[int, Field(ge=0)]


class Engine(Part):
    """One entry of engines.json.

    graph: the files that it was made of, by name, and their sha256. asked: the precision that was asked for
    the pack, as on a command line. shapes: the pictures that it was asked for; none where any. versions:
    faceavatar's and those of the libraries.
    """

    role: str
    provider: str
    precision: str
    asked: str | None = None
    shapes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    files: Annotated[tuple[EngineFile, ...], Field(strict=False, min_length=1)]
    graph: dict[str, Digest]
    device: str
    driver: str = ""
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a later compilation takes the place of."""
        return self.role, self.provider, self.precision, self.device


class EngineList(Part):
    """The whole of engines.json."""

    schema_version: int
    pack: str
    engines: Annotated[tuple[Engine, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class Engines:
    """The engines in a folder. `pack` is the name of the pack that they are for, `found` how it is found."""

    folder: Path
    pack: str
    entries: tuple[Engine, ...]
    found: str

    @classmethod
    def read(cls, folder: Path, pack: str, found: str) -> Engines | None:
        """The engines of a pack in a folder, None where it holds no engines.json.

        pack: its name. found: what one types for it, its name or its folder.
        Raises PackInvalid for one that cannot be used or is for another pack, EngineStale for another schema.
        """
        path = folder / LIST
        if not path.is_file():
            return None
        try:
            text, content = read_json(path)
            version = dict(content).get("schema_version")
            if version != SCHEMA_VERSION:
                raise EngineStale(
                    f"{path}: schema_version: got {version!r}, this version reads {SCHEMA_VERSION}; "
                    f"{compile_again(found)}"
                )
            listed = EngineList.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PackInvalid(f"{path}: {place}: {first['msg']}; {compile_again(found)}") from error
        except (OSError, ValueError, TypeError) as error:
            raise PackInvalid(f"{path}: cannot be read as JSON: {error}; {compile_again(found)}") from error
        if listed.pack != pack:
            raise PackInvalid(f"{path}: these engines are for the pack {listed.pack!r}, not {pack!r}")
        return cls(folder.resolve(), pack, listed.engines, found)

    def find(
        self, role: str, provider: str, precision: str, graph: Mapping[str, str], here: Platform
    ) -> Engine | None:
        """The engine of a role that fits, None where none was compiled for this provider and precision.

        graph: the files that it would be made of now, and their sha256. here: this device and its versions.
        Raises EngineStale where there are some and none fits, with what differs.
        """
        wanted = (role, provider, precision)
        made = [one for one in self.entries if (one.role, one.provider, one.precision) == wanted]
        if not made:
            return None
        found = [(differences(one, graph, here), one) for one in made]
        worst, best = min(found, key=lambda pair: len(pair[0]))
        if not worst:
            return best
        again = compile_again(self.found, provider, best.asked, best.shapes, self.folder)
        raise EngineStale(
            f"{self.pack}: the {provider} engine of {role} in {self.folder} does not fit: "
            f'{"; ".join(worst)}; {again}, or run the plain graph with engines="ignore"'
        )

    def files(self, engine: Engine, check_hashes: bool = True) -> list[Path]:
        """The paths of an engine's files, held to their hashes.

        Raises EngineStale for a missing file, HashMismatch for a changed one, PackInvalid for one that lies
        elsewhere.
        """
        problem = next(self.problems(engine, stamped_sha256 if check_hashes else None), None)
        if problem is not None:
            raise problem
        return [self.folder / entry.file for entry in engine.files]

    def problems(
        self, engine: Engine, digest: Callable[[Path], str] | None = sha256
    ) -> Iterator[PackInvalid]:
        """What is wrong with an engine's files; digest: how they are hashed, None for their sizes alone."""
        again = compile_again(self.found, engine.provider, engine.asked, engine.shapes, self.folder)
        for entry in engine.files:
            path = self.folder / entry.file
            if not path.resolve().is_relative_to(self.folder):
                yield PackInvalid(f"{self.pack}: the engine file {entry.file} lies outside {self.folder}")
            elif not path.is_file():
                yield EngineStale(f"{self.pack}: the engine file {entry.file} is missing; {again}")
            elif path.stat().st_size != entry.size or (digest is not None and digest(path) != entry.sha256):
                yield HashMismatch(
                    f"{self.pack}: the engine file {entry.file} is not the one that {LIST} names; {again}"
                )

    def with_entries(self, made: Iterable[Engine]) -> Engines:
        """These, with others in place of those that were made for the same."""
        new = {engine.key: engine for engine in made}
        kept = [engine for engine in self.entries if engine.key not in new]
        return replace(self, entries=(*kept, *new.values()))

    def write(self) -> None:
        """Write engines.json, all at once. Raises OSError."""
        content = EngineList(schema_version=SCHEMA_VERSION, pack=self.pack, engines=self.entries)
        number, half = tempfile.mkstemp(dir=self.folder, suffix=".json")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(content.model_dump_json(indent=1))
        os.chmod(half, 0o644)
        os.replace(half, self.folder / LIST)


def differences(engine: Engine, graph: Mapping[str, str], here: Platform) -> list[str]:
    """What an engine was made for that is otherwise here, each as a few words."""
    said = []
    if engine.graph != dict(graph):
        changed = sorted({*engine.graph.items()} ^ {*graph.items()})
        said.append(f"the graph was changed since ({', '.join(sorted({name for name, _ in changed}))})")
    if engine.device != here.device:
        said.append(f"made for the device {engine.device}, here is {here.device}")
    if engine.driver != here.driver:
        said.append(f"made for the driver {engine.driver or 'none'}, here is {here.driver or 'none'}")
    for name in sorted({*engine.versions, *here.versions}):
        then, now = engine.versions.get(name, "none"), here.versions.get(name, "none")
        if then != now:
            said.append(f"made with {name} {then}, here is {now}")
    return said


def compile_again(
    pack: str,
    provider: str | None = None,
    precision: str | None = None,
    shapes: Iterable[str] = (),
    folder: Path | None = None,
) -> str:
    """The command that makes engines anew, in words."""
    command = f"faceavatar compile {pack}"
    command += f" --provider {provider}" if provider else " --provider PROVIDER"
    command += f" --precision {precision}" if precision else ""
    command += f" --shapes {','.join(shapes)}" if shapes else ""
    inside = folder is None or folder.name == FOLDER
    return f"compile it again ({command}{'' if inside else f' --into {folder}'})"
