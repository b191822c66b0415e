"""Decoupled face attention: diffusers' UNet without a face, diffusers' IP-Adapter with one. A tiny UNet."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from faceavatar_export import graphs
from faceavatar_export.face_attention import FaceAttention, FaceProjection, FaceUNet
from faceavatar_export.toon.network import make_unet
from faceavatar_export.verify import relative_error

CONTEXT, TOKENS = 24, 3


def make(**more: object) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=2,
        norm_num_groups=8,
        **more,
    ).eval()


TOON_LIKE = {
    "resnet_time_scale_shift": "scale_shift",
    "time_cond_proj_dim": TOKENS * CONTEXT,
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
}


def inputs(batch: int = 2, height: int = 8, width: int = 8, tokens: int = 7) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(batch)
    return {
        "sample": torch.randn(batch, 4, height, width, generator=g),
        "timestep": torch.randint(0, 1000, (batch,), generator=g),
        "encoder_hidden_states": torch.randn(batch, tokens, CONTEXT, generator=g),
        "face_tokens": torch.randn(batch, TOKENS, CONTEXT, generator=g),
        "face_scale": torch.tensor([0.8]),
    }


@torch.inference_mode()
def run(model: FaceUNet, scale: float, **changed: Tensor) -> Tensor:
    return torch.as_tensor(model(**{**inputs(), "face_scale": torch.tensor([scale]), **changed}))


@pytest.mark.parametrize("config", [{}, TOON_LIKE], ids=["plain", "toon-like"])
def test_face_scale_0_is_the_plain_unet(config: dict[str, object]) -> None:
    plain = make(**config)
    model = FaceUNet(copy.deepcopy(plain))
    given = inputs()
    with torch.inference_mode():
        expected = plain(given["sample"], given["timestep"], given["encoder_hidden_states"]).sample
    torch.testing.assert_close(run(model, 0.0), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [{}, TOON_LIKE], ids=["plain", "toon-like"])
def test_the_scale_the_face_and_the_text_matter(config: dict[str, object]) -> None:
    model = FaceUNet(make(**config))
    none, half, whole = (run(model, scale) for scale in (0.0, 0.5, 1.0))
    assert (half - none).abs().max() > 1e-3
    assert (whole - half).abs().max() > 1e-3
    other = torch.flip(inputs()["face_tokens"], (0,))
    assert (run(model, 1.0, face_tokens=other) - whole).abs().max() > 1e-3
    assert (run(model, 1.0, encoder_hidden_states=torch.zeros(2, 7, CONTEXT)) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_the_face_branch_is_diffusers_ip_adapter(scale: float) -> None:
    model, plain = FaceUNet(make()), make()
    processors: dict[str, AttnProcessor2_0 | IPAdapterAttnProcessor2_0] = {}
    for name, ours in model.unet.attn_processors.items():
        theirs = AttnProcessor2_0()
        if isinstance(ours, FaceAttention):
            channels = ours.to_k_ip.out_features
            theirs = IPAdapterAttnProcessor2_0(channels, CONTEXT, num_tokens=(TOKENS,), scale=scale)
            theirs.to_k_ip[0].load_state_dict(ours.to_k_ip.state_dict())
            theirs.to_v_ip[0].load_state_dict(ours.to_v_ip.state_dict())
        processors[name] = theirs
    plain.set_attn_processor(processors)
    given = inputs()
    states = (given["encoder_hidden_states"], [given["face_tokens"]])
    with torch.inference_mode():
        expected = plain(given["sample"], given["timestep"], states).sample
    torch.testing.assert_close(run(model, scale), expected, atol=1e-5, rtol=1e-5)


def test_only_cross_attention_gets_face_weights_and_their_names_are_ip_adapters() -> None:
    model = FaceUNet(make())
    for name, processor in model.unet.attn_processors.items():
        assert isinstance(processor, FaceAttention) == name.endswith("attn2.processor")
    added = {name for name in model.state_dict() if "_ip" in name}
    assert len(added) == 2 * sum(name.endswith("attn2.processor") for name in model.unet.attn_processors)
    assert all(".attn2.processor.to_" in name for name in added)


def test_every_face_weight_learns() -> None:
    model = FaceUNet(make(**TOON_LIKE))
    model(**inputs()).square().mean().backward()
    faces = [p for name, p in model.named_parameters() if "_ip" in name or "cond_proj" in name]
    assert faces
    assert all(p.grad is not None and bool(p.grad.any()) for p in faces)


def test_the_projection_makes_normalised_tokens() -> None:
    torch.manual_seed(0)
    projection = FaceProjection(20, 32, TOKENS, CONTEXT)
    tokens = projection(torch.randn(5, 20))
    assert tokens.shape == (5, TOKENS, CONTEXT)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(5, TOKENS), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(-1), torch.ones(5, TOKENS), atol=0.05, rtol=0)


def test_the_toon_unet_has_the_sizes_that_its_checkpoints_hold() -> None:
    with torch.device("meta"):
        unet = make_unet()
    state = unet.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(16.6e6, rel=0.2)
    assert tuple(state["unet.conv_in.weight"].shape) == (160, 64, 3, 3)


@pytest.mark.slow
def test_a_whole_unet_becomes_a_graph_of_any_batch_size_and_text_length(tmp_path: Path) -> None:
    model, path = FaceUNet(make(**TOON_LIKE)), tmp_path / "unet.onnx"
    grid = {0: "batch", 2: "height", 3: "width"}
    axes = {
        "sample": grid,
        "timestep": {0: "batch"},
        "encoder_hidden_states": {0: "batch", 1: "tokens"},
        "face_tokens": {0: "batch"},
    }
    graphs.export_graph(model, inputs(3, 8, 12, 14), ["noise_pred"], axes, path, {"noise_pred": grid})
    for size in ((1, 8, 8, 7), (2, 16, 4, 154), (5, 6, 10, 77)):
        assert relative_error(model, path, inputs(*size)) < 1e-4, size
    ins, outs = graphs.signature(path)
    assert ins["encoder_hidden_states"]["shape"] == ["batch", "tokens", CONTEXT]
    assert ins["timestep"] == {"dtype": "int64", "shape": ["batch"]}
    assert ins["face_scale"]["shape"] == [1]
    assert outs["noise_pred"]["shape"] == ["batch", 4, "height", "width"]
