"""int8 weights and bfloat16 graphs: what they lose is measured, bounded, and said in the pack."""

from __future__ import annotations

import json
from pathlib import Path

import agreement
import numpy as np
import onnxruntime as ort
import pytest
import single_files
import small
from agreement import Exported

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.errors import ProviderUnavailable
from faceavatar.pack import Pack, verify
from faceavatar_export.diffusion.checkpoint import Reading, open_checkpoint
from faceavatar_export.diffusion.graphs_of import graph_plans
from faceavatar_export.diffusion.proof import GRAPH_BOUNDS, LEAST_PSNR, misses
from faceavatar_export.graphs import INT8_MIN_SIZE

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("precision")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return small.small(folder / "base")


@pytest.fixture(scope="module")
def int8(folder: Path, source: Path) -> Exported:
    return agreement.export(source, folder / "int8", precision="int8")


@pytest.fixture(scope="module")
def bf16(folder: Path, source: Path) -> Exported:
    return agreement.export(source, folder / "bf16", precision="bf16")


def assert_bounded(made: Exported, precision: str) -> None:
    assert made.report["misses"] == []
    for role, report in made.report["graphs"].items():
        assert report["precision"] == precision, role
        # Too exact would mean that the graph is not of that precision.
        assert 1e-4 < report["relative_error"] <= GRAPH_BOUNDS[precision], role
    for row in made.report["pipeline"]:
        assert row["psnr"] >= LEAST_PSNR[precision]
        assert row["max_difference"] > 0
    content = json.loads((made.pack / "pack.json").read_text())
    errors = {role: report["relative_error"] for role, report in made.report["graphs"].items()}
    assert content["export"]["errors"] == errors
    assert {graph["precision"] for graph in content["graphs"].values()} == {precision}


def test_int8_packs_are_small_and_say_what_they_lost(int8: Exported, source: Path) -> None:
    assert_bounded(int8, "int8")
    unet = open_checkpoint(source).pipeline.unet
    large = [weight for weight in unet.parameters() if weight.ndim > 1 and weight.numel() >= INT8_MIN_SIZE]
    rest = sum(weight.numel() for weight in unet.parameters()) - sum(weight.numel() for weight in large)
    # A byte a number, four for its channel's scale; norms, biases and small matrices stay as they are.
    most = sum(weight.numel() + 4 * max(weight.shape[:2]) for weight in large) + 4 * rest
    assert (int8.pack / "unet.onnx.data").stat().st_size <= most
    assert most < sum(weight.numel() for weight in unet.parameters()) * 4 / 3
    assert verify(Pack.load(int8.pack)) == []


def test_bf16_packs_run_on_openvino(bf16: Exported) -> None:
    assert_bounded(bf16, "bf16")
    assert verify(Pack.load(bf16.pack), provider="openvino") == []


def test_bf16_packs_are_refused_by_name_on_the_provider_that_has_no_kernels(bf16: Exported) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"unet.* are bf16 graphs, which provider 'cpu' has no kernels"
    ):
        AvatarEngine.load(bf16.pack, provider="cpu")
    # What the refusal rests on; when this passes one day, it can go.
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        ort.InferenceSession(str(bf16.pack / "unet.onnx"), providers=["CPUExecutionProvider"])


def test_bf16_is_refused_before_any_work_where_nothing_can_prove_it(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceavatar.backends.openvino_cpu.find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailable, match=r"pip install 'faceavatar\[openvino\]'"):
        agreement.export(source, folder / "unproved", precision="bf16")
    assert not (folder / "unproved").exists()


def test_int8_packs_draw_on_openvino_what_they_draw_on_the_cpu(int8: Exported) -> None:
    request = AvatarRequest(image=PHOTO, prompt="a man", height=256, width=256, seed=1, num_inference_steps=2)
    one, other = (
        AvatarEngine.load(int8.pack, provider=name).generate(request).images[0].astype(int)
        for name in ("cpu", "openvino")
    )
    assert np.abs(one - other).max() <= 2


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_graph_or_picture_that_loses_more_is_said(precision: str) -> None:
    row = {"width": 256, "height": 264, "batch": 2, "max_difference": 90, "psnr": 20.0}
    graph, picture = misses(precision, {"unet": {"precision": precision, "relative_error": 0.2}}, [row])
    assert graph == "unet is 0.2 away from torch, allowed 0.05"
    assert picture == "the 256x264 picture at batch 2 has 20.0 dB against diffusers, allowed 30"


def test_sdxls_own_vae_stays_in_fp32_and_one_that_need_not_is_halved(folder: Path) -> None:
    pipeline = single_files.build("sdxl")
    pipeline.save_pretrained(folder / "xl")
    pipeline.vae.register_to_config(force_upcast=False)
    pipeline.vae.save_pretrained(folder / "fp16-fix")

    def precisions(reading: Reading) -> dict[str, str]:
        checkpoint = open_checkpoint(folder / "xl", reading=reading)
        return {plan.role: plan.precision for plan in graph_plans(checkpoint, None, None, "fp16", True)}

    own, fixed = precisions(Reading()), precisions(Reading(vae=folder / "fp16-fix"))
    assert (own["vae_decoder"], own["vae_encoder"], own["unet"]) == ("fp32", "fp32", "fp16")
    assert (fixed["vae_decoder"], fixed["vae_encoder"], fixed["unet"]) == ("fp16", "fp16", "fp16")
