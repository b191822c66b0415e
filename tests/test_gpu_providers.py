"""GPU providers where there is no GPU: what is missing is named, and recorded launches are kept apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceavatar.backends import Bucket, open_session, provider_problem, resolve_provider, tensorrt_rtx
from faceavatar.backends._ep_context import profile_options
from faceavatar.backends._onnxruntime import OnnxRuntimeSession, nodes_left
from faceavatar.backends.bound import PROCESSOR, Bound
from faceavatar.backends.capture import NOT_RECORDED, CaptureIds
from faceavatar.backends.nvidia import Gpu, find_gpu
from faceavatar.errors import FaceAvatarError, ProviderUnavailable

NO_GPU = find_gpu() is None
HAS_PLUGIN = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx") is not None
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30, "580.65.06", (13, 0))
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", (8, 9), 24 << 30, "580.65.06", (13, 0))
INPUTS = ("sample", "timestep", "encoder_hidden_states", "face_tokens", "face_scale")


def feeds(batch: int = 2, side: int = 8) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(batch)
    return {
        "sample": draw.normal(size=(batch, 8, side, side)).astype(np.float32),
        "timestep": np.full(batch, 500),
        "encoder_hidden_states": draw.normal(size=(batch, 77, 24)).astype(np.float32),
        "face_tokens": draw.normal(size=(batch, 4, 24)).astype(np.float32),
        "face_scale": np.ones(1, np.float32),
    }


def bucket(words: str, batches: tuple[int, int, int], side: int) -> Bucket:
    least, usual, most = ({"sample": (batch, 4, side, side), "timestep": (batch,)} for batch in batches)
    return Bucket(words, least, usual, most)


def bound(tiny: Path, captures: CaptureIds | None = None) -> Bound:
    session = OnnxRuntimeSession(tiny / "unet.onnx", "cpu", "CPUExecutionProvider", {}, 1)
    return Bound(session._session, "unet.onnx", "cpu", PROCESSOR, captures)


@pytest.mark.skipif(HAS_PLUGIN, reason="the plugin is installed")
def test_an_absent_plugin_is_refused_with_the_command_that_installs_it() -> None:
    with pytest.raises(ProviderUnavailable, match=r"pip install 'faceavatar\[tensorrt-rtx\]'"):
        resolve_provider("tensorrt-rtx")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "tensorrt-rtx", "tensorrt"])
def test_no_gpu_provider_is_used_without_a_gpu(tiny: Path, name: str) -> None:
    problem = provider_problem(name)
    assert problem is not None
    assert "pip install" in problem or "nvidia-smi" in problem
    with pytest.raises(ProviderUnavailable, match=f"provider '{name}' cannot be used"):
        open_session(tiny / "unet.onnx", name)


def test_the_plugin_is_refused_on_a_gpu_that_it_does_not_run_on() -> None:
    refused = tensorrt_rtx._unfit(H100)
    assert refused is not None
    assert "got NVIDIA H100 80GB HBM3 (compute capability 9.0)" in refused
    assert "use provider 'cuda' or 'tensorrt'" in refused
    assert tensorrt_rtx._unfit(RTX_4090) is None
    old = tensorrt_rtx._unfit(Gpu(RTX_4090.name, (8, 9), 24 << 30, "550.54", (12, 4)))
    assert old is not None
    assert "driver 550.54 runs CUDA 12.4, the plugin needs 13.0" in old


def test_one_profile_spans_all_buckets_and_is_tuned_for_the_first_ones_usual_shape() -> None:
    buckets = [bucket("512x512x1..8", (2, 4, 16), 64), bucket("768x768x1", (2, 2, 2), 96)]
    assert profile_options("nv", buckets) == {
        "nv_profile_min_shapes": "sample:2x4x64x64,timestep:2",
        "nv_profile_opt_shapes": "sample:4x4x64x64,timestep:4",
        "nv_profile_max_shapes": "sample:16x4x96x96,timestep:16",
    }
    assert profile_options("trt", None) == {}


def test_nodes_left_to_another_provider_are_named_with_their_share() -> None:
    assigned = {
        ("CUDAExecutionProvider", "Conv"): 90,
        ("CPUExecutionProvider", "NonZero"): 8,
        ("CPUExecutionProvider", "TopK"): 1,
        ("CPUExecutionProvider", "Shape"): 101,
    }
    assert nodes_left("unet.onnx", "CUDAExecutionProvider", assigned) == (
        "unet.onnx: CUDAExecutionProvider left 9 of 200 nodes (4.5 %) to CPUExecutionProvider: "
        "8 NonZero, 1 TopK",
    )
    assert nodes_left("unet.onnx", "CPUExecutionProvider", {("CPUExecutionProvider", "Conv"): 3}) == ()


def test_a_recorded_graph_belongs_to_one_set_of_buffers() -> None:
    ids = CaptureIds(most=3)
    small, large = ("in", "sample", 4096, (2, 4, 64, 64)), ("in", "sample", 4096, (2, 4, 96, 96))
    moved = ("in", "sample", 8192, (2, 4, 64, 64))
    given = [ids.claim(buffers) for buffers in (small, large, moved)]
    assert len(set(given)) == 3
    assert NOT_RECORDED not in given
    assert [ids.claim(buffers) for buffers in (moved, small, large)] == [given[2], given[0], given[1]]


def test_past_the_graphs_that_are_kept_runs_are_not_recorded_and_no_id_is_given_anew() -> None:
    ids = CaptureIds(most=2)
    first = [ids.claim(buffers) for buffers in "ab"]
    assert ids.claim("c") == NOT_RECORDED
    assert [ids.claim(buffers) for buffers in "ab"] == first


def test_a_run_on_buffers_gives_what_a_plain_run_gives(tiny: Path) -> None:
    on = bound(tiny)
    for name, array in feeds().items():
        on.upload(name, array)
    on.reserve("out", feeds()["sample"].shape, np.dtype(np.float32))
    on.run({name: name for name in INPUTS}, {"noise_pred": "out"})
    plain = open_session(tiny / "unet.onnx", "cpu", threads=1).run(feeds())["noise_pred"]
    np.testing.assert_array_equal(on.download("out"), plain)


def test_a_buffer_written_again_stays_where_it_is_and_what_was_read_of_it_stays_as_it_was(tiny: Path) -> None:
    on = bound(tiny)
    on.upload("x", np.ones(3, np.float32))
    before, read = on.signature({"sample": "x"}, {}), on.download("x")
    on.upload("x", np.zeros(3, np.float32))
    assert on.signature({"sample": "x"}, {}) == before
    assert read.tolist() == [1, 1, 1]
    assert on.download("x").tolist() == [0, 0, 0]


def test_another_shape_is_another_signature_and_so_another_recorded_graph(tiny: Path) -> None:
    captures = CaptureIds()
    on, names = bound(tiny, captures), ({name: name for name in INPUTS}, {"noise_pred": "out"})
    signatures = []
    for side in (8, 12, 8):
        for name, array in feeds(side=side).items():
            on.upload(name, array)
        on.reserve("out", (2, 8, side, side), np.dtype(np.float32))
        on.run(*names)
        signatures.append(on.signature(*names))
        assert on.download("out").shape == (2, 8, side, side)
    assert captures.claim(signatures[0]) != captures.claim(signatures[1])


def test_buffers_are_lent_again_to_runs_of_the_same_shapes_and_to_one_run_at_a_time(tiny: Path) -> None:
    session = OnnxRuntimeSession(tiny / "unet.onnx", "cpu", "CPUExecutionProvider", {}, 1)
    with session.bind((2, 8, 8)) as first, session.bind((2, 8, 8)) as second:
        assert second is not first
    with session.bind((2, 8, 8)) as again:
        assert again in (first, second)
    with session.bind((1, 8, 8)) as other:
        assert other not in (first, second)


def test_a_wrong_buffer_fails_with_the_graphs_name(tiny: Path) -> None:
    on = bound(tiny)
    for name, array in (feeds() | {"face_tokens": np.zeros((2, 4, 99), np.float32)}).items():
        on.upload(name, array)
    on.reserve("out", (2, 8, 8, 8), np.dtype(np.float32))
    with pytest.raises(FaceAvatarError, match=r"unet\.onnx failed on cpu: [^\n]+$"):
        on.run({name: name for name in INPUTS}, {"noise_pred": "out"})
