"""The proof: every graph beside its torch module, and the whole pipeline beside diffusers' own.

Both engines get the same noise, prompt, face, scheduler, steps and guidance. Pictures are compared as the
bytes a user sees. Knows numbers and pictures; does not know how graphs are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessorPil

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import open_session
from faceavatar.denoise import Noise
from faceavatar.face.keypoints import draw_keypoints
from faceavatar.schedulers import NoiseSchedule
from faceavatar_export.diffusion.checkpoint import Checkpoint
from faceavatar_export.diffusion.face_adapter import FaceAdapterFile
from faceavatar_export.diffusion.graphs_of import GraphPlan
from faceavatar_export.diffusion.instantid import reference_pipeline, sees_faces_only
from faceavatar_export.diffusion.proof_photo import image_to_image, make_photo, photo_latents
from faceavatar_export.diffusion.schedule import diffusers_scheduler

# Relative errors (root mean square of the difference over that of torch's output) that a graph may have.
GRAPH_BOUNDS = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2, "int8": 5e-2}
FUSED_PROVIDER = "cpu"  # the one that proves graphs with ONNX Runtime's own operators
LARGEST_DIFFERENCE = 2  # of 255, everywhere, for a pack in fp32
LEAST_PSNR = {"fp16": 35.0, "bf16": 30.0, "int8": 30.0}  # dB
PROMPT, NEGATIVE = "storybook illustration of a laughing woman, teal background", "blurred, hat"
SHAPES = ((2, 9, 7), (3, 8, 12))  # batch and latent sides at which graphs are compared
SEED = 20
LANDMARKS = ((0.4, 0.35), (0.61, 0.36), (0.5, 0.5), (0.42, 0.63), (0.58, 0.62))  # parts of width and height


@dataclass(frozen=True)
class Case:
    """One picture run through both engines."""

    height: int
    width: int
    batch: int
    guidance_scale: float
    num_inference_steps: int
    scheduler: str
    face_scale: float = 0.7
    negative_prompt: str | None = NEGATIVE
    controlnet_scale: float | None = None  # None where there is no ControlNet
    strength: float | None = None  # None where the photo is not begun with

    @property
    def landmarks(self) -> NDArray[np.float64] | None:
        """Where the face is drawn, (5, 2) pixels; None without a ControlNet."""
        return None if self.controlnet_scale is None else np.array(LANDMARKS) * (self.width, self.height)


@dataclass(frozen=True)
class Face:
    """A face for the proof: an embedding (1, E), and for adapters that look at it a crop (S, S, 3)."""

    embeds: NDArray[np.float32]
    crop: NDArray[np.uint8] | None


def make_face(adapter: FaceAdapterFile | None, size: int) -> Face | None:
    """A random embedding of length 1, or for InstantID a raw one, of about 23, and a crop of noise."""
    if adapter is None:
        return None
    random = np.random.default_rng(SEED)
    embeds = random.standard_normal((1, adapter.embedding_size), np.float32)
    crop = random.integers(0, 255, (size, size, 3), np.uint8) if adapter.sees_image else None
    return Face(embeds if adapter.kind == "instantid" else embeds / np.linalg.norm(embeds), crop)


def proof_cases(
    sizes: tuple[tuple[int, int], ...],
    guidance: float,
    steps: int,
    scheduler: str,
    controlnet_scale: float | None = None,
    strength: float | None = None,
) -> list[Case]:
    """Two sizes at batches 1 and 2; with a strength one case more, at the second size."""
    cases = [
        Case(h, w, batch, guidance, steps, scheduler, controlnet_scale=controlnet_scale)
        for h, w in sizes
        for batch in (1, 2)
    ]
    return cases if strength is None else [*cases, replace(cases[-1], strength=strength)]


def proof_provider(precision: str) -> str:
    """The provider that the proof runs on: ONNX Runtime's CPU provider has no kernels for bfloat16."""
    return "openvino" if precision == "bf16" else "cpu"


