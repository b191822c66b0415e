"""Models distilled to few steps, whole pipelines against diffusers: LCM, LCM-LoRA, Turbo and Lightning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import agreement
import checkpoints
import numpy as np
import pytest
import small
import torch
from agreement import Exported
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.errors import PackInvalid
from faceavatar.pack import Pack
from faceavatar_export.diffusion.checkpoint import Lora, Reading, open_checkpoint
from faceavatar_export.diffusion.proof import (
    LARGEST_DIFFERENCE,
    Case,
    compare,
    engine_pictures,
    reference_pictures,
)
from faceavatar_export.diffusion.schedule import as_variant, read_sampling

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
GUIDANCE_WIDTH = 31  # odd, and so the embedding ends in a zero


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return small.small(folder / "base")


@pytest.fixture(scope="module")
def lcm(folder: Path) -> Exported:
    """A latent consistency model: its UNet is told the guidance scale."""
    return agreement.export(small.small(folder / "lcm", GUIDANCE_WIDTH), folder / "lcm-pack")


@pytest.fixture(scope="module")
def turbo(folder: Path, source: Path) -> Exported:
    return agreement.export(source, folder / "turbo", reading=Reading(variant="turbo"))


def test_a_latent_consistency_model_draws_what_diffusers_draws(lcm: Exported) -> None:
    agreement.assert_proved(lcm)
    manifest = Pack.load(lcm.pack).manifest
    assert "timestep_cond" in manifest.graphs["unet"].inputs
    assert (manifest.defaults.scheduler, manifest.defaults.num_inference_steps) == ("lcm", 4)
    assert manifest.defaults.guidance_scale == 8.5


def test_its_guidance_is_an_input_and_no_second_half(lcm: Exported) -> None:
    plain = Case(256, 256, 1, 8.5, 4, "lcm")
    cases = [
        plain,
        replace(plain, guidance_scale=1.0),
        replace(plain, guidance_scale=3.0, negative_prompt=None),
    ]
    strong, weak, _ = agreement.assert_agree(lcm, cases)
    assert np.abs(strong.astype(int) - weak).max() > LARGEST_DIFFERENCE
    engine = AvatarEngine.load(lcm.pack, provider="cpu")
    request = AvatarRequest(
        image=np.zeros((8, 8, 3), np.uint8), prompt="a man", height=256, width=256, seed=1, guidance_scale=8.5
    )
    guided, other = (
        engine.prepare(request),
        engine.prepare(request.model_copy(update={"guidance_scale": 2.0})),
    )
    assert guided.conditions.no_text is None
    assert guided.key == other.key
    together = engine.generate_together([guided, other])
    for one, alone in zip(together, (8.5, 2.0), strict=True):
        (picture,) = engine.generate(request.model_copy(update={"guidance_scale": alone})).images
        assert np.abs(one.images[0].astype(int) - picture).max() <= 1


def test_a_lora_of_lcm_is_fused_and_draws_as_diffusers_does_with_it_beside(
    folder: Path, source: Path
) -> None:
    path = write_lora(open_checkpoint(source).pipeline.unet, folder / "pytorch_lora_weights.safetensors")
    reading = Reading(variant="lcm")
    made = agreement.export(source, folder / "lcm-lora", reading=reading, loras=(Lora(path, 0.8),))
    agreement.assert_proved(made)
    checkpoint, engine = (
        open_checkpoint(source, reading=reading),
        AvatarEngine.load(made.pack, provider="cpu"),
    )
    assert engine.pack.manifest.defaults.scheduler == "lcm"
    attribution = engine.pack.manifest.files["unet.onnx"].attribution
    assert attribution == "exported from base, with pytorch_lora_weights.safetensors"
    pipeline = checkpoint.pipeline
    pipeline.load_lora_weights(str(folder), weight_name=path.name, adapter_name="lcm")
    pipeline.set_adapters(["lcm"], adapter_weights=[0.8])
    cases = [Case(256, 264, 1, 1.0, 4, "lcm")]
    pictures = engine_pictures(engine, None, cases)
    (row,) = compare(
        cases, pictures, reference_pictures(checkpoint, None, None, None, cases, engine._schedule)
    )
    assert row["max_difference"] <= LARGEST_DIFFERENCE
    bare = open_checkpoint(source, reading=reading)
    without = reference_pictures(bare, None, None, None, cases, engine._schedule)
    assert np.abs(pictures[0].astype(int) - without[0]).max() > 20


def write_lora(unet: Any, path: Path) -> Path:
    """All attention projections, in the layout of the published LCM-LoRA: kohya's names, ranks and alphas."""
    weights = {}
    torch.manual_seed(4)
    for name, module in unet.named_modules():
        if ".attn" in name and isinstance(module, torch.nn.Linear):
            place = "lora_unet_" + name.replace(".", "_")
            outside, inside = module.weight.shape
            weights |= {
                f"{place}.lora_down.weight": torch.randn(4, inside) / inside**0.5,
                f"{place}.lora_up.weight": torch.randn(outside, 4) * 0.5,
                f"{place}.alpha": torch.tensor(2.0),
            }
    assert weights
    save_file(weights, path)
    return path


