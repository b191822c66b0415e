"""The GPU script on the processor: what it measures, and that no stage takes another down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu.models import Model, export
from gpu.parity import parity
from gpu.report import ratios, table
from gpu.stages import DRY_PROVIDERS, Bench, plan

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu" / "run.py"


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the last line's JSON, and all that was printed."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), "--dry-run", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def record(out: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "stages" / f"{name.replace(' ', '-')}.json").read_text())
    return content


def test_all_of_it_is_planned_for_both_models_at_every_batch(tmp_path: Path) -> None:
    names = list(plan(Bench(tmp_path, False, {})))
    assert names[0] == "machine"
    for model in ("sd15", "sdxl"):
        made = names.index(f"export {model}")
        assert made > names.index(f"weights {model}")
        for name in ("compile {} tensorrt-rtx", "parity {}", *(f"time {{}} batch {n}" for n in (1, 4, 8))):
            assert names.index(name.format(model)) > made


def test_the_work_of_a_step_is_what_sd15_is_known_for(tmp_path: Path) -> None:
    assert Model("sd15", False, tmp_path).flops(2) == pytest.approx(1606e9, rel=0.01)


@pytest.mark.heavy
def test_the_work_of_a_step_is_what_sdxl_is_known_for(tmp_path: Path) -> None:
    known, attention = 2.99e12, 0.39e12  # multiplications; the figure that is told leaves attention's own out
    assert Model("sdxl", False, tmp_path).flops(1) == pytest.approx(2 * (known + attention), rel=0.01)


def test_sdxl_in_half_precision_holds_to_diffusers_in_full_on_every_loop(tmp_path: Path) -> None:
    model = Model("sdxl", True, tmp_path / "sdxl")
    model.folder.mkdir()
    model.save_weights()
    assert export(model)["fused"] == ["unet.ort.onnx", "unet_step.ort.onnx"]
    rows = parity(model, {"cuda": DRY_PROVIDERS["cuda"], "tensorrt-rtx": "tensorrt-rtx"}, {}, "cpu")
    assert rows["cuda"]["misses"] == []
    assert 0 < rows["cuda"]["unet_error"] < 2e-3
    assert "pip install 'faceavatar[tensorrt-rtx]'" in rows["tensorrt-rtx"]["refused"]


def test_a_stage_that_fails_is_told_with_its_error_and_the_others_go_on(tmp_path: Path) -> None:
    code, told, _ = run(tmp_path, "--only", "parity sd15", "--only", "machine")
    assert code == 1
    assert told["failed"] == ["parity sd15"]
    assert record(tmp_path, "machine")["result"]["gemm"]["peak"] > 0
    failed = record(tmp_path, "parity sd15")
    assert not failed["ok"]
    assert "Traceback" in failed["trace"]
    assert failed["error"] in (tmp_path / "report.md").read_text()
    before = (tmp_path / "stages" / "machine.json").stat().st_mtime_ns
    code, told, _ = run(tmp_path, "--only", "machine", "--again", "failed")
    assert (code, told) == (0, {"done": 1, "failed": [], "left": []})
    assert (tmp_path / "stages" / "machine.json").stat().st_mtime_ns == before


def test_a_stage_that_time_cuts_off_is_left_for_the_next_call(tmp_path: Path) -> None:
    code, told, _ = run(tmp_path, "--only", "machine", "--seconds", "0.8")
    assert code == 1
    assert told["left"] == ["machine"]
    assert not (tmp_path / "stages" / "machine.json").exists()
    assert run(tmp_path, "--only", "machine")[:2] == (0, {"done": 1, "failed": [], "left": []})


def test_ratios_are_against_the_fastest_compiled_peer_and_the_table_names_who_could_not_run() -> None:
    rows = {
        name: {"seconds_a_step": seconds, "share_of_peak": 0.4}
        for name, seconds in (
            ("cuda", 0.02),
            ("diffusers eager", 0.05),
            ("diffusers compiled", 0.04),
            ("diffusers compiled, reduce-overhead", 0.03),
        )
    }
    assert ratios(rows)["cuda"] == pytest.approx(1.5)
    found = {
        "time sd15 batch 1": {"ok": True, "result": {"rows": rows, "failed": {"tensorrt-rtx": "no device"}}}
    }
    words = table(found)
    assert "| cuda | 20.00 | 1.50 | 40.0% |" in words
    assert "| tensorrt-rtx | could not run | | no device |" in words


@pytest.mark.heavy
def test_a_dry_run_does_all_of_it_on_the_processor(tmp_path: Path) -> None:
    code, told, words = run(tmp_path)
    assert (code, told["failed"], told["left"]) == (0, [], []), words
    report = json.loads((tmp_path / "report.json").read_text())
    for name, one in report.items():
        if name.startswith("parity"):
            assert all(row["misses"] == [] for row in one["result"].values())
        if name.startswith("time"):
            assert one["result"]["failed"] == {}
            assert {"cuda", "cuda, CUDA graphs", "diffusers eager", "diffusers compiled"} <= {
                *one["result"]["rows"]
            }
            assert all(np.isfinite(row["share_of_peak"]) for row in one["result"]["rows"].values())
