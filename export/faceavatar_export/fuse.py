"""A second skeleton beside a graph, with ONNX Runtime's own attention in it, on the same weights' file.

`python -m faceavatar_export.fuse PACK` adds it to a pack that was exported before there was one. Knows files
and packs; the surgery itself is fused_attention's.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from faceavatar.backends import Session, open_session
from faceavatar.errors import FaceAvatarError, PackInvalid
from faceavatar.pack import MANIFEST, Pack
from faceavatar_export.fused_attention import fuse_attention
from faceavatar_export.pack_writer import Provenance, describe_file

# Of the others a text encoder's attention is masked and a small share, the face's nets have none.
FUSED_ROLES = frozenset({"unet", "unet_shallow", "vae_decoder"})
UNPROVABLE = "bf16"  # the provider that runs fused graphs here has no kernels for it
BOUNDS = {"fp16": 2e-2}  # of the fused graph's answer to the plain one's, relative root mean square
BOUND = 1e-4
SIDES = {"batch": 2, "height": 12, "width": 8, "tokens": 77, "face_tokens": 4}
PIXELS = 8  # a latent cell's


def write_fused(path: Path) -> Path | None:
    """Writes NAME.ort.onnx beside NAME.onnx, without weights of its own; None where there is no attention.

    Raises PackInvalid for a graph that holds its weights itself: they would be there twice.
    """
    model = onnx.load(path, load_external_data=False)
    if not any(one.data_location == onnx.TensorProto.EXTERNAL for one in model.graph.initializer):
        raise PackInvalid(f"{path.name}: its weights are inside, expected in a file beside it to be shared")
    if not fuse_attention(model):
        return None
    fused = path.with_suffix(".ort.onnx")
    onnx.save(model, fused)
    return fused


@dataclass(frozen=True)
class Fused:
    """What fuse_pack added: a role, its file, and the relative error between the two graphs' answers."""

    role: str
    file: str
    error: float


def fuse_pack(folder: Path) -> list[Fused]:
    """Adds fused graphs to a finished pack; gives those that it added.

    Each has to answer as the plain one does before the manifest names it. Raises PackInvalid and its kin.
    """
    pack = Pack.load(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    added = []
    for role, graph in pack.manifest.graphs.items():
        if role not in FUSED_ROLES or graph.precision == UNPROVABLE or graph.fused is not None:
            continue
        path = write_fused(pack.file(graph.file))
        if path is None:
            continue
        error = _difference(pack.file(graph.file), path)
        bound = BOUNDS.get(graph.precision, BOUND)
        if not error <= bound:
            path.unlink()
            raise PackInvalid(
                f"{pack.name}: {role}: fused it answers {error:.2g} away from itself, allowed {bound:g}; "
                "the pack is as it was"
            )
        made_of = manifest["files"][graph.file]
        provenance = Provenance(made_of["license"], made_of["attribution"])
        manifest["files"][path.name] = describe_file(path, provenance)
        manifest["graphs"][role]["fused"] = path.name
        added.append(Fused(role, path.name, error))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return added


def _difference(plain: Path, fused: Path) -> float:
    """Root mean square of the difference over that of the plain graph's answer, on random inputs."""
    one = open_session(plain, "cpu")
    feeds = random_feeds(one)
    wanted = one.run(feeds)
    del one  # a large net's weights need not be in memory twice
    got = open_session(fused, "cpu").run(feeds)
    errors = [np.sqrt(np.mean((got[name] - want) ** 2) / np.mean(want**2)) for name, want in wanted.items()]
    return float(max(errors)) if np.isfinite(errors).all() else float("inf")


def random_feeds(session: Session) -> dict[str, NDArray[Any]]:
    """Inputs of the right kind and shape for a unet or a decoder; the same at every call."""
    random = np.random.default_rng(0)
    sides = SIDES | {f"image_{side}": PIXELS * SIDES[side] for side in ("height", "width")}
    feeds: dict[str, NDArray[Any]] = {}
    for name, spec in session.inputs.items():
        shape = [sides.get(side, 1) if isinstance(side, str) else side for side in spec.shape]
        values = random.standard_normal(shape) if name != "timestep" else np.full(shape, 500)
        feeds[name] = values.astype(spec.dtype)
    return feeds


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", type=Path)
    try:
        added = fuse_pack(parser.parse_args().pack)
    except FaceAvatarError as error:
        raise SystemExit(f"error: {error}") from error
    for one in added:
        print(f"{one.file}: {one.error:.2g} away from the plain graph")
    if not added:
        print("nothing to add: this pack has all that can be fused")


if __name__ == "__main__":
    main()
