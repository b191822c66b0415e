"""The proof once more: a pack that exists, against the checkpoint it was made of.

Writes nothing. Knows what a pack says of its own making; the proof itself is export's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar.pack import MANIFEST, Pack
from faceavatar_export.diffusion.export import (
    Say,
    draw_references,
    open_parts,
    prove,
    read_inputs,
)
from faceavatar_export.diffusion.graphs_of import graph_plans
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import FUSED_PROVIDER, graph_error, proof_provider


def prove_again(options: Options, say: Say) -> dict[str, Any]:
    """The parity report of the pack in options.out against options.source and the other parts named there.

    Precision and guidance are the pack's own. Raises InvalidRequest for parts that are not those the pack
    says it was made of, PackInvalid and its kin for a damaged pack or one that was not exported.
    """
    pack = Pack.load(options.out)
    made = _made(pack, options)
    options = replace(
        options,
        precision=made["precision"],
        guidance_scale=pack.manifest.defaults.guidance_scale,
        vae_encoder="vae_encoder" in pack.manifest.graphs,
    )
    folder, adapter, image_encoder = read_inputs(options)
    references = draw_references(options, folder, adapter, image_encoder, say)
    checkpoint = open_parts(options, folder)
    graphs: dict[str, dict[str, Any]] = {}
    for plan in graph_plans(checkpoint, adapter, image_encoder, options.precision, options.vae_encoder):
        graph, provider = pack.graph(plan.role), proof_provider(options.precision)
        error = graph_error(plan, pack.file(graph.file), provider)
        say(f"{plan.role}: {error:.2g} away from torch")
        graphs[plan.role] = {"precision": plan.precision, "relative_error": error}
        if graph.fused is not None:
            error = graph_error(plan, pack.file(graph.fused), FUSED_PROVIDER)
            say(f"{plan.role}, fused: {error:.2g} away from torch")
            graphs[plan.role] |= {"fused": graph.fused, "fused_error": error}
    del checkpoint, image_encoder
    return prove(options, pack.folder, graphs, references, say)


def _made(pack: Pack, options: Options) -> dict[str, Any]:
    """What the manifest says of the export, held to the parts that are given."""
    text = (pack.folder / MANIFEST).read_text(encoding="utf-8")
    made: dict[str, Any] | None = json.loads(text).get("export")
    if not isinstance(made, dict) or "precision" not in made:
        raise PackInvalid(
            f"{pack.name}: was not exported from a checkpoint, so there is nothing to prove again"
        )
    fused = [[Path(lora.path).name, lora.weight] for lora in options.loras]
    if fused != made.get("loras", []):
        wanted = ", ".join(f"{name}:{weight:g}" for name, weight in made.get("loras", [])) or "none"
        got = ", ".join(f"{name}:{weight:g}" for name, weight in fused) or None
        raise InvalidRequest("--lora", got, f"what the pack was made with: {wanted}")
    tiny = made.get("vae_decoder") == "AutoencoderTiny"
    if tiny != (options.reading.tiny_vae is not None):
        raise InvalidRequest(
            "--tiny-vae",
            None if tiny else str(options.reading.tiny_vae),
            f"what the pack was made with: {'a tiny decoder' if tiny else 'the whole VAE'}",
        )
    face = pack.manifest.face
    if (face is None) != (options.face_adapter is None):
        kind = "no face adapter" if face is None else f"a {face.adapter.kind} adapter"
        got = None if options.face_adapter is None else options.face_adapter.name
        raise InvalidRequest("--face-adapter", got, f"what the pack was made with: {kind}")
    return made
