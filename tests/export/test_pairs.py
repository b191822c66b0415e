"""Every family with every face adapter it is offered with: exported, proved, held to diffusers further."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import agreement
import bare_venv
import checkpoints
import numpy as np
import pytest
import torch
from agreement import Exported

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.denoise import Noise
from faceavatar.pack import Pack
from faceavatar_export.diffusion.checkpoint import open_checkpoint
from faceavatar_export.diffusion.proof import LARGEST_DIFFERENCE, SEED, Case
from faceavatar_export.diffusion.schedule import diffusers_scheduler

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
LONG = "portrait of a laughing woman with red hair, " * 12

# Family, adapter's kind for the builder, its file's name, whether it sees the face, what the pack says of it.
PAIRS = [
    ("sd15", "plus", "ip-adapter-faceid-plus_sd15-v1.bin", True, "faceid_plus"),
    ("sd15", "plus", "ip-adapter-faceid-plusv2_sd15.bin", True, "faceid_plus_v2"),
    ("sd15", "portrait", "ip-adapter-faceid-portrait_sd15.bin", False, "faceid_portrait"),
    ("sdxl", "faceid", "ip-adapter-faceid_sdxl.bin", False, "faceid"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def sources(folder: Path) -> dict[str, Path]:
    return {"sd15": checkpoints.sd(folder / "sd"), "sdxl": checkpoints.sdxl(folder / "xl")}


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return checkpoints.image_encoder(folder / "clip")


@pytest.fixture(scope="module")
def lean_python(folder: Path) -> Path:
    return bare_venv.build(folder / "lean")


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[4]}")
def pair(request: pytest.FixtureRequest, folder: Path, sources: dict[str, Path], clip: Path) -> Exported:
    family, builder, name, sees, _ = request.param
    adapter = checkpoints.face_adapter(folder / name, sources[family], builder)
    return agreement.export(sources[family], folder / f"{name}-pack", adapter, clip if sees else None)


def test_a_pair_is_proved_by_its_export_and_named_in_its_pack(pair: Exported) -> None:
    agreement.assert_proved(pair)
    manifest = Pack.load(pair.pack).manifest
    assert pair.adapter is not None
    said = next(kind for family, _, name, _, kind in PAIRS if name == pair.adapter.name)
    assert manifest.face is not None
    assert manifest.face.adapter.kind == said


def test_a_pair_agrees_at_odd_sizes_batch_3_and_both_ends_of_guidance_and_face_scale(pair: Exported) -> None:
    plain = Case(256, 256, 1, 7.5, 2, "ddim")
    with_face, without_face, *_ = agreement.assert_agree(
        pair,
        [
            plain,
            replace(plain, face_scale=0.0),
            replace(plain, guidance_scale=1.0),
            replace(plain, negative_prompt=None),
            replace(plain, negative_prompt=""),
            replace(plain, height=520, width=392, batch=3, num_inference_steps=1),
        ],
    )
    assert np.abs(with_face.astype(int) - without_face).max() > LARGEST_DIFFERENCE


def test_a_prompt_longer_than_the_encoders_window_agrees(pair: Exported) -> None:
    """diffusers cuts a long prompt; given the states of all windows, encoded by torch, it draws the same."""
    engine, checkpoint = AvatarEngine.load(pair.pack, provider="cpu"), open_checkpoint(pair.source)
    pipeline = checkpoint.pipeline
    noise = Noise([SEED], (pipeline.unet.config.in_channels, 32, 40))()
    embeds = np.ones((1, checkpoints.EMBEDDING), np.float32)
    crop = np.full((224, 224, 3), 90, np.uint8) if pair.clip is not None else None
    request = AvatarRequest(
        image=np.zeros((8, 8, 3), np.uint8),
        prompt=LONG,
        height=256,
        width=320,
        seed=SEED,
        num_inference_steps=2,
        guidance_scale=1.0,
        scheduler="ddim",
        face_scale=0.0,
    )
    (ours,) = engine.generate(request, face_embeds=embeds, face_crop=crop).images
    more: dict[str, Any] = encode_windows(engine, pipeline)
    if pair.adapter is not None:
        merge_adapter(pipeline, pair.adapter)
    pipeline.scheduler = diffusers_scheduler("ddim", engine._schedule)
    with torch.inference_mode():
        drawn = pipeline(
            height=256,
            width=320,
            num_inference_steps=2,
            guidance_scale=1.0,
            latents=torch.from_numpy(noise),
            output_type="np",
            **more,
        ).images
    theirs = (drawn[0] * 255).round()
    assert theirs.std() > 10
    assert np.abs(ours - theirs).max() <= LARGEST_DIFFERENCE


def encode_windows(engine: AvatarEngine, pipeline: Any) -> dict[str, torch.Tensor]:
    first = torch.from_numpy(engine.text.first.windows(LONG))
    assert len(first) > 1
    with torch.inference_mode():
        if engine.text.second is None:
            return {"prompt_embeds": pipeline.text_encoder(first).last_hidden_state.flatten(0, 1)[None]}
        second = torch.from_numpy(engine.text.second.windows(LONG))
        one = pipeline.text_encoder(first, output_hidden_states=True).hidden_states[-2]
        two = pipeline.text_encoder_2(second, output_hidden_states=True)
        states = torch.cat([one, two.hidden_states[-2]], dim=-1).flatten(0, 1)[None]
        return {"prompt_embeds": states, "pooled_prompt_embeds": two.text_embeds[:1]}


def merge_adapter(pipeline: Any, path: Path) -> None:
    """At face scale 0 an adapter is its LoRA alone."""
    from faceavatar_export.diffusion.face_adapter import merge_lora, read_face_adapter

    merge_lora(pipeline.unet, read_face_adapter(path))


def test_an_environment_without_torch_draws_what_the_exporting_one_draws(
    pair: Exported, lean_python: Path, tmp_path: Path
) -> None:
    script = (
        "import importlib.util, sys, numpy as np\n"
        "present = [name for name in ('torch', 'diffusers', 'transformers', 'onnx', 'faceavatar_export')\n"
        "           if importlib.util.find_spec(name)]\n"
        "assert not present, present\n"
        "from faceavatar import AvatarEngine, AvatarRequest\n"
        "engine = AvatarEngine.load(sys.argv[1], provider='cpu')\n"
        "photo = np.zeros((8, 8, 3), np.uint8)\n"
        "request = AvatarRequest(image=photo, prompt='a man', seed=4, height=256, width=256, "
        "num_inference_steps=2)\n"
        "crop = np.full((224, 224, 3), 90, np.uint8) if engine.faces.image_encoder else None\n"
        "result = engine.generate(request, face_embeds=np.ones(512, np.float32), face_crop=crop)\n"
        "np.save(sys.argv[2], result.images[0])\n"
        "assert not {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    for name, python in (("lean", lean_python), ("own", Path(sys.executable))):
        own = name == "own"
        text = script.replace("assert not present, present\n", "") if own else script
        ran = subprocess.run(
            [str(python), "-c", text, str(pair.pack), str(tmp_path / f"{name}.npy")],
            capture_output=True,
            text=True,
            check=False,
            env=None if own else environment,
        )
        assert ran.returncode == 0, ran.stderr
    assert np.array_equal(np.load(tmp_path / "lean.npy"), np.load(tmp_path / "own.npy"))
