"""`faceavatar bench` measures what it says, counts what is computed, and names what it left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_pack import Recording
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from faceavatar import AvatarEngine
from faceavatar.backends import open_session
from faceavatar.backends.flops import count_flops
from faceavatar_cli.measure import subject
from faceavatar_cli.measure.cases import full_sweep, quick_sweep
from faceavatar_cli.measure.peak import MATMUL, measure_peaks, peak_of
from faceavatar_cli.measure.subject import Case, bind, draw, work_of
from faceavatar_export.graphs import export_graph

FEW = ("--quick", "--runs", 1, "--batches", "1,2", "--sizes", 256, "--steps", 2, "--provider", "cpu")


@pytest.fixture
def measured(run: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command with a history of its own; what it printed, and its JSON."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def call(*arguments: object) -> tuple[str, dict[str, Any]]:
        ran = run("bench", "tiny", *FEW, "--json", tmp_path / "found.json", *arguments)
        assert ran.code == 0, ran.err
        return ran.out, json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))

    return call


def test_a_second_run_tells_what_changed_since_the_first(measured: Any, tmp_path: Path) -> None:
    first, _ = measured("--history")
    assert "no earlier run of this" in first
    again, found = measured("--history", "--plot", tmp_path / "plots")
    assert "since 20" in again
    for name in found["numbers"]:
        assert again.count(name) >= 1, name
    (kept,) = (tmp_path / "state" / "faceavatar" / "bench").iterdir()
    assert kept.name == f"{found['machine']['key']}.jsonl"
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 2
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == ["latency.png", "roofline.png"]


def test_its_numbers_belong_together(measured: Any) -> None:
    _, found = measured()
    fresh = found["fresh"]
    parts = fresh["import_seconds"] + fresh["load_seconds"] + fresh["first_picture"]
    assert parts <= fresh["to_first_picture"]
    assert fresh["peak_memory_mb"] > 50
    cases = {(one["case"]["batch"], one["case"]["steps"]): one for one in found["cases"]}
    assert set(cases) == {(1, 2), (2, 2), (1, 1)}
    for (batch, steps), one in cases.items():
        assert one["stages"]["denoise"] / steps == pytest.approx(one["step_seconds"])
        assert one["work"]["step"] / one["step_seconds"] == pytest.approx(one["step_flops"])
        assert sum(one["stages"].values()) <= one["seconds"]
        assert one["work"]["step"] == batch * cases[1, 2]["work"]["step"]
        peak = max(value for name, value in found["peaks"].items() if name.startswith("fp32"))
        assert one["step_share"] == pytest.approx(one["step_flops"] / peak)


def test_without_openvino_it_says_that_the_shares_are_missing_and_why(
    measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject._counted.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    told, found = measured()
    assert "missing: FLOP/s and shares of the peak:" in told
    assert "faceavatar[openvino]" in told
    assert {one["step_share"] for one in found["cases"]} == {None}


def test_cases_that_the_time_does_not_suffice_for_are_named(measured: Any) -> None:
    told, found = measured("--minutes", 1e-6)
    assert len(found["cases"]) == 1
    assert [one["case"]["batch"] for one in found["skipped"]] == [2, 1]
    assert "skipped: 256x256, batch 2, 2 steps would take" in told


@pytest.mark.parametrize("value", ["0", "9", "two", "1,,2"])
def test_batches_out_of_range_are_refused(run: Any, value: str) -> None:
    ran = run("bench", "tiny", "--batches", value)
    assert ran.code == 2
    assert "--batches" in ran.err


class Mixed(nn.Module):
    """Every kind of product that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.line = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.line(self.up(self.grouped(self.wide(x))).flatten(2).transpose(1, 2))
        scores = torch.softmax(rows @ rows.transpose(1, 2), -1)
        return torch.einsum("bij,bjd->bid", scores, rows)


def test_operations_are_counted_as_torch_counts_them(tmp_path: Path) -> None:
    module, x = Mixed().eval(), torch.randn(2, 4, 16, 12)
    export_graph(module, {"x": x}, ["y"], {}, tmp_path / "mixed.onnx", {})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    assert count_flops(tmp_path / "mixed.onnx", {"x": tuple(x.shape)}) == counter.get_total_flops()


def test_the_shapes_that_are_counted_are_those_that_the_graphs_are_fed(tiny_sd: Path) -> None:
    engine, case = AvatarEngine.load(tiny_sd, provider="cpu"), Case(3, 256, 320, 1)
    recorded = {"unet": Recording(engine.unet.session), "vae_decoder": Recording(engine.vae.session)}
    engine.unet.session, engine.vae.session = recorded["unet"], recorded["vae_decoder"]
    draw(engine, case, 0)
    halves, cells = 2, (256 // 8, 320 // 8)
    for role, batch in (("unet", halves * 3), ("vae_decoder", 1)):
        inputs = engine.pack.graph(role).inputs
        counted = {name: bind(tensor.shape, batch, cells, 8, name) for name, tensor in inputs.items()}
        assert {name: fed.shape for name, fed in recorded[role].feeds[0].items()} == counted
    assert work_of(engine.pack, case).step == 3 * work_of(engine.pack, Case(1, 256, 320, 1)).step


def test_the_matrix_product_is_the_one_of_its_recipe() -> None:
    def info(name: str, *sides: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sides)

    a, b, c = info("a", "rows", "inner"), info("b", "inner", "columns"), info("c", "rows", "columns")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "matmul", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert MATMUL.read_bytes() == model.SerializeToString(deterministic=True)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(open_session(MATMUL, "cpu").run({"a": x, "b": x.T})["c"], x @ x.T)


def test_a_peak_is_measured_for_every_provider_of_the_processor() -> None:
    peaks = measure_peaks("cpu", 1, side=256)
    assert {"fp32 numpy", "fp32 cpu", "fp32 openvino"} <= set(peaks)
    assert peak_of(peaks, "fp32") == max(value for name, value in peaks.items() if "fp32" in name)
    assert peak_of({"fp32 cpu": 1.0}, "bf16") is None


def test_the_sweeps_begin_with_the_base_and_hold_no_case_twice() -> None:
    for sweep in (full_sweep(30), quick_sweep(30), full_sweep(4, steps=1, batches=(2,), sizes=(300,))):
        cases = sweep.cases()
        assert cases[0] == sweep.base
        assert len(set(cases)) == len(cases)
    assert {case.batch for case in full_sweep(30).cases()} == {1, 2, 4, 8}
    assert {case.height for case in full_sweep(30).cases()} == {256, 512, 768, 1024}
