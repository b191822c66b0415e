"""Writes pack.json beside the graphs: hashes, sizes and signatures are read from the files, not typed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from faceavatar_export.graphs import signature

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Provenance:
    """Under which licence a file may be used, and whom to name."""

    license: str
    attribution: str


def describe_file(path: Path, provenance: Provenance) -> dict[str, object]:
    """The manifest's entry of one file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "sha256": digest,
        "size": path.stat().st_size,
        "license": provenance.license,
        "attribution": provenance.attribution,
    }


def write_manifest(
    folder: Path,
    head: Mapping[str, object],
    graphs: Mapping[str, tuple[str, str]],
    files: Mapping[str, Provenance],
    tail: Mapping[str, object],
    fused: Mapping[str, str] | None = None,
) -> None:
    """Writes FOLDER/pack.json.

    `head` holds name, version, family, description; `graphs` maps a role to (file, precision); `files` names
    every file of the pack; `tail` holds text, scheduler, latents, sizes, face, matting, defaults and what
    else the pack declares. `fused` maps some roles to their second file, with ONNX Runtime's operators.
    """
    described: dict[str, dict[str, object]] = {}
    for role, (file, precision) in graphs.items():
        inputs, outputs = signature(folder / file)
        described[role] = {"file": file, "precision": precision, "inputs": inputs, "outputs": outputs}
    for role, file in (fused or {}).items():
        described[role]["fused"] = file
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **head,
        "files": {name: describe_file(folder / name, provenance) for name, provenance in files.items()},
        "graphs": described,
        **tail,
    }
    (folder / "pack.json").write_text(json.dumps(manifest, indent=1) + "\n")
