"""The manifest's writer: what it writes is true of the files, and the engine accepts it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from faceavatar.errors import HashMismatch
from faceavatar.manifest import SCHEMA_VERSION
from faceavatar.pack import Pack
from faceavatar_export import pack_writer
from faceavatar_export.pack_writer import Provenance, describe_file, write_manifest

HEAD = ("name", "version", "family", "description")
TAIL = ("text", "scheduler", "latents", "sizes", "face", "matting", "defaults")
APACHE = Provenance("Apache-2.0", "the tests")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A pack whose manifest was thrown away and written anew from its files."""
    copy = tmp_path / "pack"
    shutil.copytree(tiny, copy)
    old = json.loads((copy / "pack.json").read_text())
    (copy / "pack.json").unlink()
    write_manifest(
        copy,
        {key: old[key] for key in HEAD if key in old},
        {role: (graph["file"], "fp32") for role, graph in old["graphs"].items()},
        dict.fromkeys(old["files"], APACHE),
        {key: old[key] for key in TAIL if key in old},
    )
    return copy


@pytest.fixture
def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "pack.json").read_text())
    return found


def test_the_engine_accepts_what_is_written(folder: Path) -> None:
    pack = Pack.load(folder)
    assert pack.changed_files() == []
    for role in pack.manifest.graphs:
        assert pack.open(role, "cpu").provider == "cpu"  # opening holds the graph to its signature


def test_hashes_sizes_and_licences_are_those_of_the_files(folder: Path, manifest: dict[str, Any]) -> None:
    assert set(manifest["files"]) == {file.name for file in folder.iterdir()} - {"pack.json"}
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "license": "Apache-2.0",
            "attribution": "the tests",
        }
        assert describe_file(folder / name, APACHE) == entry


def test_signatures_are_read_from_the_graphs(tiny: Path, manifest: dict[str, Any]) -> None:
    old = json.loads((tiny / "pack.json").read_text())
    for role, graph in manifest["graphs"].items():
        assert graph["inputs"] == old["graphs"][role]["inputs"]
        assert graph["outputs"] == old["graphs"][role]["outputs"]


def test_the_schema_is_the_one_that_the_engine_reads(manifest: dict[str, Any]) -> None:
    assert manifest["schema_version"] == pack_writer.SCHEMA_VERSION == SCHEMA_VERSION


def test_a_file_changed_after_writing_is_found(folder: Path) -> None:
    with (folder / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(HashMismatch, match=r"tokenizer\.json"):
        Pack.load(folder)
