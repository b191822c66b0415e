"""The profile of a graph names the operators that it has, on either engine of the processor."""

from __future__ import annotations

from pathlib import Path

from profile_graph import by_onnxruntime, by_openvino, feeds_of

from faceavatar.pack import Pack


def test_both_engines_tell_the_unets_operators_and_their_seconds(tiny_sd: Path) -> None:
    pack = Pack.load(tiny_sd)
    feeds = feeds_of(pack, "unet", 2, 256)
    assert feeds["sample"].shape == (2, 4, 32, 32)
    file = pack.file(pack.graph("unet").file)
    found = by_onnxruntime(file, feeds, 2)
    assert {"Conv", "MatMul", "Softmax"} <= {name.removeprefix("Fused") for name in found}
    assert all(seconds >= 0 for seconds in found.values())
    assert any(name.startswith("Convolution (") for name in by_openvino(file, feeds, "fp32", 2))
