"""A checkpoint becomes a pack: reference pictures, graphs, manifest, proof, and only then the folder.

Knows the order of the work; what each step does is said in its own room.
"""

from __future__ import annotations

import gc
import json
import platform
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from faceavatar import AvatarEngine
from faceavatar.backends import resolve_provider
from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar.manifest import Recogniser
from faceavatar.parity import TOLERANCES
from faceavatar_export.diffusion.checkpoint import (
    Checkpoint,
    find_source,
    open_checkpoint,
)
from faceavatar_export.diffusion.face_adapter import FaceAdapterFile, read_face_adapter
from faceavatar_export.diffusion.graphs_of import GraphPlan, graph_plans
from faceavatar_export.diffusion.instantid import SCALE, check_parts, with_controlnet
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.pack_of import CROPS, PACKAGES, write_pack
from faceavatar_export.diffusion.proof import (
    FUSED_PROVIDER,
    GRAPH_BOUNDS,
    Case,
    Face,
    compare,
    engine_pictures,
    graph_error,
    make_face,
    misses,
    proof_cases,
    proof_provider,
    reference_pictures,
)
from faceavatar_export.diffusion.proof_photo import STRENGTH
from faceavatar_export.diffusion.schedule import Sampling, read_sampling
from faceavatar_export.diffusion.via_optimum import add_cross_check, find_optimum
from faceavatar_export.face_models import (
    check_face_source,
    open_face_models,
)
from faceavatar_export.face_models import prove as prove_face_models
from faceavatar_export.fuse import FUSED_ROLES, UNPROVABLE, write_fused
from faceavatar_export.graphs import BF16_OPSET, OPSET, export_graph, store_weights_as_int8

PARITY = "parity.json"
EXAMPLE_SHAPE = (2, 13, 11)
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class References:
    """What diffusers drew, uint8 (B, H, W, 3) a case, and what it was told."""

    sampling: Sampling
    cases: list[Case]
    face: Face | None
    pictures: list[Any]


def export_pack(options: Options, say: Say) -> dict[str, Any]:
    """Write the pack and give its parity report. Raises InvalidRequest; PackInvalid for a failed proof."""
    check_face_source(options.faces, options.face_adapter is not None)
    with TemporaryDirectory(prefix="faceavatar-") as scratch:
        return _export_pack(options, Path(scratch), say)


