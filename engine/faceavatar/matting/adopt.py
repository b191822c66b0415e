"""Gives a pack a matting net: the file beside the other graphs, its signature, licence and use in pack.json.

Works on a pack in a folder of one's own, or on a copy of one that ships with the package.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faceavatar.backends import Session, open_session
from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar.matting.presets import PRESETS, Preset
from faceavatar.pack import EMBEDDED, MANIFEST, Pack

FILE = "matting.onnx"


@dataclass(frozen=True)
class Adoption:
    """license: in place of the preset's. alpha: the output's name, None for the first one.

    agreed: the user's word that a net which is not free for any use may be used by them.
    """

    preset: str
    license: str | None = None
    alpha: str | None = None
    agreed: bool = False

    def checked(self) -> Preset:
        """The preset. Raises InvalidRequest for an unknown one, and for one that wants the user's word."""
        found = PRESETS.get(self.preset)
        if found is None:
            raise InvalidRequest("preset", self.preset, ", ".join(PRESETS))
        if not found.free and not self.agreed:
            raise InvalidRequest(
                "preset",
                self.preset,
                f"with your word alone: {found.attribution} is licensed for non-commercial use "
                f"({found.license}); agree with --non-commercial, or take another preset",
            )
        return found


def adopt(pack: Pack, source: Path, adoption: Adoption, out: Path | None) -> Pack:
    """The pack with the net of an ONNX file as its matting; `out` is a new folder for a copy of it.

    Everything is checked before anything is written. Raises InvalidRequest (preset, out), and PackInvalid for
    a file that is no net of this kind.
    """
    preset = adoption.checked()
    if out is None and pack.folder.is_relative_to(EMBEDDED):
        raise InvalidRequest(
            "out", None, f"a new folder, for {pack.name} ships with the package and is not to be changed"
        )
    if out is not None and out.exists():
        raise InvalidRequest("out", str(out), "a folder that does not exist yet")
    session = open_session(source, "cpu")
    matting, entry = _described(session, source, preset, adoption.alpha)
    content = json.loads((pack.folder / MANIFEST).read_text(encoding="utf-8"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    content["files"][FILE] = {
        "sha256": digest,
        "size": source.stat().st_size,
        "license": adoption.license or preset.license,
        "attribution": preset.attribution,
    }
    content["graphs"]["matting"], content["matting"] = entry, matting
    folder = pack.folder
    if out is not None:
        shutil.copytree(pack.folder, out)
        folder, content["name"] = out, out.name
    _put(folder, source, content)
    return Pack.load(folder)


def _put(folder: Path, source: Path, content: dict[str, Any]) -> None:
    """The net first and the manifest last, each under another name until it is whole."""
    parts = folder / f".{FILE}", folder / f".{MANIFEST}"
    shutil.copyfile(source, parts[0])
    parts[1].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    parts[0].replace(folder / FILE)
    parts[1].replace(folder / MANIFEST)


def _described(
    session: Session, source: Path, preset: Preset, alpha: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest's part `matting` and its graph's entry."""
    inputs, outputs = session.inputs, session.outputs
    name = alpha or next(iter(outputs))
    if name not in outputs:
        raise InvalidRequest("alpha", name, f"an output of {source.name}: {', '.join(outputs)}")
    (image, seen), *others = inputs.items()
    if others or seen.dtype != "float32" or len(seen.shape) != 4 or seen.shape[1] not in (3, "3"):
        shown = ", ".join(f"{key} {value}" for key, value in inputs.items())
        raise PackInvalid(f"{source.name}: inputs are {shown}; expected one float32 picture (B, 3, H, W)")
    sides = [
        side if isinstance(side, int) and side > 0 else preset.side for side in (seen.shape[2], seen.shape[3])
    ]
    mean, std = preset.scale
    matting: dict[str, Any] = {
        "size": sides,
        "mean": list(mean),
        "std": list(std),
        "image": image,
        "alpha": name,
        "answer": preset.answer,
        "spread": preset.spread,
    }
    tensors = {
        side: {key: {"dtype": spec.dtype, "shape": list(spec.shape)} for key, spec in specs.items()}
        for side, specs in (("inputs", inputs), ("outputs", outputs))
    }
    return matting, {"file": FILE, "precision": "fp32", **tensors}