def graph_error(plan: GraphPlan, path: Path, provider: str = "cpu") -> float:
    """The largest relative error of a graph's outputs on a provider, at two shapes."""
    session = open_session(path, provider)
    random, errors = torch.Generator().manual_seed(SEED), []
    for shape in SHAPES:
        inputs = plan.example(random, shape)
        with torch.inference_mode():
            expected = plan.module.eval()(*inputs.values())
        feeds = {name: value.numpy() for name, value in inputs.items() if name in session.inputs}
        found = session.run(feeds)
        outputs = [found[name] for name in plan.outputs]
        for got, want in zip(outputs, expected if isinstance(expected, tuple) else (expected,), strict=True):
            reference = want.numpy().astype(np.float64)
            errors.append(float(np.sqrt(np.mean((got - reference) ** 2) / np.mean(reference**2))))
    return max(errors) if np.isfinite(errors).all() else float("inf")


def reference_pictures(
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    face: Face | None,
    cases: list[Case],
    schedule: NoiseSchedule,
) -> list[NDArray[np.uint8]]:
    """What diffusers draws, uint8 (B, H, W, 3) a case. The pipeline is changed: the adapter stays in it."""
    pipeline = checkpoint.pipeline if checkpoint.controlnet is None else reference_pipeline(checkpoint)
    if adapter is not None:
        weights = {"image_proj": dict(adapter.image_proj), "ip_adapter": dict(adapter.ip_adapter)}
        pipeline.load_ip_adapter(weights, subfolder=None, weight_name=None, image_encoder_folder=None)
    return [_draw(pipeline, checkpoint.vae, adapter, image_encoder, face, case, schedule) for case in cases]