def test_turbo_and_lightning_draw_what_diffusers_draws_on_trailing_timesteps(turbo: Exported) -> None:
    agreement.assert_proved(turbo)
    manifest = Pack.load(turbo.pack).manifest
    assert manifest.scheduler["timestep_spacing"] == "trailing"
    assert (manifest.defaults.scheduler, manifest.defaults.num_inference_steps) == ("euler", 4)
    assert manifest.defaults.guidance_scale == 1.0
    plain = Case(256, 264, 1, 1.0, 4, "euler")
    cases = [replace(plain, num_inference_steps=steps) for steps in (1, 2, 8)]
    agreement.assert_agree(turbo, [*cases, replace(plain, scheduler="euler_ancestral", guidance_scale=2.0)])


def test_zero_terminal_snr_on_trailing_timesteps_is_no_mark_of_turbo(source: Path) -> None:
    scheduler = as_variant(open_checkpoint(source).pipeline.scheduler, "turbo")
    assert read_sampling(scheduler, "sdxl").variant == "turbo"
    config = dict(scheduler.config) | {"rescale_betas_zero_snr": True}
    assert read_sampling(type(scheduler).from_config(config), "sdxl").variant == "base"


def test_the_base_variant_leaves_a_checkpoints_scheduler(source: Path) -> None:
    scheduler = open_checkpoint(source, reading=Reading(variant="base")).pipeline.scheduler
    assert scheduler.config.beta_end == checkpoints.SCHEDULE["beta_end"]
    assert read_sampling(scheduler, "sd15").name == "ddim"


def test_a_published_unet_takes_the_place_of_the_checkpoints(folder: Path, source: Path) -> None:
    other = UNet2DConditionModel.from_pretrained(small.small(folder / "lcm-unet", GUIDANCE_WIDTH) / "unet")
    opened = open_checkpoint(source, reading=Reading(unet=folder / "lcm-unet" / "unet", variant="lcm"))
    assert opened.pipeline.unet.config.time_cond_proj_dim == GUIDANCE_WIDTH
    assert_same(opened.pipeline.unet, other)
    halved = {
        key: weight.half() for key, weight in open_checkpoint(source).pipeline.unet.state_dict().items()
    }
    save_file(halved, folder / "lightning_unet.safetensors")
    opened = open_checkpoint(source, reading=Reading(unet=folder / "lightning_unet.safetensors"))
    assert all(torch.equal(one.half(), halved[key]) for key, one in opened.pipeline.unet.state_dict().items())


def assert_same(one: Any, other: Any) -> None:
    weights = other.state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in one.state_dict().items())


def test_a_unet_that_does_not_fit_is_refused(folder: Path, source: Path) -> None:
    def refused(path: Path, words: str) -> None:
        with pytest.raises(PackInvalid, match=words):
            open_checkpoint(source, reading=Reading(unet=path))

    checkpoints.sdxl(folder / "xl")
    refused(
        folder / "xl" / "unet", "cross_attention_dim is 80, the checkpoint's UNet has 48: made for another"
    )
    save_file({"conv_in.weight": torch.zeros(1)}, folder / "part.safetensors")
    refused(folder / "part.safetensors", r"part\.safetensors: cannot be read as a UNet: size mismatch")
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(1)}, folder / "whole.safetensors")
    refused(folder / "whole.safetensors", "a whole checkpoint's: give it as SOURCE")
    (folder / "unet.bin").write_bytes(b"never read")
    refused(folder / "unet.bin", r"expected \.safetensors: a pickled file may run code")
