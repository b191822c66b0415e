"""Providers: named, checked, and never replaced by another one in silence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from faceavatar.backends import (
    TensorSpec,
    available_providers,
    open_session,
    openvino_cpu,
    physical_cores,
    resolve_provider,
)
from faceavatar.backends._onnxruntime import OnnxRuntimeSession
from faceavatar.backends.processor import processor_name
from faceavatar.errors import FaceAvatarError, PackInvalid, ProviderUnavailable

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
PROVIDERS = [
    "cpu",
    "openvino",
]


def feeds() -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(0)
    return {
        "sample": draw.normal(size=(2, 8, 8, 8)).astype(np.float32),
        "timestep": np.array([999, 999]),
        "encoder_hidden_states": draw.normal(size=(2, 154, 24)).astype(np.float32),
        "face_tokens": draw.normal(size=(2, 4, 24)).astype(np.float32),
        "face_scale": np.ones(1, np.float32),
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_session_knows_its_provider_and_its_signature(tiny: Path, provider: str) -> None:
    session = open_session(tiny / "unet.onnx", provider)
    assert session.provider == provider
    assert session.inputs["timestep"].dtype == "int64"
    assert session.inputs["face_tokens"].shape[1:] == (4, 24)
    assert isinstance(session.inputs["sample"].shape[0], str)
    assert list(session.outputs) == ["noise_pred"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_gives_what_the_reference_gives(tiny: Path, provider: str) -> None:
    reference = open_session(tiny / "unet.onnx", "cpu", threads=1).run(feeds())["noise_pred"]
    result = open_session(tiny / "unet.onnx", provider).run(feeds())["noise_pred"]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, reference, atol=2e-5)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_stored_as_int8_count_with_the_scale_of_their_channel(
    tmp_path: Path, provider: str, axis: int
) -> None:
    draw = np.random.default_rng(0)
    packed = draw.integers(-127, 128, (32, 48)).astype(np.int8)
    scale = draw.uniform(0.001, 0.02, (32, 1) if axis == 0 else (1, 48)).astype(np.float32)
    constants = [onnx.numpy_helper.from_array(packed, "packed"), onnx.numpy_helper.from_array(scale, "scale")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32])
    nodes = [
        helper.make_node("Cast", ["packed"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["weight"]),
        helper.make_node("Gemm", ["x", "weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(nodes, "packed", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "packed.onnx")
    value = draw.normal(size=(2, 48)).astype(np.float32)
    result = open_session(tmp_path / "packed.onnx", provider).run({"x": value})["y"]
    np.testing.assert_allclose(result, value @ (packed * scale).T, atol=1e-4)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_file_that_is_no_graph_is_refused_by_its_name(tmp_path: Path, provider: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(PackInvalid, match=rf"broken\.onnx: {provider} cannot open it"):
        open_session(tmp_path / "broken.onnx", provider)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wrong_input_fails_with_the_graphs_name_in_one_line(tiny: Path, provider: str) -> None:
    wrong = feeds() | {"face_tokens": np.zeros((2, 4, 99), np.float32)}
    with pytest.raises(FaceAvatarError, match=rf"unet\.onnx failed on {provider}: [^\n]+$"):
        open_session(tiny / "unet.onnx", provider).run(wrong)


def test_an_unknown_provider_is_refused_with_those_available() -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"got 'tpu', expected auto or one of .*available here: .*cpu"
    ):
        resolve_provider("tpu")


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
def test_cuda_is_refused_where_it_is_not_installed(tiny: Path) -> None:
    assert "cuda" not in available_providers()
    with pytest.raises(ProviderUnavailable, match=r"'cuda' cannot be used: .*faceavatar\[cuda\]"):
        open_session(tiny / "unet.onnx", "cuda")


def test_openvino_is_refused_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_cpu, "find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailable, match=r"pip install 'faceavatar\[openvino\]'"):
        resolve_provider("openvino")


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_gives_way_to_another_in_silence_is_refused(tiny: Path) -> None:
    with pytest.raises(
        ProviderUnavailable, match="asked for CUDAExecutionProvider, got CPUExecutionProvider"
    ):
        OnnxRuntimeSession(tiny / "unet.onnx", "cuda", "CUDAExecutionProvider", {}, 1)


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_openvino_computes_in_bf16_when_asked_and_says_so(tiny: Path) -> None:
    reference = open_session(tiny / "unet.onnx", "cpu").run(feeds())["noise_pred"]
    if not has_bf16():
        with pytest.raises(
            ProviderUnavailable, match=r"got precision 'bf16', but openvino's processor has .*FP32"
        ):
            open_session(tiny / "unet.onnx", "openvino", precision="bf16")
        return
    session = open_session(tiny / "unet.onnx", "openvino", precision="bf16")
    assert session.precision == "bf16"
    error = np.abs(session.run(feeds())["noise_pred"] - reference).mean() / np.abs(reference).mean()
    assert 5e-4 < error < 5e-2


def test_what_the_processor_has_not_is_refused_by_name(tiny: Path) -> None:
    import openvino

    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert open_session(tiny / "unet.onnx", "openvino", precision="fp16").precision == "fp16"
    else:
        with pytest.raises(ProviderUnavailable, match=r"got precision 'fp16', .*use precision='fp32'"):
            open_session(tiny / "unet.onnx", "openvino", precision="fp16")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_plain_processor_refuses_what_its_graphs_are_not_stored_in(tiny: Path, precision: Any) -> None:
    with pytest.raises(ProviderUnavailable, match=rf"got precision '{precision}', but provider 'cpu'"):
        open_session(tiny / "unet.onnx", "cpu", precision=precision)
    assert open_session(tiny / "unet.onnx", "cpu", precision="fp32").precision == "fp32"


def test_a_processor_is_told_by_its_name_and_features(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Some CPU 9\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\n"
        "flags\t\t: fpu avx2 amx_bf16 lm\n\nprocessor\t: 1\nmodel name\t: Some CPU 9\n"
    )
    assert processor_name(info) == "Some CPU 9 6.143.8 (amx_bf16 avx2)"
    assert processor_name(tmp_path / "none")
    assert processor_name() == processor_name()


def test_auto_takes_the_first_of_those_available() -> None:
    assert resolve_provider("auto") == available_providers()[0]
    assert "cpu" in available_providers()


def test_a_thread_is_given_to_each_core_that_may_be_used() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)


def test_a_signature_reads_as_a_type() -> None:
    assert str(TensorSpec("float32", ("batch", 3, 256, 256))) == "float32[batch, 3, 256, 256]"
