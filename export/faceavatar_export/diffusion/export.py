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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from faceavatar import AvatarEngine
from faceavatar.backends import resolve_provider
from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.checkpoint import (
    AS_IT_IS,
    Checkpoint,
    Lora,
    Reading,
    find_source,
    open_checkpoint,
)
from faceavatar_export.diffusion.face_adapter import FaceAdapterFile, Kind, read_face_adapter
from faceavatar_export.diffusion.graphs_of import GraphPlan, graph_plans
from faceavatar_export.diffusion.instantid import SCALE, check_parts, with_controlnet
from faceavatar_export.diffusion.proof import (
    Case,
    Face,
    clip_mean_and_std,
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
from faceavatar_export.graphs import BF16_OPSET, OPSET, export_graph, store_weights_as_int8
from faceavatar_export.pack_writer import Provenance, write_manifest

PARITY = "parity.json"
EXAMPLE_SHAPE = (2, 13, 11)
CROPS = {"sdxl": 256}  # FaceID-Plus aligns the face that CLIP sees at 224, on SDXL at 256
PACKAGES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to export and how. proof_sizes: two (height, width) in pixels, multiples of 8.

    vae_encoder: add the graph that `strength` needs. via: "optimum" has optimum-onnx export the checkpoint
    too, with the interpreter optimum_python, as a cross-check.
    """

    source: str
    out: Path
    name: str
    license: str
    face_adapter: Path | None = None
    face_adapter_kind: Kind | None = None
    image_encoder: Path | None = None
    controlnet: Path | None = None
    loras: tuple[Lora, ...] = ()
    reading: Reading = AS_IT_IS
    vae_encoder: bool = False
    precision: str = "fp32"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    proof_sizes: tuple[tuple[int, int], ...] = ((256, 256), (264, 328))
    proof_steps: int = 3
    via: Literal["optimum"] | None = None
    optimum_python: Path | None = None
    force: bool = False


@dataclass(frozen=True, eq=False)
class References:
    """What diffusers drew, uint8 (B, H, W, 3) a case, and what it was told."""

    sampling: Sampling
    cases: list[Case]
    face: Face | None
    pictures: list[Any]


def export_pack(options: Options, say: Say) -> dict[str, Any]:
    """Write the pack and give its parity report. Raises InvalidRequest; PackInvalid for a failed proof."""
    started = time.monotonic()
    if options.out.exists():
        raise InvalidRequest("--out", str(options.out), "a folder that does not exist yet")
    optimum = find_optimum(options.optimum_python) if options.via == "optimum" else None
    folder, adapter, image_encoder = read_inputs(options)
    references = draw_references(options, folder, adapter, image_encoder, say)
    draft = options.out.with_name(f".{options.out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        checkpoint = open_parts(options, folder)
        graphs = _write_graphs(options, checkpoint, adapter, image_encoder, draft, say)
        _write_pack(options, checkpoint, adapter, image_encoder, references.sampling, graphs, draft)
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
    return reports


def _export(plan: GraphPlan, path: Path) -> None:
    example = plan.example(torch.Generator().manual_seed(0), EXAMPLE_SHAPE)
    export_graph(
        *(plan.module, example, plan.outputs, plan.axes, path, plan.output_axes),
        external_data=True,
        opset=BF16_OPSET if plan.precision == "bf16" else OPSET,
    )
    if plan.precision == "int8":
        store_weights_as_int8(path, external_data=True)


def _write_pack(
    options: Options,
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    sampling: Sampling,
    graphs: dict[str, dict[str, Any]],
    draft: Path,
) -> None:
    tokenizer = checkpoint.pipeline.tokenizer
    tokenizer.backend_tokenizer.save(str(draft / "tokenizer.json"))
    licence = Provenance(options.license, f"exported from {Path(options.source).name}")
    files = {path.name: licence for path in sorted(draft.iterdir())}
    if adapter is not None and options.face_adapter is not None:
        for name in ("face_projection.onnx", "face_projection.onnx.data"):
            if name in files:
                files[name] = Provenance(options.license, f"exported from {options.face_adapter.name}")
    if options.controlnet is not None:
        both = f"{licence.attribution}, with {options.controlnet.name}"
        files |= {name: Provenance(options.license, both) for name in files if name.startswith("unet.onnx")}
    write_manifest(
        draft,
        {
            "name": options.name,
            "version": "1.0.0",
            "family": checkpoint.family,
            "description": f"{Path(options.source).name}, {sampling.variant}",
        },
        {role: (f"{role}.onnx", report["precision"]) for role, report in graphs.items()},
        files,
        _tail(options, checkpoint, adapter, image_encoder, sampling, graphs),
    )


def _tail(
    options: Options,
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    sampling: Sampling,
    graphs: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    pipeline, xl = checkpoint.pipeline, checkpoint.family == "sdxl"
    second = pipeline.tokenizer_2 if xl else None
    steps, guidance = options.num_inference_steps, options.guidance_scale
    tail: dict[str, Any] = {
        "text": {
            "tokenizer": "tokenizer.json",
            "max_length": 77,
            "bos_token_id": pipeline.tokenizer.bos_token_id,
            "eos_token_id": pipeline.tokenizer.eos_token_id,
            "pad_token_id": pipeline.tokenizer.pad_token_id,
            "pad_token_id_2": 0 if second is None else second.pad_token_id,
            "zeros_when_unset": bool(xl and pipeline.config.force_zeros_for_empty_prompt),
        },
        "scheduler": {"name": sampling.name, **asdict(sampling.schedule)},
        "latents": {
            "channels": int(checkpoint.vae.config.latent_channels),
            "downsample": 2 ** (len(checkpoint.vae.config.block_out_channels) - 1),
            "scaling_factor": float(checkpoint.vae.config.scaling_factor),
            "shift_factor": float(checkpoint.vae.config.get("shift_factor") or 0.0),
        },
        "sizes": {"native": [], "multiple_of": 8, "policy": "cover"},
        "defaults": {
            "num_inference_steps": sampling.num_inference_steps if steps is None else steps,
            "guidance_scale": sampling.guidance_scale if guidance is None else guidance,
            "scheduler": sampling.name,
            "face_scale": 1.0 if options.controlnet is None else SCALE,
            "controlnet_scale": None if options.controlnet is None else SCALE,
        },
        "export": {
            "variant": sampling.variant,
            "precision": options.precision,
            "errors": {role: report["relative_error"] for role, report in graphs.items()},
            "vae_decoder": type(pipeline.vae).__name__,
            "loras": [[lora.path.name, lora.weight] for lora in options.loras],
            "versions": {name: version(name) for name in PACKAGES},
        },
    }
    if adapter is not None:
        tail["face"] = _face_part(checkpoint, adapter, image_encoder)
    return tail


def _face_part(checkpoint: Checkpoint, adapter: FaceAdapterFile, image_encoder: Any) -> dict[str, Any]:
    part: dict[str, Any] = {
        "adapter": {
            "kind": adapter.kind,
            "tokens": adapter.tokens,
            "embedding_size": adapter.embedding_size,
            "normalize": adapter.kind != "instantid",
        }
    }
    if image_encoder is not None:
        mean, std = clip_mean_and_std()
        part["image_encoder"] = {
            "align_size": CROPS.get(checkpoint.family, 224),
            "size": int(image_encoder.config.image_size),
            "mean": mean,
            "std": std,
        }
    return part


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
    return {
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in PACKAGES},
        "graphs": graphs,
        "pipeline": rows,
        "misses": misses(options.precision, graphs, rows),
    }


def _peak_gb() -> float:
    """The largest resident memory of this process so far, in GB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