def _draw(
    pipeline: Any,
    vae: Any,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    face: Face | None,
    case: Case,
    schedule: NoiseSchedule,
) -> NDArray[np.uint8]:
    told = pipeline.unet.config.time_cond_proj_dim is not None  # such a UNet is not run a second time
    guided, said = case.guidance_scale > 1 and not told, case.negative_prompt
    more: dict[str, Any] = {}
    hooks = ExitStack()
    if adapter is not None and face is not None:
        pipeline.set_ip_adapter_scale(case.face_scale)
        embeds = torch.from_numpy(face.embeds)[None]  # diffusers repeats it for the batch
        if adapter.kind == "instantid":
            embeds = embeds[:, :, None]  # a resampler reads a sequence, here of one
        more["ip_adapter_image_embeds"] = [
            torch.cat([torch.zeros_like(embeds), embeds]) if guided else embeds
        ]
        if adapter.sees_image:
            _hand_in_image(pipeline, adapter, image_encoder, face, case.batch, guided)
        if case.landmarks is not None:
            more["image"] = Image.fromarray(draw_keypoints(case.landmarks, (case.height, case.width)))
            more["controlnet_conditioning_scale"] = case.controlnet_scale
            hooks.enter_context(sees_faces_only(pipeline, embeds, case.batch, guided))
    if case.strength is not None:
        pipeline = image_to_image(pipeline)
    pipeline.scheduler = diffusers_scheduler(case.scheduler, schedule)
    noise = Noise(
        range(SEED, SEED + case.batch), (pipeline.unet.config.in_channels, case.height // 8, case.width // 8)
    )
    if case.strength is None:
        more |= {"height": case.height, "width": case.width, "latents": torch.from_numpy(noise())}
    else:
        more |= {
            "image": photo_latents(vae, case.height, case.width, case.batch),
            "strength": case.strength,
        }
    with hooks, _noise_from(noise), torch.inference_mode():
        drawn = pipeline(
            prompt=[PROMPT] * case.batch,
            negative_prompt=None if said is None or not guided else [said] * case.batch,
            num_inference_steps=case.num_inference_steps,
            guidance_scale=case.guidance_scale,
            output_type="np",
            **more,
        ).images
    return np.asarray((drawn * 255).round(), np.uint8)


def _hand_in_image(
    pipeline: Any, adapter: FaceAdapterFile, image_encoder: Any, face: Face, batch: int, guided: bool
) -> None:
    """CLIP's states and V2's shortcut are set by hand in diffusers, on the projection itself."""
    assert face.crop is not None
    size = int(image_encoder.config.image_size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    pixels = processor(Image.fromarray(face.crop), return_tensors="pt").pixel_values
    with torch.inference_mode():
        halves = [torch.zeros_like(pixels), pixels] if guided else [pixels]
        states = [image_encoder(half, output_hidden_states=True).hidden_states[-2] for half in halves]
    projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
    projection.clip_embeds = torch.cat([one.repeat(batch, 1, 1)[:, None] for one in states])
    projection.shortcut = adapter.kind == "faceid_plus_v2"


def clip_mean_and_std() -> tuple[list[float], list[float]]:
    """CLIP's normalisation for pixels of 0..255 (transformers: OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    return [255 * value for value in OPENAI_CLIP_MEAN], [255 * value for value in OPENAI_CLIP_STD]


@contextmanager
def _noise_from(noise: Noise) -> Iterator[None]:
    """Schedulers that draw noise between their steps, and pipelines that noise a photo, draw ours."""

    def draw(*_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(noise())

    rooms = (
        "schedulers.scheduling_lcm",
        "schedulers.scheduling_euler_ancestral_discrete",
        "pipelines.stable_diffusion.pipeline_stable_diffusion_img2img",
        "pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img",
    )
    with ExitStack() as patches:
        for room in rooms:
            patches.enter_context(mock.patch(f"diffusers.{room}.randn_tensor", draw))
        yield


def engine_pictures(engine: AvatarEngine, face: Face | None, cases: list[Case]) -> list[NDArray[np.uint8]]:
    """What the pack draws for the same cases."""
    photo = make_photo()
    given: dict[str, Any] = {} if face is None else {"face_embeds": face.embeds, "face_crop": face.crop}
    return [
        np.stack(
            engine.generate(
                AvatarRequest(image=photo, prompt=PROMPT, seed=SEED, **asdict(case)),
                **given,
                face_landmarks=case.landmarks,
            ).images
        )
        for case in cases
    ]


def compare(
    cases: list[Case], got: list[NDArray[np.uint8]], expected: list[NDArray[np.uint8]]
) -> list[dict[str, Any]]:
    """For each case its fields, the largest difference of 255 and the PSNR in dB (None where equal)."""
    rows = []
    for case, ours, theirs in zip(cases, got, expected, strict=True):
        difference = ours.astype(np.float64) - theirs
        error = float(np.mean(difference**2))
        psnr = None if error == 0 else round(10 * float(np.log10(255**2 / error)), 2)
        spread = round(float(theirs.std()), 2)  # a flat picture would prove nothing
        rows.append(
            asdict(case) | {"max_difference": int(np.abs(difference).max()), "psnr": psnr, "spread": spread}
        )
    return rows


def misses(precision: str, graphs: Mapping[str, Mapping[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    """A sentence for each bound that is not held: which graph or picture, and by how much."""
    said = []
    for role, report in graphs.items():
        bound = GRAPH_BOUNDS[report["precision"]]
        for name, key in ((role, "relative_error"), (f"{role}, fused,", "fused_error")):
            if report.get(key, 0.0) > bound:
                said.append(f"{name} is {report[key]:.2g} away from torch, allowed {bound:g}")
    for row in rows:
        where = f"the {row['width']}x{row['height']} picture at batch {row['batch']}"
        if precision == "fp32" and row["max_difference"] > LARGEST_DIFFERENCE:
            said.append(
                f"{where} is {row['max_difference']}/255 away from diffusers, allowed {LARGEST_DIFFERENCE}"
            )
        least = LEAST_PSNR.get(precision)
        if least is not None and row["psnr"] is not None and row["psnr"] < least:
            said.append(f"{where} has {row['psnr']} dB against diffusers, allowed {least:g}")
    return said