def _export_pack(options: Options, scratch: Path, say: Say) -> dict[str, Any]:
    started = time.monotonic()
    if options.out.exists():
        raise InvalidRequest("--out", str(options.out), "a folder that does not exist yet")
    optimum = find_optimum(options.optimum_python) if options.via == "optimum" else None
    folder, adapter, image_encoder = read_inputs(options)
    faces = open_face_models(options.faces, 0 if adapter is None else adapter.embedding_size, scratch, say)
    references = draw_references(options, folder, adapter, image_encoder, say)
    draft = options.out.with_name(f".{options.out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        checkpoint = open_parts(options, folder)
        graphs = _write_graphs(options, checkpoint, adapter, image_encoder, draft, say)
        write_pack(options, checkpoint, adapter, image_encoder, faces, references.sampling, graphs, draft)
        del checkpoint, image_encoder
        gc.collect()
        report = prove(options, draft, graphs, references, say)
        if optimum is not None:
            fresh = open_checkpoint(folder, options.loras, options.reading)
            report = add_cross_check(report, optimum, fresh, draft, adapter is not None, say)
        report |= {"seconds": round(time.monotonic() - started, 1), "peak_memory_gb": _peak_gb()}
        (draft / PARITY).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        if report["misses"] and not options.force:
            raise PackInvalid(
                f"{options.name}: {'; '.join(report['misses'])}; nothing was written (--force does)"
            )
        draft.rename(options.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def draw_references(
    options: Options, folder: Path, adapter: FaceAdapterFile | None, image_encoder: Any, say: Say
) -> References:
    """The proof's cases as diffusers draws them, from a checkpoint that is dropped afterwards."""
    checkpoint = open_parts(options, folder)
    told = checkpoint.pipeline.unet.config.time_cond_proj_dim is not None
    sampling = read_sampling(checkpoint.pipeline.scheduler, checkpoint.family, told)
    for warning in sampling.warnings:
        say(f"warning: {warning}")
    guidance = sampling.guidance_scale if options.guidance_scale is None else options.guidance_scale
    control = None if options.controlnet is None else SCALE
    # diffusers has no image-to-image of InstantID's arithmetic to hold a ControlNet's pack to.
    strength = STRENGTH if options.vae_encoder and control is None else None
    cases = proof_cases(
        *(options.proof_sizes, guidance, options.proof_steps, sampling.name, control, strength)
    )
    face = make_face(adapter, CROPS.get(checkpoint.family, 224))
    say(f"drawing {len(cases)} reference pictures with diffusers")
    pictures = reference_pictures(checkpoint, adapter, image_encoder, face, cases, sampling.schedule)
    del checkpoint  # its modules carry the adapter now; fresh ones are exported
    gc.collect()
    return References(sampling, cases, face, pictures)


def open_parts(options: Options, folder: Path) -> Checkpoint:
    """The checkpoint with all that the options put into it, fresh."""
    checkpoint = open_checkpoint(folder, options.loras, options.reading)
    return with_controlnet(checkpoint, options.controlnet)


def read_inputs(options: Options) -> tuple[Path, FaceAdapterFile | None, Any]:
    """What is read before anything is worked on, so that what cannot do is refused at once."""
    resolve_provider(proof_provider(options.precision))  # bf16's may not be installed
    folder = find_source(options.source)
    if options.face_adapter is None:
        if options.image_encoder is not None:
            raise InvalidRequest(
                "--image-encoder", str(options.image_encoder), "nothing without --face-adapter"
            )
        check_parts(None, options.controlnet)
        return folder, None, None
    adapter = read_face_adapter(options.face_adapter, options.face_adapter_kind)
    check_parts(adapter, options.controlnet)
    if not adapter.sees_image:
        return folder, adapter, None
    if options.image_encoder is None:
        raise InvalidRequest(
            "--image-encoder",
            None,
            f"the folder of the CLIP vision model that {adapter.kind} was trained with",
        )
    from transformers import CLIPVisionModelWithProjection

    encoder = CLIPVisionModelWithProjection.from_pretrained(options.image_encoder, local_files_only=True)
    return folder, adapter, encoder.eval().float()


def _write_graphs(
    options: Options,
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    draft: Path,
    say: Say,
) -> dict[str, dict[str, Any]]:
    """Export every graph and hold it to its torch module; gives precision and error by role."""
    reports: dict[str, dict[str, Any]] = {}
    for plan in graph_plans(checkpoint, adapter, image_encoder, options.precision, options.vae_encoder):
        path = draft / f"{plan.role}.onnx"
        _export(plan, path)
        error = graph_error(plan, path, proof_provider(options.precision))
        say(f"{plan.role}: {error:.2g} away from torch")
        reports[plan.role] = {"precision": plan.precision, "relative_error": error}
        if plan.role in FUSED_ROLES and plan.precision != UNPROVABLE:
            reports[plan.role] |= _write_fused(plan, path, say)
    return reports


def _write_fused(plan: GraphPlan, path: Path, say: Say) -> dict[str, Any]:
    """The graph's second skeleton, held to the same torch module; nothing where it has no attention."""
    fused = write_fused(path)
    if fused is None:
        return {}
    error = graph_error(plan, fused, FUSED_PROVIDER)
    say(f"{plan.role}, fused: {error:.2g} away from torch")
    return {"fused": fused.name, "fused_error": error}


def _export(plan: GraphPlan, path: Path) -> None:
    example = plan.example(torch.Generator().manual_seed(0), EXAMPLE_SHAPE)
    export_graph(
        *(plan.module, example, plan.outputs, plan.axes, path, plan.output_axes),
        external_data=True,
        opset=BF16_OPSET if plan.precision == "bf16" else OPSET,
    )
    if plan.precision == "int8":
        store_weights_as_int8(path, external_data=True)


def prove(
    options: Options, folder: Path, graphs: dict[str, dict[str, Any]], references: References, say: Say
) -> dict[str, Any]:
    """The parity report of the pack in a folder: graphs' errors, pictures, and what misses its bound."""
    cases = references.cases
    say(f"drawing {len(cases)} pictures with the pack")
    engine = AvatarEngine.load(
        folder,
        provider=proof_provider(options.precision),
        precision="fp16" if options.precision == "fp16" else None,
    )
    rows = compare(cases, engine_pictures(engine, references.face, cases), references.pictures)
    for row in rows:
        say(
            f"{row['width']}x{row['height']}, batch {row['batch']}: {row['max_difference']}/255 off"
            + ("" if row["psnr"] is None else f", {row['psnr']} dB")
        )
    face = engine.pack.manifest.face
    insight = face is not None and isinstance(face.encoder, Recogniser)
    seen = prove_face_models(engine) if insight else None
    if seen is not None and not seen["misses"]:
        say(f"the face in a photo: {seen['landmarks']:.2g} pixels away from insightface's")
    return {
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in PACKAGES},
        "graphs": graphs,
        "tolerances": {name: GRAPH_BOUNDS[name] for name in TOLERANCES},
        "pipeline": rows,
        **({} if seen is None else {"faces": seen}),
        "misses": [*misses(options.precision, graphs, rows), *(seen["misses"] if seen else [])],
    }


def _peak_gb() -> float:
    """The largest resident memory of this process so far, in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
