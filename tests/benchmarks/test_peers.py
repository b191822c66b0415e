"""Engines are measured in turns, each in a process; what fails is told, what is done is not done again."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
import run
from lineup import LINEUP, Engine
from summary import psnr, read_lines
from turns import Child, PeerFailed, measure_picture, measure_process, measure_step, read_by_ours

from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.options import Options

OURS = Engine("faceavatar cpu fp32", "ours", "with_faceavatar", {"provider": "cpu", "precision": None})


@pytest.fixture(scope="module")
def spec(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small pack, and noise and a face for it."""
    out = tmp_path_factory.mktemp("out")
    return {"pack": str(tiny_sd), "inputs": str(run.write_inputs(tiny_sd, out)), "folder": str(out)}


@pytest.fixture
def child(spec: dict[str, Any]) -> Child:
    return Child(Path(sys.executable), OURS, spec)


def test_a_whole_process_is_more_than_its_parts(child: Child, tmp_path: Path) -> None:
    found = measure_process(child, 0, tmp_path / "small", size=256)
    assert found["import"] + found["load"] + found["picture"] < found["process"]
    assert found["peak_mb"] > 50
    assert (tmp_path / "small.png").stat().st_size > 1000


def test_a_step_is_timed_from_end_to_end_of_steps(child: Child, tmp_path: Path) -> None:
    found = measure_step(child, 1, tmp_path / "none")
    assert all(seconds > 0 for seconds in found["steps"])
    assert found["first_step"] + sum(found["steps"]) <= found["picture"]
    assert found["decode"] is None


def test_the_same_number_gives_the_same_picture_in_another_turn(child: Child, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        measure_picture(child, 3 if name != "c" else 4, tmp_path / name)
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in ("a", "b", "c"))
    assert psnr(a, b) == 99.0
    assert psnr(a, c) < 50.0


def test_a_peer_that_cannot_run_is_told_in_its_own_words(spec: dict[str, Any], tmp_path: Path) -> None:
    absent = Engine("absent", "ours", "with_nothing")
    with pytest.raises(PeerFailed, match="ModuleNotFoundError: No module named 'with_nothing'"):
        measure_step(Child(Path(sys.executable), absent, spec), 0, tmp_path / "none")
    lost = Child(Path(sys.executable), OURS, {**spec, "pack": str(tmp_path / "lost")})
    with pytest.raises(PeerFailed, match="PackNotFound"):
        measure_step(lost, 0, tmp_path / "none")


def test_a_second_start_goes_on_behind_the_last_measurement(tiny_sd: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"venvs": tmp_path, "checkpoint": tmp_path, "adapter": tmp_path, "pack": tiny_sd}
    args = argparse.Namespace(**fields, out=tmp_path / "out", rounds=1)
    args.out.mkdir()
    done = {"engine": OURS.name, "measure": "step", "round": 0, "numbers": {"steps": [1.0]}}
    (args.out / "lines.jsonl").write_text(json.dumps(done) + '\n{"engine": "cut o', encoding="utf-8")
    run.turns(args, [OURS], ["step"])
    assert read_lines(args.out / "lines.jsonl") == [done]
    args.rounds = 2
    run.turns(args, [OURS], ["step"])
    assert [line["round"] for line in read_lines(args.out / "lines.jsonl")] == [0, 1]


def test_engines_are_chosen_by_whole_names_or_by_parts() -> None:
    assert [one.name for one in run.chosen("diffusers fp32,genai")] == [
        "diffusers fp32",
        "openvino-genai fp32",
        "openvino-genai bf16",
    ]
    assert run.chosen("") == list(LINEUP)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_diffusers_draws_the_same_picture_from_the_same_files(tmp_path: Path) -> None:
    source = checkpoints.sd(tmp_path / "sd")
    adapter = checkpoints.face_adapter(tmp_path / "faceid.bin", source, "faceid")
    options = Options(str(source), tmp_path / "pack", "narrow", "CC0-1.0", face_adapter=adapter)
    export_pack(options, print)
    spec = {
        "checkpoint": str(source),
        "adapter": str(adapter),
        "pack": str(tmp_path / "pack"),
        "inputs": str(run.write_inputs(tmp_path / "pack", tmp_path)),
        "folder": str(tmp_path),
    }
    peer = Engine("diffusers fp32", "ours", "with_diffusers")
    for engine, name in ((OURS, "ours"), (peer, "theirs")):
        measure_picture(Child(Path(sys.executable), engine, spec), 0, tmp_path / name)
    assert psnr(np.load(tmp_path / "ours.npy"), np.load(tmp_path / "theirs.npy")) > 45


def test_before_a_process_is_timed_the_engines_that_it_reads_are_in_memory_and_no_others(
    tmp_path: Path,
) -> None:
    for name in ("pack.json", "unet.onnx", "unet.onnx.data"):
        (tmp_path / name).touch()
    options = {"provider": "openvino", "precision": "bf16"}
    assert {path.name for path in read_by_ours(tmp_path, options)} == {
        *("pack.json", "unet.onnx", "unet.onnx.data")
    }
    entries = [
        {"provider": provider, "asked": asked, "files": [{"file": f"unet-{provider}-{asked}"}]}
        for provider, asked in (("openvino", "bf16"), ("openvino", None), ("cpu", None))
    ]
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "engines.json").write_text(json.dumps({"engines": entries}))
    assert {path.name for path in read_by_ours(tmp_path, options)} == {
        *("pack.json", "unet.onnx", "unet-openvino-bf16")
    }
